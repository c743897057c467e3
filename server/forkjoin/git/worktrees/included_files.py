"""What is brought to a worktree before a program starts there: the ignored files that `.worktreeinclude` names."""

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import BinaryIO

from anyio import to_thread

from forkjoin.core.error import CallerError, is_passing
from forkjoin.core.regular_file import open_regular, read_regular
from forkjoin.git import git
from forkjoin.git.file_names import join_names, split_names
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree

#: How many files, and bytes, may be named.
_FILES, _BYTES = 100_000, 4 * 1024**3
_CHUNK = 1024 * 1024

#: What a file is called while it is copied, so that it is there wholly or not at all.
_NEW = ".forkjoin-new"


#: In a worktree's git folder: what was brought to it, and is to go once it is named no more.
_BROUGHT = "forkjoin-brought"


async def bring_ignored(checkout: Path, worktree: Path) -> int:
    """Copy what is named from the checkout to a worktree; how many files that were. What is there already stays."""
    return await _bring(checkout, worktree, await included(checkout), anew=False)


async def update_ignored_copies(checkout: Path, place: RegisteredWorktree) -> None:
    """See that what is named is in a worktree as in the checkout, by size and time, and nothing that was before.

    What is tracked there is no business of the checkout's.
    """
    tracked = set(split_names(await place.git("ls-files", "-z")))
    names = [name for name in await included(checkout) if name not in tracked]
    brought = place.folder / _BROUGHT
    said = await to_thread.run_sync(read_regular, brought)
    before = split_names(os.fsdecode(said or b""))
    await to_thread.run_sync(_take_away, place.path, set(before).difference(names, tracked))
    await to_thread.run_sync(brought.write_bytes, join_names(names))
    await _bring(checkout, place.path, names, anew=True)


def _take_away(worktree: Path, names: Iterable[str]) -> None:
    root = worktree.resolve()
    for file in (worktree / name for name in names):
        if not is_blocked(file.parent, root) and (file.is_symlink() or not file.is_dir()):
            file.unlink(missing_ok=True)


async def _bring(checkout: Path, worktree: Path, names: Sequence[str], *, anew: bool) -> int:
    try:
        return await to_thread.run_sync(_copy, checkout, worktree, names, anew)
    except OSError as error:
        if is_passing(error) and error.errno not in (errno.ENOSPC, errno.EDQUOT):  # those a person must mend
            raise
        raise CallerError(f"What .worktreeinclude names can't be brought to the worktree: {error}") from error


async def included(checkout: Path, extra: Mapping[str, str] | None = None) -> list[str]:
    """The ignored files that `.worktreeinclude`, which reads as a .gitignore does, names in this checkout."""
    if not await to_thread.run_sync((checkout / ".worktreeinclude").is_file):
        return []  # git would wait for a FIFO's other end
    others = ("ls-files", "-z", "--others", "--ignored", "--exclude-from=.worktreeinclude", "--", ".")
    names = split_names(await git.output(checkout, *others, extra=extra))
    if not names:
        return []
    # Exit 1 says that none of them is ignored.
    _, out, _ = await git.run(checkout, "check-ignore", "-z", "--stdin", stdin=join_names(names), extra=extra)
    return split_names(os.fsdecode(out))


def _copy(checkout: Path, worktree: Path, names: Sequence[str], anew: bool) -> int:
    if len(names) > _FILES:
        raise CallerError(f".worktreeinclude names {len(names)} files, more than {_FILES}; name fewer.")
    root, new = worktree.resolve(), worktree / _NEW
    copied, room = 0, _BYTES
    try:
        for name in names:
            target = worktree / name
            there = target.exists() or target.is_symlink()
            if is_blocked(target.parent, root) or (there and not (anew and _differs(target, checkout / name))):
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


def _differs(target: Path, source: Path) -> bool:
    """Whether what is there, but for a folder, is no copy of this file."""
    try:
        there, said = target.lstat(), source.stat()
    except FileNotFoundError:
        return False
    return not S_ISDIR(there.st_mode) and (there.st_size, there.st_mtime_ns) != (said.st_size, said.st_mtime_ns)


def _copy_file(source: BinaryIO, new: Path, room: int) -> int:
    """Copy a file with its mode and times; its size, in bytes."""
    new.unlink(missing_ok=True)  # left by a daemon that was killed
    said, copied = os.fstat(source.fileno()), 0
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as copy:
        while chunk := source.read(_CHUNK):
            copied += len(chunk)
            if copied > room:  # it may grow while we read
                raise CallerError(f".worktreeinclude names more than {_BYTES // 1024**3} GB; name less.")
            copy.write(chunk)
        os.fchmod(copy.fileno(), said.st_mode & 0o777)
    os.utime(new, ns=(said.st_atime_ns, said.st_mtime_ns))
    return copied


def is_blocked(folder: Path, root: Path) -> bool:
    """Whether a symlink leads out of `root` here, a worktree or a checkout, or a file stands where a folder should."""
    nearest = next(one for one in (folder, *folder.parents) if one.exists() or one.is_symlink())
    return not nearest.is_dir() or not folder.resolve().is_relative_to(root)
