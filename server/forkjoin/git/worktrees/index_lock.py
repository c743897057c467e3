"""git's own index.lock, held by us.

Whoever makes it writes its name into it, a daemon's home, and keeps a lock (flock(2)) on it, shared with every git that
it starts. So what a daemon that was killed leaves is known for its own by the next, which takes it over once a git that
outlived the first has ended. git itself never looks into that file, and nobody else's is ever taken.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from pathlib import Path

#: What a file system says that has no hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def try_lock_index(file: Path, owner: str) -> int | None:
    """The descriptor of an index.lock that is ours: made now, or left by a daemon of the same home that was killed."""
    name = os.fsencode(owner)
    made = _make(file, name)
    return _take_over(file, name) if made is None else made


def _make(file: Path, name: bytes) -> int | None:
    """Make it whole, and then give it its name: a kill in between leaves no lock that is nobody's."""
    draft = file.with_name(f"forkjoin-lock-{hashlib.sha256(name).hexdigest()[:12]}")
    draft.unlink(missing_ok=True)  # of a daemon of this home that was killed
    lock = _create(draft, name)
    try:
        os.link(draft, file)
    except OSError as error:
        os.close(lock)
        if error.errno in _NO_LINKS:
            with contextlib.suppress(FileExistsError):
                return _create(file, name)
        elif not isinstance(error, FileExistsError):
            raise
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
    except OSError:  # it is gone, or another user's, or no file
        return None
    if (
        stat.S_ISREG(os.fstat(lock).st_mode)
        and os.read(lock, len(name) + 1) == name
        and try_lock(lock)
        and is_there(file, lock)
    ):
        return lock
    os.close(lock)
    return None


def try_lock(descriptor: int) -> bool:
    """Lock an open file, unless another has: somebody else who opened it, or a git that we let share the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_there(file: Path, lock: int) -> bool:
    """Whether a lock that we have is still the file of its name: it may have been let go, or taken away by a person."""
    try:
        return os.path.samestat(os.fstat(lock), file.stat())
    except FileNotFoundError:
        return False


def let_go(file: Path, lock: int) -> None:
    """Unlock the index, unless that was done for us."""
    try:
        if is_there(file, lock):
            file.unlink(missing_ok=True)
    finally:
        os.close(lock)
