"""An attempt's log: a file that loses its middle where it is over its limit, so that head and tail stay.

Standard library only, since the shim uses it too. What is dropped is punched out of the file (fallocate(2)): every
offset stays true, nothing is copied, and a full disk gets room. What is gone need not be written down: a reader asks
the file itself where it has data (lseek(2)).
"""

import ctypes
import os

#: A hole begins and ends at whole megabytes, since no file system has larger blocks; the first megabyte always stays.
STEP = 1024 * 1024
_KEEP_SIZE, _PUNCH_HOLE = 0x1, 0x2


def shorten(log: int, limit: int, released: int) -> None:
    """Drop the middle of a log that is over `limit` bytes, but nothing from byte `released` on, or raise OSError."""
    surplus = os.fstat(log).st_size - limit
    end = min(STEP + surplus, released) // STEP * STEP
    if surplus > 0 and end > STEP and _seek(log, STEP, os.SEEK_DATA) < end:
        _punch(log, STEP, end - STEP)


def _punch(log: int, start: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # glibc's own name for the call that takes 64 bits everywhere; musl has only such calls
    fallocate = getattr(libc, "fallocate64", None) or libc.fallocate
    if fallocate(log, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(size)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read(log: int, start: int, limit: int) -> tuple[int, bytes]:
    """At most `limit` bytes of what is there from byte `start` on, and where they begin; none from behind a gap."""
    begin = _seek(log, start, os.SEEK_DATA)
    data = os.pread(log, limit, begin)
    kept = _seek(log, begin, os.SEEK_DATA)  # asked after: what was dropped meanwhile may have been read as zeros
    end = _seek(log, kept, os.SEEK_HOLE)
    return kept, data[kept - begin : end - begin]


def _seek(log: int, start: int, what: int) -> int:
    """The first byte from `start` on that is (or is not) there; the log's size where all that follows is gone."""
    try:
        return os.lseek(log, start, what)
    except OSError:  # there is nothing at or after it
        return max(start, os.fstat(log).st_size)
