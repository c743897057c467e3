"""The size limit of an attempt's log: a log that is too long loses its middle and keeps its head and tail.

Standard library only, since the shim imports this module. The middle becomes a hole in the file (fallocate(2)): all
offsets stay valid, no bytes are copied, and the space on the disk is free again. A reader asks the file system where
the hole is (lseek(2)).
"""

import contextlib
import ctypes
import os
import sys
import time
from typing import Any

#: A hole begins and ends at a multiple of this number of bytes, since only whole blocks of the file system can become a
#: hole. The first `STEP` bytes of a log are never dropped.
STEP = 1024 * 1024
_KEEP_SIZE, _PUNCH_HOLE = 0x1, 0x2


def shorten(log: int, limit: int, released: int) -> None:
    """Drop bytes from the middle of a log that is longer than `limit` bytes.

    Args:
        log: File descriptor, open for reading and writing.
        released: Up to this offset the daemon has read the log. Only bytes before it are dropped.

    Raises:
        OSError: The file system does not support holes.
    """
    surplus = os.fstat(log).st_size - limit
    end = min(STEP + surplus, released) // STEP * STEP
    if surplus > 0 and end > STEP and _seek(log, STEP, os.SEEK_DATA) < end:
        _punch_hole(log, STEP, end - STEP)


def _punch_hole(log: int, start: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # In glibc only fallocate64 takes 64-bit offsets on all platforms. In musl, fallocate takes them.
    fallocate = getattr(libc, "fallocate64", None) or libc.fallocate
    if fallocate(log, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(size)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read(log: int, start: int, limit: int) -> tuple[int, bytes]:
    """Return the bytes from `start` on, and the offset of the first of them.

    If `start` is in a hole, the bytes after the hole are returned. They end after `limit` bytes, or where the next hole
    begins.
    """
    begin = _seek(log, start, os.SEEK_DATA)
    data = os.pread(log, limit, begin)
    # Checked again after the read: bytes that the shim dropped in between were read as zeros.
    kept = _seek(log, begin, os.SEEK_DATA)
    end = _seek(log, kept, os.SEEK_HOLE)
    return kept, data[kept - begin : end - begin]


def _seek(log: int, start: int, whence: int) -> int:
    """Return the offset of the first data or hole at or after `start`.

    If none follows, return the size of the log, or `start` if that is larger.

    Args:
        whence: os.SEEK_DATA or os.SEEK_HOLE.
    """
    try:
        return os.lseek(log, start, whence)
    except OSError:  # ENXIO: no data or hole follows
        return max(start, os.fstat(log).st_size)


class Logs:
    """The files `output` and `errors` in the shim's working directory, kept within their size limit.

    Attributes:
        last_growth: The time, by time.monotonic(), at which a file was last found to have grown.

    Args:
        spec: The content of spec.json.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.limit: int = spec["log_bytes"]
        self.keeps_unread: bool = spec["keeps_unread"]
        self.files: dict[str, int] = {}  #: the file descriptor of each file
        self.sizes: list[int] = []
        self.last_growth = time.monotonic()
        self.warned = False
        with contextlib.suppress(OSError):  # the program may have deleted the attempt's folder
            for name in ("output",) if spec["together"] else ("output", "errors"):
                self.files[name] = os.open(name, os.O_RDWR | os.O_CLOEXEC)

    def check(self) -> None:
        """Note whether the files have grown, and shorten those that exceed the limit."""
        sizes = [os.fstat(file).st_size for file in self.files.values()]
        if sizes != self.sizes:
            self.sizes, self.last_growth = sizes, time.monotonic()
        try:
            for name, file in self.files.items():
                must_keep = name == "output" and self.keeps_unread
                released = int(read_number("released", 0)) if must_keep else sys.maxsize
                shorten(file, self.limit, released)
        except OSError as error:
            if not self.warned:
                self.warned = True
                sys.stderr.write(f"can't keep the logs within their size limit on this file system: {error}\n")


def read_number(name: str, default: float) -> float:
    """Return the number in a file, or `default` if it is missing or has no number."""
    try:
        with open(name, encoding="utf-8") as file:
            return float(file.read())
    except (OSError, ValueError):
        return default
