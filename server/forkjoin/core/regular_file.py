"""Regular files, opened without ever being held up: where one was expected there may be a FIFO or a device."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_NONE = (errno.ENOENT, errno.ENOTDIR, errno.ENXIO)  # the last is a socket's
#: What says that nothing is there, and not that nobody may look.
_GONE = (errno.ENOENT, errno.ENOTDIR)
#: Bytes of a line that holds a path or the name of a ref: a path has 4,096 at most.
_LINE = 8192


def is_gone(path: Path) -> bool:
    """Return whether nothing is at a path. What this user can't look at is not gone."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno in _GONE
    return False


def open_regular(file: Path) -> BinaryIO | None:
    """The file, opened for reading; none where there is none, or something else."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None


def read_regular(file: Path, limit: int = -1) -> bytes | None:
    """What is in it, `limit` bytes at most; none where there is no such file."""
    opened = open_regular(file)
    if opened is None:
        return None
    with opened:
        return opened.read(limit)


def read_end(file: Path, limit: int) -> bytes | None:
    """Return the last `limit` bytes of a file, or `None` where there is no such file."""
    opened = open_regular(file)
    if opened is None:
        return None
    with opened:
        opened.seek(max(0, os.fstat(opened.fileno()).st_size - limit))
        return opened.read(limit)


def read_line(file: Path, *, strict: bool = False) -> str | None:
    """Return the line in a file that holds a path or a ref, or `None` where it can't be read, or holds neither.

    Args:
        strict: Whether to raise PermissionError where this user may not read it.
    """
    try:
        data = read_regular(file, _LINE + 1)
    except OSError as error:
        if strict and isinstance(error, PermissionError):
            raise
        return None
    if data is None or len(data) > _LINE or b"\0" in data:
        return None
    return os.fsdecode(data).removesuffix("\n")
