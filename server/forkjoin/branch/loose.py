"""What an agent's program leaves in its worktree, and what is brought there before it starts.

The program has ended, and may have left anything: its git folder is found from the repository's side and named outright
in every call, so that neither a `.git` that is gone or replaced nor a repository around the worktree leads git astray.
Only the agent's own branch is ever moved; what that can't take is kept under refs/forkjoin/kept/.
"""

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread

from forkjoin.branch import git, kept
from forkjoin.branch.checkout import find_checkout
from forkjoin.branch.worktree import git_folder, is_folder, is_linked
from forkjoin.error import CallerError, GitError, is_passing
from forkjoin.regular import open_regular

#: Of more loose paths than this, the objects are put on disk together: one by one takes milliseconds for each.
_MANY = 100

#: How many files, and bytes, `.worktreeinclude` may name.
_BROUGHT, _BROUGHT_BYTES = 100_000, 4 * 1024**3
_CHUNK = 1024 * 1024
#: What a file is called while it is copied, so that it is there wholly or not at all.
_NEW = ".forkjoin-new"

#: How many files or folders are named before the rest is only counted.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Left:
    """How an agent's branch stands once its loose work is committed.

    Attributes:
        tip: The branch's commit; none where nothing of it is left.
        loose: How many paths were uncommitted, and are committed now.
        warnings: What the lead should know, each a sentence.
        repositories: Folders of the worktree that are repositories with commits of their own, which are in no other.
    """

    tip: str | None
    loose: int
    warnings: list[str]
    repositories: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class _Place:
    """A worktree as git is told of it, whatever its `.git` says."""

    common_dir: str
    folder: Path  #: its git folder
    path: Path

    async def git(self, *arguments: str, stdin: bytes | None = None, extra: Mapping[str, str] | None = None) -> str:
        here = {"GIT_DIR": str(self.folder), "GIT_WORK_TREE": str(self.path)}
        return await git.git(self.path, *arguments, stdin=stdin, extra={**here, **(extra or {})})


@dataclass(frozen=True, slots=True)
class _Status:
    """What `git status` says.

    Attributes:
        head: The commit that HEAD is at; none where its branch is gone.
        branch: The short name of the branch that HEAD is on; none where it is detached.
        loose: Paths that differ from HEAD, new ones too.
        unmerged: Those of them that are in conflict.
        repositories: Folders that are repositories of their own, and changed: new ones, and submodules.
    """

    head: str | None
    branch: str | None
    loose: list[str]
    unmerged: list[str]
    repositories: list[str]
    ignored: list[str]


async def commit_loose(
    common_dir: str, worktree: Path, branch: str, message: str, author: Mapping[str, str] | None, keep_as: str
) -> Left:
    """Commit whatever is uncommitted (untracked files too) and see that `branch` has it; doing so twice is harmless.

    Work that `branch` can't take, because the agent moved it elsewhere, is kept under refs/forkjoin/kept/`keep_as`.
    With no `author` it is git that is asked for one, where a commit is made.
    """
    folder = await to_thread.run_sync(git_folder, common_dir, worktree)
    if folder is None:
        tip = await git.tip(common_dir, f"refs/heads/{branch}")
        return Left(tip, 0, ["git knows the agent's worktree no more: only what its branch had is left."])
    place = _Place(common_dir, folder, worktree)
    warnings = await to_thread.run_sync(_mend, place, branch)
    if not await to_thread.run_sync(is_folder, worktree):
        head = await git.resolve(folder, "HEAD")
        tip, more = await _bring_home(place, branch, head, keep_as) if head else (None, [])
        return Left(tip or await git.tip(common_dir, f"refs/heads/{branch}"), 0, warnings + more)
    status = await _read_status(place, warnings)
    tip, loose = await _commit(place, status, branch, message, author, warnings)
    if status.head is None or status.branch != branch:
        tip, more = await _bring_home(place, branch, tip, keep_as)
        warnings += more
    warnings += await _name_what_stays(place, status)
    return Left(tip, loose, warnings, await to_thread.run_sync(_with_commits, place, status.repositories))


async def is_at(common_dir: str, worktree: Path, commit: str) -> bool:
    """Whether there is nothing in a worktree but this commit, and ignored files; so it is where it is gone."""
    folder = await to_thread.run_sync(git_folder, common_dir, worktree)
    if folder is None or not await to_thread.run_sync(is_folder, worktree):
        return True
    status = await _status(_Place(common_dir, folder, worktree))
    return status.head == commit and not status.loose and not status.repositories


def _mend(place: _Place, branch: str) -> list[str]:
    """Put back a `.git` that is gone, and take away locks of a git that was killed: nothing runs there any more."""
    for lock in ("index.lock", "HEAD.lock", f"{place.common_dir}/refs/heads/{branch}.lock"):
        (place.folder / lock).unlink(missing_ok=True)
    if not is_folder(place.path):
        return ["The agent removed its worktree: only what it had committed is left."]
    link = place.path / ".git"
    if not link.exists() and not link.is_symlink():
        link.write_bytes(b"gitdir: %s\n" % os.fsencode(place.folder))
        return ["The agent removed .git from its worktree; it was put back, and the files there were committed."]
    if not is_linked(place.path, place.folder):
        return ["The agent replaced .git in its worktree: the files there were committed, but no commit of that .git."]
    return []


# -- what is there


async def _read_status(place: _Place, warnings: list[str]) -> _Status:
    index = place.folder / "index"
    if await to_thread.run_sync(index.exists):
        with contextlib.suppress(GitError):
            return await _status(place)
    await to_thread.run_sync(lambda: index.unlink(missing_ok=True))
    if await git.resolve(place.folder, "HEAD"):
        await place.git("read-tree", "HEAD")
    warnings.append("The index of the agent's worktree was damaged; it was made again from its last commit.")
    return await _status(place)


async def _status(place: _Place) -> _Status:
    form = ("--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=dirty")
    listing = await place.git("status", *form, "--untracked-files=all", "--ignored=matching")
    lines = git.names_in(listing)
    said = {line.split(" ")[1]: line.split(" ")[2] for line in lines if line.startswith("# branch.")}
    head, branch = said["branch.oid"], said["branch.head"]
    changed = [line.split(" ", 8) for line in lines if line.startswith("1 ")]  # 1 XY submodule modes and ids path
    submodules = [path for _, state, kind, *_, path in changed if kind != "N..." and state[1] != "."]
    unmerged = [line.split(" ", 10)[10] for line in lines if line.startswith("u ")]
    new = [line[2:] for line in lines if line.startswith("? ")]
    return _Status(
        head=None if head == "(initial)" else head,
        branch=None if branch == "(detached)" else branch,
        loose=[*(fields[8] for fields in changed), *unmerged, *(name for name in new if not name.endswith("/"))],
        unmerged=unmerged,
        repositories=[*submodules, *(name for name in new if name.endswith("/"))],
        ignored=[line[2:] for line in lines if line.startswith("! ")],
    )


# -- committing it


async def _commit(
    place: _Place, status: _Status, branch: str, message: str, author: Mapping[str, str] | None, warnings: list[str]
) -> tuple[str, int]:
    """Commit what is loose, on HEAD; the commit that is there then, and how many paths were loose."""
    parent = status.head or await _last_head(place)
    if parent and not status.loose:
        return parent, 0
    tree = await _stage(place, status, warnings)
    paths = await _differing(place, parent, tree) if parent else status.loose
    if parent and not paths:
        return parent, 0
    who = await git.author(place.common_dir) if author is None else author
    tip = await place.git("commit-tree", *(("-p", parent) if parent else ()), "-m", message, tree, extra=who)
    await _move_head(place, status, branch, tip)
    warnings.append(f"{len(paths)} uncommitted path{'s were' if len(paths) != 1 else ' was'} committed for the agent.")
    if status.unmerged:
        warnings.append(f"They were in the middle of a merge, with conflicts in: {_name(status.unmerged)}.")
    return tip, len(paths)


async def _move_head(place: _Place, status: _Status, branch: str, tip: str) -> None:
    """Put HEAD on `tip`: with the agent's own branch, or off any other one, which is not ours to move."""
    if status.branch != branch:
        lines = ["option no-deref", f"update HEAD {tip}"]
    elif status.head:
        lines = [f"update refs/heads/{branch} {tip} {status.head}"]
    else:  # it is on a branch that is gone, and will be made again
        return
    await git.update_refs(place.common_dir, lines, "forkjoin: loose work", extra={"GIT_DIR": str(place.folder)})


async def _stage(place: _Place, status: _Status, warnings: list[str]) -> str:
    """Stage all that is there, but no other repository; the tree it makes."""
    # Of a submodule git would ask how it stands by a git of its own, which heeds the configuration there.
    others = {*status.repositories, *await _list_submodules(place)}
    paths = git.as_input([".", *(f":(top,exclude,literal){name}" for name in sorted(others))])
    quick = ("-c", "core.fsync=none") if len(status.loose) > _MANY else ()
    add = (*quick, "-c", "core.safecrlf=false", "add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul")
    try:
        await place.git(*add, stdin=paths)
    except GitError as error:
        warnings.append(f"Not all of the uncommitted work could be committed: {error.stderr.splitlines()[0][:300]}")
        with contextlib.suppress(GitError):
            await place.git(*add, "--ignore-errors", stdin=paths)
    tree = await place.git(*quick, "write-tree")
    if quick:
        await git.sync(place.common_dir)
    return tree


async def _list_submodules(place: _Place) -> list[str]:
    rows = git.names_in(await place.git("ls-files", "-z", "--stage"))
    return [row.partition("\t")[2] for row in rows if row.startswith("160000 ")]


async def _differing(place: _Place, commit: str, tree: str) -> list[str]:
    return git.names_in(await place.git("diff-tree", "-r", "-z", "--no-renames", "--name-only", commit, tree))


async def _last_head(place: _Place) -> str | None:
    """The last commit that HEAD was at, by its log: where its branch is gone, what was on it is not."""
    with contextlib.suppress(OSError):
        log = await to_thread.run_sync((place.folder / "logs" / "HEAD").read_text, "utf-8", "replace")
        commits = [commit for line in log.splitlines() for commit in line.split(" ")[:2] if commit.strip("0")]
        return await git.resolve(place.common_dir, commits[-1]) if commits else None
    return None


async def _bring_home(place: _Place, branch: str, tip: str, keep_as: str) -> tuple[str, list[str]]:
    """See that the agent's branch has its last commit, wherever it was made; the branch's commit then."""
    ref = f"refs/heads/{branch}"
    now = await git.tip(place.common_dir, ref)
    if now is None:
        await git.update_refs(place.common_dir, [f"create {ref} {tip}"], "forkjoin: restored")
        return tip, ["The agent's branch was gone; it was made again at the agent's last commit."]
    if await git.is_ancestor(place.common_dir, tip, now):
        return now, []
    if await git.is_ancestor(place.common_dir, now, tip) and await _may_move(place, ref):
        await git.update_refs(place.common_dir, [f"update {ref} {tip} {now}"], "forkjoin: brought home")
        return tip, ["The agent worked off its branch; the branch was moved to its last commit."]
    kept_as = await kept.keep(place.common_dir, tip, keep_as)
    return now, [f"The agent's HEAD had left its branch; what was there is kept as {kept_as}, and is not merged."]


async def _may_move(place: _Place, ref: str) -> bool:
    """Whether nobody else has the agent's branch checked out: they would find their files changed back."""
    try:
        return await find_checkout(place.common_dir, ref) in (None, str(place.path))
    except CallerError:
        return False


# -- what stays there


async def _name_what_stays(place: _Place, status: _Status) -> list[str]:
    said: list[str] = []
    if status.repositories:
        said.append(f"Repositories within the worktree stay there, and are not merged: {_name(status.repositories)}.")
    if status.ignored:
        brought = set(await _included(place.path, {"GIT_DIR": str(place.folder), "GIT_WORK_TREE": str(place.path)}))
        if names := [name for name in status.ignored if name not in brought]:
            said.append(f"Ignored files stay in the worktree and are not merged: {_name(names)}.")
    return said


def _with_commits(place: _Place, repositories: list[str]) -> list[str]:
    """Those of them that go with the worktree and have a commit, by their files: git would heed their settings."""
    return [name for name in repositories if _has_commits(place, place.path / name / ".git")]


def _has_commits(place: _Place, link: Path) -> bool:
    top = link
    if link.is_file():  # a submodule's: it leads to a git folder, most often in that of the worktree
        top = link.parent / os.fsdecode(link.read_bytes()).removeprefix("gitdir:").strip()
    top = top.resolve()
    if not any(top.is_relative_to(own.resolve()) for own in (place.path, place.folder)):
        return False
    head = top / "HEAD"
    detached = head.is_file() and not head.read_bytes().startswith(b"ref:")
    heads = (file for file in (top / "refs" / "heads").rglob("*") if file.is_file())
    return detached or (top / "packed-refs").exists() or any(heads)


def _name(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(git.readable(name)[:100] for name in names[:_NAMED]) + more


# -- what is brought there


async def bring_ignored(checkout: Path, worktree: Path) -> int:
    """Copy what `.worktreeinclude` names (such as .env) from the checkout to a worktree; how many files that were.

    What is there already stays as it is.

    Raises:
        CallerError: A file of them can't be read.
    """
    names = await _included(checkout)
    try:
        return await to_thread.run_sync(_copy, checkout, worktree, names)
    except OSError as error:
        if is_passing(error) and error.errno not in (errno.ENOSPC, errno.EDQUOT):  # those a person must mend
            raise
        raise CallerError(f"What .worktreeinclude names can't be brought to the worktree: {error}") from error


async def _included(checkout: Path, extra: Mapping[str, str] | None = None) -> list[str]:
    """The ignored files that `.worktreeinclude`, which reads as a .gitignore does, names in this checkout."""
    if not await to_thread.run_sync((checkout / ".worktreeinclude").is_file):
        return []  # git would wait for a FIFO's other end
    others = ("ls-files", "-z", "--others", "--ignored", "--exclude-from=.worktreeinclude", "--", ".")
    names = git.names_in(await git.git(checkout, *others, extra=extra))
    if not names:
        return []
    # Exit 1 says that none of them is ignored.
    _, out, _ = await git.run(checkout, "check-ignore", "-z", "--stdin", stdin=git.as_input(names), extra=extra)
    return git.names_in(os.fsdecode(out))


def _copy(checkout: Path, worktree: Path, names: Sequence[str]) -> int:
    if len(names) > _BROUGHT:
        raise CallerError(f".worktreeinclude names {len(names)} files, more than {_BROUGHT}; name fewer.")
    root, new = worktree.resolve(), worktree / _NEW
    copied, room = 0, _BROUGHT_BYTES
    try:
        for name in names:
            target = worktree / name
            if target.exists() or target.is_symlink() or _is_blocked(target.parent, root):
                continue
            # Of a symlink what it points to: through it the agent would write outside.
            if source := open_regular(checkout / name):
                with source:
                    room -= _copy_file(source, new, room)
                target.parent.mkdir(parents=True, exist_ok=True)
                new.replace(target)
                copied += 1
    finally:
        new.unlink(missing_ok=True)
    return copied


def _copy_file(source: BinaryIO, new: Path, room: int) -> int:
    """Copy a file with its mode and times; its size, in bytes."""
    new.unlink(missing_ok=True)  # left by a daemon that was killed
    said, copied = os.fstat(source.fileno()), 0
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as copy:
        while chunk := source.read(_CHUNK):
            copied += len(chunk)
            if copied > room:  # it may grow while we read
                raise CallerError(f".worktreeinclude names more than {_BROUGHT_BYTES // 1024**3} GB; name less.")
            copy.write(chunk)
        os.fchmod(copy.fileno(), said.st_mode & 0o777)
    os.utime(new, ns=(said.st_atime_ns, said.st_mtime_ns))
    return copied


def _is_blocked(folder: Path, root: Path) -> bool:
    """Whether a symlink in the base leads out of the worktree here, or a file of it stands where a folder should."""
    nearest = next(one for one in (folder, *folder.parents) if one.exists() or one.is_symlink())
    return not nearest.is_dir() or not folder.resolve().is_relative_to(root)
