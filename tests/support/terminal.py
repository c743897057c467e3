"""A program on a terminal of its own, and a person who types there."""

import fcntl
import os
import struct
import subprocess
import termios
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.harness import GIVE_UP_S, until

#: What claude prints before the place where a person types.
CLAUDE = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"
_ROWS, _COLUMNS = 40, 120


class Terminal:
    """What a program prints on it is kept, whole; `prompt` stands where the program waits for a line."""

    def __init__(self, process: "subprocess.Popen[bytes]", ours: int, prompt: str) -> None:
        self.process = process
        self.printed = b""
        self._ours = ours
        self._prompt = prompt.encode()

    async def type(self, line: str) -> None:
        """Type a line, once the program is ready; its return comes apart, else it would be part of a paste."""
        await until(lambda: self._prompt in self.printed)
        before = len(self.printed)
        os.write(self._ours, line.encode())
        await until(lambda: len(self.printed) > before)
        os.write(self._ours, b"\r")

    def interrupt(self) -> None:
        """Type ^C."""
        os.write(self._ours, b"\x03")

    def read(self) -> None:
        """Read until nobody has the terminal open."""
        with suppress(OSError):
            while data := os.read(self._ours, 65536):
                self.printed += data


@contextmanager
def open_terminal(where: Path, *argv: str, prompt: str = CLAUDE) -> Generator[Terminal]:
    """Run a program on a terminal; it is hung up on at the end, as when a person closes the window."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    process = subprocess.Popen(
        argv,
        cwd=where,
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its)
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
    """End a program, if it is there."""
    process.send_signal(1)
    try:
        process.wait(GIVE_UP_S)
    finally:
        process.kill()
