"""Included files: ignored files that the checkout's `.worktreeinclude` names, and their copies in worktrees."""

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import BinaryIO

from anyio import to_thread

from forkjoin.core.error import CallerError, is_transient
from forkjoin.core.regular_file import open_regular, read_regular
from forkjoin.git import git
from forkjoin.git.file_names import join_names, split_names
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree

#: The most files that `.worktreeinclude` may name.
_MAX_FILES = 100_000
#: The most bytes that these files may have in all.
_MAX_BYTES = 4 * 1024**3
_CHUNK = 1024 * 1024

#: The name of a copy until it is complete.
_INCOMPLETE = ".forkjoin-new"

#: The name of the file in a worktree's git folder that lists the copied files.
_COPIED = "forkjoin-brought"


async def bring_ignored(checkout: Path, worktree: Path) -> int:
    """Copy the included files of a checkout to a worktree.

    Return the number of copied files. Files that already exist in the worktree stay as they are.

    Raises:
        CallerError: The included files are too many or too large, or one can't be copied for a reason that lasts.
        OSError: A file can't be copied for a reason that may pass.
    """
    return await _copy_all(checkout, worktree, await list_included_files(checkout), replace=False)


async def update_ignored_copies(checkout: Path, place: RegisteredWorktree) -> None:
    """Update the copies of included files in a worktree.

    Copy a file again if the size or time of its copy differs, and delete copies of files that are no longer included.
    Files that are tracked in the worktree stay as they are.

    Raises:
        CallerError: As for `bring_ignored`.
        OSError: As for `bring_ignored`.
    """
    tracked = set(split_names(await place.git("ls-files", "-z")))
    names = [name for name in await list_included_files(checkout) if name not in tracked]
    record = place.folder / _COPIED
    content = await to_thread.run_sync(read_regular, record)
    before = split_names(os.fsdecode(content or b""))
    await to_thread.run_sync(_delete_copies, place.path, set(before).difference(names, tracked))
    await to_thread.run_sync(record.write_bytes, join_names(names))
    await _copy_all(checkout, place.path, names, replace=True)


def _delete_copies(worktree: Path, names: Iterable[str]) -> None:
    """Delete files, but no folders, and no file outside of `worktree`. Blocks."""
    root = worktree.resolve()
    for file in (worktree / name for name in names):
        if not is_blocked(file.parent, root) and (file.is_symlink() or not file.is_dir()):
            file.unlink(missing_ok=True)


async def _copy_all(checkout: Path, worktree: Path, names: Sequence[str], *, replace: bool) -> int:
    """Copy files to a worktree. Return the number of copied files.

    Args:
        checkout: The folder with the files.
        worktree: The folder that gets the copies.
        names: The paths of the files, relative to both folders.
        replace: Whether to replace an existing file whose size or time differs.
    """
    try:
        return await to_thread.run_sync(_copy_all_blocking, checkout, worktree, names, replace)
    except OSError as error:
        is_disk_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if is_transient(error) and not is_disk_full:  # only a person can make room on a full disk
            raise
        raise CallerError(f"A file that .worktreeinclude names can't be copied to the worktree: {error}") from error


async def list_included_files(checkout: Path, extra: Mapping[str, str] | None = None) -> list[str]:
    """Return the ignored files that the `.worktreeinclude` of a checkout names.

    `.worktreeinclude` has the syntax of a .gitignore. Without it, no file is included.

    Args:
        checkout: The checkout, or a worktree.
        extra: Environment variables for git.
    """
    if not await to_thread.run_sync((checkout / ".worktreeinclude").is_file):
        return []  # on a named pipe of that name, git would block
    command = ("ls-files", "-z", "--others", "--ignored", "--exclude-from=.worktreeinclude", "--", ".")
    names = split_names(await git.output(checkout, *command, extra=extra))
    if not names:
        return []
    # git check-ignore exits with 1 if none of the files is ignored, which is no error here.
    _, out, _ = await git.run(checkout, "check-ignore", "-z", "--stdin", stdin=join_names(names), extra=extra)
    return split_names(os.fsdecode(out))


def _copy_all_blocking(checkout: Path, worktree: Path, names: Sequence[str], replace: bool) -> int:
    if len(names) > _MAX_FILES:
        raise CallerError(
            f".worktreeinclude names {len(names)} files. At most {_MAX_FILES} can be copied: name fewer files in it."
        )
    root = worktree.resolve()
    incomplete = worktree / _INCOMPLETE
    copied = 0
    remaining = _MAX_BYTES
    try:
        for name in names:
            target = worktree / name
            exists = target.exists() or target.is_symlink()
            if is_blocked(target.parent, root) or (exists and not (replace and _differs(target, checkout / name))):
                continue
            # The target of a symlink is copied, because an agent could write through a copied symlink.
            if source := open_regular(checkout / name):
                with source:
                    remaining -= _copy_file(source, incomplete, remaining)
                target.parent.mkdir(parents=True, exist_ok=True)
                incomplete.replace(target)
                copied += 1
    finally:
        incomplete.unlink(missing_ok=True)
    return copied


def _differs(target: Path, source: Path) -> bool:
    """Return whether a copy has another size or modification time than its source.

    Return False if `target` is a folder, or if either file is missing.
    """
    try:
        copy = target.lstat()
        original = source.stat()
    except FileNotFoundError:
        return False
    return not S_ISDIR(copy.st_mode) and (copy.st_size, copy.st_mtime_ns) != (original.st_size, original.st_mtime_ns)


def _copy_file(source: BinaryIO, target: Path, limit: int) -> int:
    """Copy a file with its mode and times. Return its size in bytes.

    Raises:
        CallerError: The file has more than `limit` bytes.
    """
    target.unlink(missing_ok=True)  # a killed daemon may have left an incomplete copy
    original = os.fstat(source.fileno())
    copied = 0
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as copy:
        while chunk := source.read(_CHUNK):
            copied += len(chunk)
            if copied > limit:  # checked for each chunk, because a program may write to the source during the copy
                raise CallerError(
                    f".worktreeinclude names files of more than {_MAX_BYTES // 1024**3} GiB in all. Name fewer or "
                    "smaller files in it."
                )
            copy.write(chunk)
        os.fchmod(copy.fileno(), original.st_mode & 0o777)
    os.utime(target, ns=(original.st_atime_ns, original.st_mtime_ns))
    return copied


def is_blocked(folder: Path, root: Path) -> bool:
    """Return whether `folder` can't be created or used as a folder inside `root`.

    Blocks. This is so if a file is in the place of the folder or of one of its parents, or if a symlink leads out of
    `root`.

    Args:
        folder: The path of the folder, which may be missing.
        root: The real path of the folder that must contain it.
    """
    nearest = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    return not nearest.is_dir() or not folder.resolve().is_relative_to(root)
