"""Files that git reports as changed although nobody has changed them.

git reports a file as modified right after checkout if the file was committed with line ends that its attributes
forbid, or before its filter was configured. Files that the repository's setup command wrote are also not the agent's
work, until somebody changes them.
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

#: Bytes per digest in a fingerprint.
_DIGEST_SIZE = 16
_CHUNK = 1024 * 1024


class Git(Protocol):
    """A function that runs git in a worktree."""

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> Awaitable[str]: ...


async def omit_untouched_files(place: RegisteredWorktree, status: Status, set_up: bytes) -> Status:
    """Return the status without files that git or setup wrote and nobody changed.

    Args:
        set_up: The result of `fingerprint` after setup had ended.
    """
    status = await leave_out_set_up(place, status, set_up)
    modified = [path for path in status.modified if path not in status.left_out]
    return _leave_out(status, await find_unmodified_files(place.path, modified, place.git))


async def leave_out_set_up(place: RegisteredWorktree, status: Status, set_up: bytes) -> Status:
    """Return the status without files that are unchanged since the repository's setup."""
    if not set_up:
        return status
    known = {set_up[at : at + _DIGEST_SIZE] for at in range(0, len(set_up), _DIGEST_SIZE)}
    digests = await to_thread.run_sync(_digest_all, place.path, status.unstaged)
    return _leave_out(status, {path for path, digest in digests.items() if digest in known})


def _leave_out(status: Status, paths: Set[str]) -> Status:
    uncommitted = [path for path in status.uncommitted if path not in paths]
    return replace(status, uncommitted=uncommitted, left_out=status.left_out | paths) if paths else status


# -- files that setup wrote


async def fingerprint(common_dir: str, worktree: Path) -> bytes:
    """Return the digests of a worktree's unstaged and untracked files, concatenated."""
    place = await find_registered_worktree(common_dir, worktree)
    if place is None:
        return b""
    status = await read_status(place)
    digests = await to_thread.run_sync(_digest_all, place.path, status.unstaged)
    return b"".join(digests.values())


def _digest_all(top: Path, paths: Iterable[str]) -> dict[str, bytes]:
    return {path: digest for path in paths if (digest := _digest_file(top, path))}


def _digest_file(top: Path, path: str) -> bytes | None:
    """Return the digest of a file's path, kind and content. `None`: unreadable."""
    digest = hashlib.blake2b(os.fsencode(path) + b"\0", digest_size=_DIGEST_SIZE)
    try:
        for part in _digested_parts(top / path):
            digest.update(part)
    except OSError:
        return None
    return digest.digest()


def _digested_parts(file: Path) -> Iterator[bytes]:
    """Yield a label for the file's kind, then the file's content in chunks."""
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


# -- files that git wrote


async def find_unmodified_files(top: Path, paths: Sequence[str], run_git: Git) -> set[str]:
    """Return the paths whose file equals what git writes for them at checkout.

    The files are written from the index to a temporary folder, through the same filters, and compared there.
    """
    if not paths:
        return set()
    with tempfile.TemporaryDirectory(prefix="forkjoin-") as aside:
        write = ("checkout-index", "-q", "-z", "--stdin", f"--prefix={aside}/")
        with contextlib.suppress(GitError):  # a full disk or a failing filter: only files written so far can match
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
