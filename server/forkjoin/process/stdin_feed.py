"""The program's stdin, fed from the file `input`. Standard library only, since the shim imports this module."""

import contextlib
import fcntl
import os
import selectors

_CHUNK = 65536


class StdinFeed:
    """Copies the growing file `input` to the program's stdin, as fast as the program reads it."""

    def __init__(self, stdin: int) -> None:
        self.stdin = stdin
        self.source = os.open("input", os.O_RDONLY | os.O_CLOEXEC)
        self.pending = b""
        self.at_end = False  #: whether the last read found no more bytes while no daemon was appending
        self.open = True

    def copy(self, selector: selectors.BaseSelector) -> None:
        """Copy what can be copied without blocking, and close stdin after the last byte.

        While the program does not read, stdin is registered in `selector`.
        """
        if not self.open:
            return
        is_registered = self.stdin in selector.get_map()
        is_complete = os.path.exists("input.end")  # checked before the read that finds no more bytes
        try:
            while self.fill():
                self.pending = self.pending[os.write(self.stdin, self.pending) :]
        except BlockingIOError:
            if not is_registered:
                selector.register(self.stdin, selectors.EVENT_WRITE)
            return
        except BrokenPipeError:
            is_complete = self.at_end = True
        if is_registered:
            selector.unregister(self.stdin)
        if is_complete and self.at_end:
            os.close(self.stdin)
            self.open = False

    def fill(self) -> bool:
        """Read the next bytes of the file if none are pending.

        Return whether bytes are pending. A daemon that appends locks the file, and truncates it again if the disk is
        full. So a locked file is not read.
        """
        if not self.pending:
            self.at_end = False
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.source, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self.pending = os.read(self.source, _CHUNK)
                fcntl.flock(self.source, fcntl.LOCK_UN)
                self.at_end = not self.pending
        return bool(self.pending)
