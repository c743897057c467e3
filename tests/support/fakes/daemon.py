"""A fake daemon whose replies are chosen by the test."""

import contextlib
import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forkjoin.core import file_lock
from forkjoin.core.paths import SOCKET, Home
from support.harness import GIVE_UP_S


class FakeDaemon:
    """A process that holds the daemon's lock and listens at its socket, in place of a daemon."""

    def __init__(self, home: Home) -> None:
        home.make()
        self._home = home
        self._lock = file_lock.take(home.daemon_lock)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(GIVE_UP_S)
        here = Path.cwd()
        os.chdir(home.state)
        Path(SOCKET).unlink(missing_ok=True)
        self._listener.bind(SOCKET)
        os.chdir(here)
        self._listener.listen()

    @contextmanager
    def connection(self) -> Generator["FakeConnection"]:
        """Accept the next connection and complete its handshake.

        Close the connection at the end.
        """
        accepted = self.accept()
        with accepted, accepted.makefile("rb") as file:
            found = FakeConnection(accepted, file)
            found.hello = found.read()
            found.say({"ok": True, "version": "99", "protocol": 1, "pid": os.getpid()})
            yield found

    def accept(self) -> socket.socket:
        """Accept the next connection. Nothing has been read from it yet."""
        accepted, _ = self._listener.accept()
        accepted.settimeout(GIVE_UP_S)
        return accepted

    def asked(self) -> int:
        """Accept and close all pending connections, and return their number."""
        self._listener.setblocking(False)
        number = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.accept().close()
                number += 1
        return number

    def close(self) -> None:
        self._listener.close()
        (self._home.state / SOCKET).unlink(missing_ok=True)
        os.close(self._lock or 0)


class FakeConnection:
    """The fake daemon's side of a connection. `hello` is the client's first message."""

    def __init__(self, accepted: socket.socket, file: Any) -> None:
        self._socket = accepted
        self._file = file
        self.hello: Any = None

    def read(self) -> Any:
        return json.loads(self._file.readline())

    def read_all(self, number: int) -> list[Any]:
        return [self.read() for _ in range(number)]

    def say(self, *messages: Any) -> None:
        for message in messages:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def hear_no_more(self) -> None:
        """Stop reading, but keep the connection open for writing."""
        self._socket.shutdown(socket.SHUT_RD)

    def say_half(self, message: Any) -> None:
        """Send only the first 20 bytes of a message."""
        self._socket.sendall(json.dumps(message).encode()[:20])
