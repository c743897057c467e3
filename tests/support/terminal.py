"""A pseudo-terminal in which a program runs and a test types."""

import fcntl
import os
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.harness import GIVE_UP_S, until

#: The prompt of claude.
CLAUDE = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"
_ROWS, _COLUMNS = 40, 120


class Terminal:
    """A terminal with a program. `printed` is the whole output; the program prints `prompt` to ask for a line."""

    def __init__(self, process: "subprocess.Popen[bytes]", ours: int, prompt: str) -> None:
        self.process = process
        self.printed = b""
        self._ours = ours
        self._prompt = prompt.encode()

    async def type(self, line: str) -> None:
        """Type a line once the program has printed its prompt.

        The return key is sent separately, because a program may take a line that arrives at once for a paste.
        """
        await until(lambda: self._prompt in self.printed)
        before = len(self.printed)
        os.write(self._ours, line.encode())
        await until(lambda: len(self.printed) > before)
        os.write(self._ours, b"\r")

    def interrupt(self) -> None:
        """Type ^C."""
        os.write(self._ours, b"\x03")

    def read(self) -> None:
        """Read the output until no process has the terminal open."""
        with suppress(OSError):
            while data := os.read(self._ours, 65536):
                self.printed += data


@contextmanager
def open_terminal(where: Path, *argv: str, prompt: str = CLAUDE) -> Generator[Terminal]:
    """Run a program in a terminal.

    At the end the program receives SIGHUP, as when a person closes the window.
    """
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    process = subprocess.Popen(
        argv,
        cwd=where,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    terminal = Terminal(process, ours, prompt)
    reader = threading.Thread(target=terminal.read)
    reader.start()
    try:
        yield terminal
    finally:
        _hang_up(process)
        reader.join(GIVE_UP_S)
        os.close(ours)


def _hang_up(process: "subprocess.Popen[bytes]") -> None:
    """Send the program SIGHUP, and kill it if it doesn't exit in time."""
    process.send_signal(signal.SIGHUP)
    try:
        process.wait(GIVE_UP_S)
    finally:
        process.kill()
