"""git's own lock on an index: while the file index.lock exists, no other git changes the index.

forkjoin writes the owner into the file: the home of the daemon. The daemon also holds an flock(2) on the file, which
every git that it starts inherits. A later daemon of the same home therefore recognizes the lock of a killed daemon, and
takes it over once all git processes that outlived the killed daemon have ended. git itself never reads the file. A lock
of another owner is never taken over.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from pathlib import Path

#: The errors of link(2) on a file system without hard links, or with too many links to a file.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def try_lock_index(file: Path, owner: str) -> int | None:
    """Create index.lock, or take over the lock of a killed daemon of the same home.

    Don't wait for the lock. The call only blocks for file operations.

    Args:
        file: The path of index.lock.
        owner: A text that identifies the home of this daemon.

    Returns:
        The open file descriptor, which holds the flock(2). `None` if another process holds the lock.
    """
    name = os.fsencode(owner)
    lock = _create_atomically(file, name)
    return _take_over(file, name) if lock is None else lock


def _create_atomically(file: Path, name: bytes) -> int | None:
    """Write the lock file under another name, then link it. Return its descriptor.

    Return `None` if the lock file exists already. If the daemon is killed in between, it leaves no index.lock without
    an owner, which nobody would take over.
    """
    draft = file.with_name(f"forkjoin-lock-{hashlib.sha256(name).hexdigest()[:12]}")
    draft.unlink(missing_ok=True)  # a killed daemon of this home may have left it
    lock = _create(draft, name)
    try:
        os.link(draft, file)
    except OSError as error:
        os.close(lock)
        if error.errno in _NO_LINKS:
            with contextlib.suppress(FileExistsError):
                return _create(file, name)
        elif not isinstance(error, FileExistsError | FileNotFoundError):
            raise  # FileNotFoundError means that another task of this daemon has just deleted the draft
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
    except OSError:  # e.g. the disk is full
        os.close(lock)
        file.unlink()
        raise
    return lock


def _take_over(file: Path, name: bytes) -> int | None:
    """Lock an existing lock file of the same owner. Return its descriptor, or `None`."""
    try:
        lock = os.open(file, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # the file is gone, belongs to another user, or is a symlink
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
    """Lock an open file with flock(2). Return False if another process holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_still_held(file: Path, lock: int) -> bool:
    """Return whether the file at a path is still the one that this daemon has open.

    Somebody may have deleted or replaced it.
    """
    try:
        return os.path.samestat(os.fstat(lock), file.stat())
    except FileNotFoundError:
        return False


def release_index(file: Path, lock: int) -> None:
    """Delete index.lock, unless somebody has replaced it. Close the descriptor."""
    try:
        if is_still_held(file, lock):
            file.unlink(missing_ok=True)
    finally:
        os.close(lock)
