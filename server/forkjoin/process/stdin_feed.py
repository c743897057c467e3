"""The copying of the file `input` to the program's stdin.

Standard library only, since the shim imports this module.
"""

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
        self.pending = b""  #: bytes that were read from the file and not written to stdin yet
        self.at_end = False  #: whether the last read found no bytes although no daemon was appending
        self.open = True  #: whether stdin is open

    def copy(self, selector: selectors.BaseSelector) -> None:
        """Copy as many bytes as the program accepts without blocking.

        Close stdin after the last byte, or if the program has closed its end. If the program accepts no more bytes for
        now, stdin is registered in `selector`, which then tells when to call again.
        """
        if not self.open:
            return
        is_registered = self.stdin in selector.get_map()
        # Checked before the reads, which then find all bytes that came before input.end.
        is_complete = os.path.exists("input.end")
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
        """Read bytes from the file if none are pending. Return whether bytes are pending.

        A file that a daemon has locked is not read: the daemon is appending, and takes the bytes back if the disk is
        full.
        """
        if not self.pending:
            self.at_end = False
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.source, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self.pending = os.read(self.source, _CHUNK)
                fcntl.flock(self.source, fcntl.LOCK_UN)
                self.at_end = not self.pending
        return bool(self.pending)
