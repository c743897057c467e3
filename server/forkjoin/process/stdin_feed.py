"""A program's stdin, fed from a file. Standard library only, since it is the shim that does so."""

import contextlib
import fcntl
import os
import selectors

_CHUNK = 65536


class Feed:
    """Copies the file `input` into the program's stdin, as far as it has grown and the program reads."""

    def __init__(self, stdin: int) -> None:
        self.stdin = stdin
        self.source = os.open("input", os.O_RDONLY | os.O_CLOEXEC)
        self.pending = b""
        self.at_end = False  #: whether the last look found no more, and nobody who writes
        self.open = True

    def copy(self, selector: selectors.BaseSelector) -> None:
        """Copy what can be copied now; leave stdin in `selector` while the program does not read."""
        if not self.open:
            return
        waits = self.stdin in selector.get_map()
        complete = os.path.exists("input.end")  # looked for before the read that finds no more
        try:
            while self.refill():
                self.pending = self.pending[os.write(self.stdin, self.pending) :]
        except BlockingIOError:
            if not waits:
                selector.register(self.stdin, selectors.EVENT_WRITE)
            return
        except BrokenPipeError:
            complete = self.at_end = True
        if waits:
            selector.unregister(self.stdin)
        if complete and self.at_end:
            os.close(self.stdin)
            self.open = False

    def refill(self) -> bool:
        """Whether there is something to copy. What is still being written is not: for want of room it is taken back."""
        if not self.pending:
            self.at_end = False
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.source, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self.pending = os.read(self.source, _CHUNK)
                fcntl.flock(self.source, fcntl.LOCK_UN)
                self.at_end = not self.pending
        return bool(self.pending)
