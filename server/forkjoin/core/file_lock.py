"""Locks that say who lives: a file stays locked for as long as its holder does, whatever ends that (flock(2)).

Standard library only, since the shim uses it too. Whoever asks locks the file as well, for a moment, but shared; so
that one who wants the lock can tell the one who has it from those who ask.
"""

import fcntl
import os


def take(file: "str | os.PathLike[str]", mode: int = 0o600) -> int | None:
    """Take the lock. Return its descriptor, or `None` if another process has it.

    Args:
        mode: Who may take it. Whoever can open the file can also keep others from it.
    """
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    found = os.fstat(lock)
    if found.st_uid == os.geteuid() and found.st_mode & 0o777 != mode:
        os.fchmod(lock, mode)  # of an earlier time, or as the umask had it
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
    """Whether somebody has taken it, and lives."""
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
