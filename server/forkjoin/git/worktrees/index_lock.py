"""Possession of git's index.lock, so that no other git changes the index.

The lock file contains the owner's name, a daemon's home. The daemon keeps an flock(2) on the file and shares it with
every git that it starts. A later daemon of the same home therefore recognizes the lock of a killed daemon, and takes it
over once all git processes that outlived the killed daemon have ended. git itself never reads the file. A lock of
somebody else is never taken over.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from pathlib import Path

#: The errors of a file system without hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def try_lock_index(file: Path, owner: str) -> int | None:
    """Create index.lock, or take over the lock of a killed daemon of the same home.

    Blocks.

    Returns:
        The open descriptor, or `None` if somebody else holds the lock.
    """
    name = os.fsencode(owner)
    lock = _create_atomically(file, name)
    return _take_over(file, name) if lock is None else lock


def _create_atomically(file: Path, name: bytes) -> int | None:
    """Write the lock under another name, then link it.

    A kill in between leaves no lock file without an owner.
    """
    draft = file.with_name(f"forkjoin-lock-{hashlib.sha256(name).hexdigest()[:12]}")
    draft.unlink(missing_ok=True)  # left by a killed daemon of this home
    lock = _create(draft, name)
    try:
        os.link(draft, file)
    except OSError as error:
        os.close(lock)
        if error.errno in _NO_LINKS:
            with contextlib.suppress(FileExistsError):
                return _create(file, name)
        elif not isinstance(error, FileExistsError | FileNotFoundError):
            raise  # FileNotFoundError: another task of this daemon has just removed the draft
        return None
    else:
        return lock
    finally:
        draft.unlink(missing_ok=True)


def _create(file: Path, name: bytes) -> int:
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(lock, name)
        try_lock(lock)
    except OSError:  # the disk is full
        os.close(lock)
        file.unlink()
        raise
    return lock


def _take_over(file: Path, name: bytes) -> int | None:
    try:
        lock = os.open(file, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # it is gone, belongs to another user, or is no regular file
        return None
    if (
        stat.S_ISREG(os.fstat(lock).st_mode)
        and os.read(lock, len(name) + 1) == name
        and try_lock(lock)
        and is_still_held(file, lock)
    ):
        return lock
    os.close(lock)
    return None


def try_lock(descriptor: int) -> bool:
    """Try to lock an open file with flock(2).

    Return False if another process holds the lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_still_held(file: Path, lock: int) -> bool:
    """Return whether our open lock is still the file at this path.

    Somebody may have deleted or replaced the file.
    """
    try:
        return os.path.samestat(os.fstat(lock), file.stat())
    except FileNotFoundError:
        return False


def release_index(file: Path, lock: int) -> None:
    """Delete the lock file if it is still ours, and close the descriptor."""
    try:
        if is_still_held(file, lock):
            file.unlink(missing_ok=True)
    finally:
        os.close(lock)
