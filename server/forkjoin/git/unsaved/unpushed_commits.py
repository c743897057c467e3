"""Commits of a nested repository that no repository outside has, found by its refs and reflogs.

Commits of remote-tracking refs, and commits that were fetched or cloned, are saved in the remote. A commit that only a
reflog names counts as made here if the reason there says so, unless it was amended afterwards.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import read_regular
from forkjoin.git import git
from forkjoin.git.unsaved.nested_repositories import NestedRepository
from forkjoin.git.unsaved.remotes import Remotes
from forkjoin.git.unsaved.untrusted_repository_reader import RepositoryReader, UnreadableError
from forkjoin.git.worktrees.release_branches import STASHES

#: A reflog or a list of commits with more bytes than this counts as unreadable.
_FILE_LIMIT = 32 * 1024 * 1024
#: The most commits that are listed.
COMMIT_LIMIT = 2_000
#: Folders of refs that each worktree has for itself (git-worktree(1)).
WORKTREE_REFS = ("refs/bisect/", "refs/rewritten/", "refs/worktree/")

_ID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LOG_LINE = re.compile(rb"([0-9a-f]{40,64}) ([0-9a-f]{40,64}) [^\t]*\t?(.*)")
#: Reasons in a reflog that say that a ref moved to a commit that existed before (git-reflog(1)). The reason for a new
#: commit or stash contains its message, which is free text.
_EXISTED_BEFORE = re.compile(
    rb"clone|fetch|checkout|reset|branch|switch|update by push"
    rb"|rebase.*\((?:start|abort)\)|(?!commit|WIP on |On ).*: (?:[Ff]ast-forward|storing head)$"
)


@dataclass(frozen=True, slots=True)
class Tips:
    """Commits from which the whole history of a repository is reachable."""

    only_here: frozenset[str]  #: the commits that may be lost with the agent's worktree
    saved: frozenset[str]  #: the commits that are also kept outside of the agent's worktree


async def find_repository_tips(
    reader: RepositoryReader, nested: NestedRepository, remotes: Remotes | None = None
) -> Tips:
    """Find the tips of a nested repository.

    Args:
        reader: A reader of the repository.
        nested: The repository.
        remotes: The repository's remotes. If omitted, all remotes count as lasting.

    Raises:
        UnreadableError: A reflog is too large.
        GitError: git can't read the refs.
    """
    listing = await reader.output("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)")
    refs = {ref: (peeled or object_) for ref, object_, peeled in (line.split(" ") for line in listing.splitlines())}
    logs = await to_thread.run_sync(_read_logs, nested, remotes)
    heads = set(await to_thread.run_sync(_read_heads, nested))
    if await to_thread.run_sync(
        (nested.common / "reftable").is_dir
    ):  # HEAD and its reflog are not in files of their own there
        heads |= await _ask_for_head(reader)
    private = {ref for ref in refs if reader.is_linked and ref.startswith(WORKTREE_REFS)}
    if not nested.is_deleted_with_worktree:
        only_here = heads | logs.made_here | {refs[ref] for ref in private}
        return Tips(frozenset(only_here), frozenset(refs[ref] for ref in refs.keys() - private))
    remote = {ref for ref, tip in refs.items() if _is_from_remote(ref, tip, logs, remotes)}
    fetched = await to_thread.run_sync(_read_fetched, nested, remotes)
    only_here = {tip for ref, tip in refs.items() if ref not in remote} | heads | logs.made_here
    return Tips(frozenset(only_here), frozenset({refs[ref] for ref in remote} | logs.cloned | fetched))


async def list_unsaved_commits(reader: RepositoryReader, only_here: Iterable[str], saved: Iterable[str]) -> list[str]:
    """Return the commits that `only_here` reaches and `saved` doesn't, newest first.

    At most COMMIT_LIMIT commits are returned.
    """
    stdin = "".join(f"{tip}\n" for tip in sorted(only_here)) + "".join(f"^{tip}\n" for tip in sorted(saved))
    arguments = ("rev-list", "--ignore-missing", f"--max-count={COMMIT_LIMIT}", "--stdin")
    return (await reader.output(*arguments, stdin=stdin.encode())).split() if any(only_here) else []


def _is_from_remote(ref: str, tip: str, logs: "_Logs", remotes: Remotes | None) -> bool:
    """Return whether a lasting remote has the commit of a ref.

    It has the commit of a remote-tracking ref, and of a tag that was not made here.

    Args:
        ref: The full name of the ref.
        tip: The ref's commit.
        logs: The reflogs of the repository.
        remotes: As for `find_tips`.
    """
    if remotes and not ref.startswith(remotes.lasting_refs):
        return False
    if ref.startswith("refs/remotes/"):
        return True
    return ref.startswith("refs/tags/") and logs.has_lines and tip not in logs.made_here


# -- what files say


@dataclass(frozen=True, slots=True)
class _Logs:
    """What the reflogs of a repository tell about its commits."""

    has_lines: bool  #: whether any reflog has an entry
    made_here: frozenset[str]  #: the commits that were made in this repository, and not amended
    cloned: frozenset[str]  #: the commits that were cloned from a lasting remote


def _read_logs(nested: NestedRepository, remotes: Remotes | None) -> _Logs:
    files = [nested.folder / "logs" / "HEAD"]
    if nested.is_deleted_with_worktree:
        top = nested.common / "logs"
        files += [file for file in walk_files(top) if not file.is_relative_to(top / "refs" / "remotes")]
        files += nested.common.glob("worktrees/*/logs/HEAD")
    lines = [line for file in dict.fromkeys(files) for line in _read_whole(file).splitlines()]
    made, amended, cloned = set[bytes](), set[bytes](), set[bytes]()
    for old, new, message in (match.groups() for match in map(_LOG_LINE.fullmatch, lines) if match):
        if message.startswith(b"commit (amend)"):
            amended.add(old)
        if message.startswith(b"clone") and _is_lasting(message.removeprefix(b"clone: from "), remotes):
            cloned.add(new)
        if not _EXISTED_BEFORE.match(message):
            made.add(new)
    return _Logs(bool(lines), _decode_ids(made - amended), _decode_ids(cloned))


async def _ask_for_head(reader: RepositoryReader) -> set[str]:
    """Return the commit at HEAD, and those made here according to HEAD's reflog.

    This is for repositories with reftables. git reads the reflog.
    """
    arguments = ("log", "--walk-reflogs", "--format=%H%x09%gs", "HEAD", "--")
    _, out, _ = await git.run(reader.folder, *arguments, extra=reader.environment)
    lines = [line.partition(b"\t")[::2] for line in out.splitlines()]
    made = [new for n, (new, message) in enumerate(lines) if n == 0 or not _EXISTED_BEFORE.match(message)]
    return set(_decode_ids(commit for commit in made if _ID.fullmatch(commit)))


def walk_files(top: Path) -> Iterator[Path]:
    """Yield the files at any depth below a folder. Blocks."""
    for above, _, names in os.walk(top):
        yield from (Path(above, name) for name in names)


def _read_heads(nested: NestedRepository) -> frozenset[str]:
    """Return the commits of HEADs and other refs that are only in files. Blocks.

    They are detached HEADs, stashes of operations in progress, and the refs that a worktree has for itself.
    """
    if not nested.is_deleted_with_worktree and not os.path.lexists(nested.folder / "commondir"):
        return frozenset()  # the git folder, with HEAD, is not deleted with the agent's worktree
    linked = [*nested.common.glob("worktrees/*")] if nested.is_deleted_with_worktree else [nested.folder]
    files = [folder / name for folder in {nested.folder, *linked} for name in ("HEAD", *STASHES)]
    files += [file for folder in linked for file in walk_files(folder / "refs")]
    lines = [_read_whole(file).strip() for file in files]
    return _decode_ids(line for line in lines if _ID.fullmatch(line))


def _read_fetched(nested: NestedRepository, remotes: Remotes | None) -> frozenset[str]:
    """Return the commits of the last fetch, and those at which a shallow history ends.

    Blocks. Commits that only remotes in agents' worktrees have are omitted.
    """
    rows = (line.rpartition(b"\t") for line in _read_whole(nested.folder / "FETCH_HEAD").splitlines())
    lines = [first for first, _, last in rows if _is_lasting(last.rpartition(b" of ")[2], remotes)]
    if remotes is None or remotes.lasting_refs:
        lines += _read_whole(nested.common / "shallow").splitlines()
    return _decode_ids(match[0] for match in map(_ID.match, lines) if match)


def _is_lasting(url: bytes, remotes: Remotes | None) -> bool:
    return remotes is None or remotes.is_lasting(os.fsdecode(url))


def _decode_ids(ids: Iterable[bytes]) -> frozenset[str]:
    """Decode object ids. Omit zeros, which mean that there is no commit."""
    return frozenset(object_id.decode() for object_id in ids if object_id.strip(b"0"))


def _read_whole(file: Path) -> bytes:
    data = read_regular(file, _FILE_LIMIT) or b""
    if len(data) == _FILE_LIMIT:
        raise UnreadableError(f"{file} has {_FILE_LIMIT // 1024 // 1024} MB or more")
    return data
