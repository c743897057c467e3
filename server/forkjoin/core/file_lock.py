"""File locks that show whether their holder is alive: the kernel releases them when the holder ends (flock(2)).

Standard library only, since the shim imports this module. A check takes a shared lock for a moment. So a process that
wants the exclusive lock can tell its holder from processes that only check.
"""

import fcntl
import os


def take(file: "str | os.PathLike[str]", mode: int = 0o600) -> int | None:
    """Take the lock and return its file descriptor.

    Return `None` if another process holds the lock.

    Args:
        mode: Permissions of the lock file. Everybody who can open the file can lock it.
    """
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    found = os.fstat(lock)
    if found.st_uid == os.geteuid() and found.st_mode & 0o777 != mode:
        os.fchmod(lock, mode)  # an older file may have other permissions, and the umask restricts a new one
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if is_held(file):
                os.close(lock)
                return None
        else:
            return lock


def is_held(file: "str | os.PathLike[str]") -> bool:
    """Return whether a process that is alive holds the lock."""
    try:
        lock = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
