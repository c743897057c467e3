"""Files that git reports as changed although nobody has changed them.

Where a file was committed with other line ends than its attributes ask for, or before a filter was, git calls it
modified as soon as it has checked it out. And what a repository's setup writes is no work of an agent, as long as it
stays as it was written.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Awaitable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from anyio import to_thread

from forkjoin.core.error import GitError
from forkjoin.core.regular_file import open_regular
from forkjoin.git.file_names import join_names
from forkjoin.git.worktrees.staging import Status, read_status
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, find_registered_worktree

_DIGEST = 16
_CHUNK = 1024 * 1024


class Git(Protocol):
    """git, in a worktree."""

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> Awaitable[str]: ...


async def omit_untouched_files(place: RegisteredWorktree, status: Status, set_up: bytes) -> Status:
    """Return the status without files that git or setup wrote and nobody changed.

    Args:
        set_up: What `fingerprint` told once setup had ended.
    """
    status = await leave_out_set_up(place, status, set_up)
    modified = [path for path in status.modified if path not in status.left_out]
    return _leave_out(status, await find_unmodified_files(place.path, modified, place.git))


async def leave_out_set_up(place: RegisteredWorktree, status: Status, set_up: bytes) -> Status:
    """Return the status without what is still as the repository's setup has left it."""
    if not set_up:
        return status
    known = {set_up[at : at + _DIGEST] for at in range(0, len(set_up), _DIGEST)}
    digests = await to_thread.run_sync(_digest_all, place.path, status.unstaged)
    return _leave_out(status, {path for path, digest in digests.items() if digest in known})


def _leave_out(status: Status, paths: Set[str]) -> Status:
    uncommitted = [path for path in status.uncommitted if path not in paths]
    return replace(status, uncommitted=uncommitted, left_out=status.left_out | paths) if paths else status


# -- what setup has left


async def fingerprint(common_dir: str, worktree: Path) -> bytes:
    """Return digests of unstaged changes and untracked files in a worktree."""
    place = await find_registered_worktree(common_dir, worktree)
    if place is None:
        return b""
    status = await read_status(place)
    digests = await to_thread.run_sync(_digest_all, place.path, status.unstaged)
    return b"".join(digests.values())


def _digest_all(top: Path, paths: Iterable[str]) -> dict[str, bytes]:
    return {path: digest for path in paths if (digest := _digest(top, path))}


def _digest(top: Path, path: str) -> bytes | None:
    """Return the digest of a file's path, kind and content; None where it can't be read."""
    digest = hashlib.blake2b(os.fsencode(path) + b"\0", digest_size=_DIGEST)
    try:
        for part in _parts(top / path):
            digest.update(part)
    except OSError:
        return None
    return digest.digest()


def _parts(file: Path) -> Iterator[bytes]:
    """Yield what stands for a file's kind, and its content."""
    try:
        found = file.lstat()
    except FileNotFoundError:
        yield b"gone"
        return
    if stat.S_ISLNK(found.st_mode):
        yield b"link\0" + os.fsencode(file.readlink())
    elif (opened := open_regular(file)) is None:
        yield b"other"
    else:
        with opened:
            yield b"program\0" if found.st_mode & stat.S_IXUSR else b"file\0"
            yield from iter(lambda: opened.read(_CHUNK), b"")


# -- what git has left


async def find_unmodified_files(top: Path, paths: Sequence[str], run_git: Git) -> set[str]:
    """Return those of these paths at which there is just what git writes there of what the index has."""
    if not paths:
        return set()
    with tempfile.TemporaryDirectory(prefix="forkjoin-") as aside:
        write = ("checkout-index", "-q", "-z", "--stdin", f"--prefix={aside}/")
        with contextlib.suppress(GitError):  # a full disk, a filter that fails: what was written counts
            await run_git(*write, stdin=join_names(paths))
        return await to_thread.run_sync(lambda: {path for path in paths if _are_same(top / path, Path(aside, path))})


def _are_same(one: Path, other: Path) -> bool:
    try:
        modes = one.lstat().st_mode, other.lstat().st_mode
        if stat.S_IFMT(modes[0]) != stat.S_IFMT(modes[1]) or (modes[0] ^ modes[1]) & stat.S_IXUSR:
            return False
        return one.readlink() == other.readlink() if stat.S_ISLNK(modes[0]) else _have_same_bytes(one, other)
    except OSError:
        return False


def _have_same_bytes(one: Path, other: Path) -> bool:
    with contextlib.ExitStack() as files:
        first, second = open_regular(one), open_regular(other)
        if first is None or second is None:
            return False
        files.enter_context(first)
        files.enter_context(second)
        while (data := first.read(_CHUNK)) == second.read(_CHUNK):
            if not data:
                return True
    return False
