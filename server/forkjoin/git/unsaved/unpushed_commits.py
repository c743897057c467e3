"""Commits made in a repository, told from fetched commits by refs and logs.

What a remote-tracking ref has is elsewhere, and so is what was fetched, or cloned. A commit that only a log knows
counts if the log says that it was made there; one that was amended since does not.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import read_regular
from forkjoin.git import git
from forkjoin.git.unsaved.remotes import Remotes
from forkjoin.git.unsaved.untrusted_repository_reader import UnreadableError, UntrustedRepository
from forkjoin.git.worktrees.nested_repositories import Nested
from forkjoin.git.worktrees.release_branches import STASHES

#: Bytes of a log, or of a list of commits, that are read.
_LIMIT = 32 * 1024 * 1024
#: How many commits are counted.
COMMIT_LIMIT = 2_000
#: The refs that each worktree has of its own (git-worktree(1)).
WORKTREE_REFS = ("refs/bisect/", "refs/rewritten/", "refs/worktree/")

_ID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LINE = re.compile(rb"([0-9a-f]{40,64}) ([0-9a-f]{40,64}) [^\t]*\t?(.*)")
#: What a log says of commits that were there before (git-reflog(1)); what is committed or stashed has words of people.
_BROUGHT = re.compile(
    rb"clone|fetch|checkout|reset|branch|switch|update by push"
    rb"|rebase.*\((?:start|abort)\)|(?!commit|WIP on |On ).*: (?:[Ff]ast-forward|storing head)$"
)


@dataclass(frozen=True, slots=True)
class Tips:
    """Commits by which the history of a repository is known."""

    own: frozenset[str]  #: those that nothing keeps once the repository has gone
    elsewhere: frozenset[str]


async def find_tips(lens: UntrustedRepository, nested: Nested, remotes: Remotes | None = None) -> Tips:
    """Find where the commits of a repository end.

    Args:
        lens: A lens on the repository.
        nested: The repository.
        remotes: Tells which remotes stay; without it, all count as staying.

    Raises:
        UnreadableError: A file there is larger than any honest one, or no regular file.
        GitError: git can't tell.
    """
    listing = await lens.git("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)")
    refs = {ref: (peeled or object_) for ref, object_, peeled in (line.split(" ") for line in listing.splitlines())}
    logs = await to_thread.run_sync(_read_logs, nested, remotes)
    heads = set(await to_thread.run_sync(_read_heads, nested))
    if await to_thread.run_sync((nested.common / "reftable").is_dir):  # there no file says
        heads |= await _ask_table(lens)
    private = {ref for ref in refs if lens.is_linked and ref.startswith(WORKTREE_REFS)}
    if not nested.is_deleted_with_worktree:
        own = heads | logs.made | {refs[ref] for ref in private}
        return Tips(frozenset(own), frozenset(refs[ref] for ref in refs.keys() - private))
    brought = {ref for ref, tip in refs.items() if _is_brought(ref, tip, logs, remotes)}
    elsewhere = {refs[ref] for ref in brought} | logs.came | await to_thread.run_sync(_read_fetched, nested, remotes)
    own = {tip for ref, tip in refs.items() if ref not in brought}
    return Tips(frozenset(own | heads | logs.made), frozenset(elsewhere))


async def list_unsaved_commits(lens: UntrustedRepository, own: Iterable[str], elsewhere: Iterable[str]) -> list[str]:
    """Return the commits that `own` has and `elsewhere` has not, newest first; at most COMMIT_LIMIT."""
    wanted = "".join(f"{one}\n" for one in sorted(own)) + "".join(f"^{one}\n" for one in sorted(elsewhere))
    asked = ("rev-list", "--ignore-missing", f"--max-count={COMMIT_LIMIT}", "--stdin")
    return (await lens.git(*asked, stdin=wanted.encode())).split() if any(own) else []


def _is_brought(ref: str, tip: str, logs: "_Logs", remotes: Remotes | None) -> bool:
    """Whether a ref is that of a remote that stays, or a tag that came with a clone."""
    if remotes and not ref.startswith(remotes.refs):
        return False
    return ref.startswith("refs/remotes/") or (ref.startswith("refs/tags/") and logs.there and tip not in logs.made)


# -- what files say


@dataclass(frozen=True, slots=True)
class _Logs:
    there: bool
    made: frozenset[str]
    came: frozenset[str]


def _read_logs(nested: Nested, remotes: Remotes | None) -> _Logs:
    files = [nested.folder / "logs" / "HEAD"]
    if nested.is_deleted_with_worktree:
        top = nested.common / "logs"
        files += [file for file in walk_files(top) if not file.is_relative_to(top / "refs" / "remotes")]
        files += nested.common.glob("worktrees/*/logs/HEAD")
    lines = [line for file in dict.fromkeys(files) for line in _read(file).splitlines()]
    made, amended, came = set[bytes](), set[bytes](), set[bytes]()
    for old, new, why in (found.groups() for found in map(_LINE.fullmatch, lines) if found):
        if why.startswith(b"commit (amend)"):
            amended.add(old)
        if why.startswith(b"clone") and _stays(why.removeprefix(b"clone: from "), remotes):
            came.add(new)
        if not _BROUGHT.match(why):
            made.add(new)
    return _Logs(bool(lines), _ids(made - amended), _ids(came))


async def _ask_table(lens: UntrustedRepository) -> set[str]:
    """The commit at HEAD, and those that its log says were made there, of a repository with reftables."""
    asked = ("log", "--walk-reflogs", "--format=%H%x09%gs", "HEAD", "--")
    _, out, _ = await git.run(lens.folder, *asked, extra=lens.environment)
    lines = [line.partition(b"\t")[::2] for line in out.splitlines()]
    made = [new for number, (new, why) in enumerate(lines) if number == 0 or not _BROUGHT.match(why)]
    return set(_ids(one for one in made if _ID.fullmatch(one)))


def walk_files(top: Path) -> Iterator[Path]:
    """Find the logs, or the refs, below a folder."""
    for above, _, names in os.walk(top):
        yield from (Path(above, name) for name in names)


def _read_heads(nested: Nested) -> frozenset[str]:
    """The commits of detached HEADs, of stashes for an operation, and of its worktrees' own refs."""
    if not nested.is_deleted_with_worktree and not os.path.lexists(nested.folder / "commondir"):
        return frozenset()  # HEAD stays, too
    linked = [*nested.common.glob("worktrees/*")] if nested.is_deleted_with_worktree else [nested.folder]
    files = [folder / name for folder in {nested.folder, *linked} for name in ("HEAD", *STASHES)]
    files += [file for folder in linked for file in walk_files(folder / "refs")]
    lines = [_read(file).strip() for file in files]
    return _ids(line for line in lines if _ID.fullmatch(line))


def _read_fetched(nested: Nested, remotes: Remotes | None) -> frozenset[str]:
    """The commits that were fetched last, and those at which a shallow history ends."""
    rows = (line.rpartition(b"\t") for line in _read(nested.folder / "FETCH_HEAD").splitlines())
    lines = [first for first, _, last in rows if _stays(last.rpartition(b" of ")[2], remotes)]
    if remotes is None or remotes.refs:
        lines += _read(nested.common / "shallow").splitlines()
    found = map(_ID.match, lines)
    return _ids(one[0] for one in found if one)


def _stays(url: bytes, remotes: Remotes | None) -> bool:
    return remotes is None or remotes.outlives(os.fsdecode(url))


def _ids(found: Iterable[bytes]) -> frozenset[str]:
    return frozenset(one.decode() for one in found if one.strip(b"0"))


def _read(file: Path) -> bytes:
    data = read_regular(file, _LIMIT) or b""
    if len(data) == _LIMIT:
        raise UnreadableError(f"{file} is too large")
    return data
