"""Files that git reports as changed although no person or agent has changed them.

git reports a file as modified right after checkout if the file was committed with line ends that its attributes
forbid, or before its filter was configured. A file that the repository's setup command wrote is not the agent's work
either, unless it was changed afterwards.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError
from forkjoin.core.regular_file import open_regular
from forkjoin.git.file_names import join_names
from forkjoin.git.worktrees.staging import Status, read_status
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, find_registered_worktree

#: Bytes per digest in a fingerprint.
_DIGEST_SIZE = 16
_CHUNK = 1024 * 1024


async def omit_untouched_files(place: RegisteredWorktree, status: Status, set_up: bytes) -> Status:
    """Return the status without the files that still are as git or setup wrote them.

    Args:
        set_up: The result of `fingerprint` after setup had ended; no bytes if there was no setup.
    """
    status = await omit_setup_files(place, status, set_up)
    modified = [path for path in status.modified if path not in status.untouched]
    return _omit(status, await find_unmodified_files(place.path, modified, place.git))


async def omit_setup_files(place: RegisteredWorktree, status: Status, set_up: bytes) -> Status:
    """Return the status without the files that still are as setup wrote them.

    Args:
        set_up: As for `omit_untouched_files`.
    """
    if not set_up:
        return status
    known = {set_up[at : at + _DIGEST_SIZE] for at in range(0, len(set_up), _DIGEST_SIZE)}
    digests = await to_thread.run_sync(_digest_all, place.path, status.unstaged)
    return _omit(status, {path for path, digest in digests.items() if digest in known})


def _omit(status: Status, paths: Set[str]) -> Status:
    uncommitted = [path for path in status.uncommitted if path not in paths]
    return replace(status, uncommitted=uncommitted, untouched=status.untouched | paths) if paths else status


# -- files that setup wrote


async def fingerprint(common_dir: str, worktree: Path) -> bytes:
    """Return the digests of the unstaged and untracked files, one after another.

    Return no bytes if the worktree is not registered.
    """
    place = await find_registered_worktree(common_dir, worktree)
    if place is None:
        return b""
    status = await read_status(place)
    digests = await to_thread.run_sync(_digest_all, place.path, status.unstaged)
    return b"".join(digests.values())


def _digest_all(top: Path, paths: Iterable[str]) -> dict[str, bytes]:
    return {path: digest for path in paths if (digest := _digest_file(top, path))}


def _digest_file(top: Path, path: str) -> bytes | None:
    """Return the digest of a file's path, type and content, or `None` on an error."""
    digest = hashlib.blake2b(os.fsencode(path) + b"\0", digest_size=_DIGEST_SIZE)
    try:
        for part in _digested_parts(top / path):
            digest.update(part)
    except OSError:
        return None
    return digest.digest()


def _digested_parts(file: Path) -> Iterator[bytes]:
    """Yield a label for the file's type, then the file's content in chunks.

    An executable file, a missing file and a pipe have labels of their own.
    """
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


async def find_unmodified_files(top: Path, paths: Sequence[str], run_git: Callable[..., Awaitable[str]]) -> set[str]:
    """Return the paths whose files are as git would write them at checkout.

    git writes these files from the index to a temporary folder, through the same filters, and they are compared there.

    Args:
        top: The worktree.
        paths: Paths of files in the index, relative to `top`.
        run_git: A function that runs git in the worktree, with git's arguments and `stdin`.
    """
    if not paths:
        return set()
    with tempfile.TemporaryDirectory(prefix="forkjoin-") as aside:
        write = ("checkout-index", "-q", "-z", "--stdin", f"--prefix={aside}/")
        with contextlib.suppress(
            GitError
        ):  # if the disk is full or a filter fails, the files that are missing count as modified
            await run_git(*write, stdin=join_names(paths))
        return await to_thread.run_sync(_find_equal_files, top, Path(aside), paths)


def _find_equal_files(top: Path, written: Path, paths: Sequence[str]) -> set[str]:
    fresh = _digest_all(written, (path for path in paths if os.path.lexists(written / path)))
    return {path for path, digest in fresh.items() if _digest_file(top, path) == digest}
