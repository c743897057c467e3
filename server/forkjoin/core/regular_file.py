"""Reading of regular files, without blocking if a path leads to a FIFO or a device instead."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

#: Errors that mean that there is no regular file at a path. ENXIO: the path leads to a socket.
_NONE = (errno.ENOENT, errno.ENOTDIR, errno.ENXIO)
#: Errors that mean that there is no file of any type at a path. Other errors mean that this user may not look.
_GONE = (errno.ENOENT, errno.ENOTDIR)
#: Maximum bytes of a line that contains a path or a ref name. A path has at most 4,096 bytes.
_LINE = 8192


def is_gone(path: Path) -> bool:
    """Return whether there is no file of any type at a path.

    A path that this user may not look at is not gone.
    """
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno in _GONE
    return False


def open_regular(file: Path) -> BufferedReader | None:
    """Open a regular file for reading.

    Return `None` if there is no file at this path, or a file of another type.
    """
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
    """Return the first `limit` bytes of a regular file (-1: all).

    Return `None` if there is no regular file at this path.
    """
    opened = open_regular(file)
    if opened is None:
        return None
    with opened:
        return opened.read(limit)


def read_end(file: Path, limit: int) -> bytes | None:
    """Return the last `limit` bytes of a regular file.

    Return `None` if there is no regular file at this path.
    """
    opened = open_regular(file)
    if opened is None:
        return None
    with opened:
        opened.seek(max(0, os.fstat(opened.fileno()).st_size - limit))
        return opened.read(limit)


def read_line(file: Path, *, strict: bool = False) -> str | None:
    """Return the path or ref name that is the content of a file.

    Return `None` if the file can't be read, is too long or contains NUL.

    Args:
        strict: Whether to raise PermissionError if this user may not read the file.
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
