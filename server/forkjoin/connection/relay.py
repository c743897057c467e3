"""The relay: the thin process that an MCP client starts; it passes lines between the client and the daemon.

It remembers what has no answer yet. When the daemon goes, it connects to the next, repeats the handshake and sends
those once more; the client notices nothing. Standard library only, so that it is up in tens of milliseconds.
"""

import json
import os
import select
import signal
import socket
import sys
from typing import Any, cast

from forkjoin.connection import start
from forkjoin.paths import find_home

_CHUNK = 65536
#: What a slow reader has not taken may grow to this many bytes before no more is read for it.
_BACKLOG = 1024 * 1024
#: How often a daemon that goes before it has answered anything is followed by another.
_TRIES = 5
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Relay:
    """Lines from `source` go to the daemon, the daemon's to `sink`; both are file descriptors."""

    def __init__(self, source: int, sink: int) -> None:
        self.home = find_home()
        self.number = start.draw_number()
        self.source = source
        self.source_open = True
        self.sink = sink
        self.from_client = b""  #: the beginning of a line
        self.from_daemon = b""
        self.to_client = b""  #: whole lines that are to be written
        self.to_daemon = b""
        self.memory = Memory()

    def run(self) -> None:
        """Relay until the client has closed its end and has had its answers, or is gone."""
        failures = 0
        while True:
            self.daemon, _ = start.greet(self.home, "relay", self.number)
            answers = self.memory.answers
            try:
                self.relay()
                return
            except (ConnectionError, EOFError):
                self.daemon.close()
            failures = 0 if self.memory.answers > answers else failures + 1
            if failures >= _TRIES:
                raise start.DaemonError(f"the daemon keeps going away; see {self.home.log}")
            self.from_daemon = b""
            self.to_daemon = self.memory.repeat()

    def relay(self) -> None:
        """Pass lines both ways until the client is done.

        Raises:
            ConnectionError, EOFError: The daemon is gone.
        """
        while self.source_open or self.memory.unanswered or self.to_daemon or self.to_client:
            ready = self.wait()
            if ready.get(self.sink, 0) & _GONE:
                return
            if ready.get(self.sink, 0):
                # So much a pipe that poll calls writable takes without blocking.
                self.to_client = self.to_client[os.write(self.sink, self.to_client[: select.PIPE_BUF]) :]
            if ready.get(self.source, 0):
                self.read_client()
            if ready.get(self.daemon.fileno(), 0) & select.POLLOUT:
                sent = self.daemon.send(self.to_daemon[:_CHUNK], socket.MSG_NOSIGNAL)  # if it is gone, we are not
                self.to_daemon = self.to_daemon[sent:]
            if ready.get(self.daemon.fileno(), 0) & ~select.POLLOUT:
                self.read_daemon()

    def wait(self) -> dict[int, int]:
        """What can be read or written now without blocking, by descriptor; nothing is read for who does not read."""
        poll = select.poll()
        from_daemon = select.POLLIN if len(self.to_client) < _BACKLOG else 0
        poll.register(self.daemon, from_daemon | (select.POLLOUT if self.to_daemon else 0))
        poll.register(self.sink, select.POLLOUT if self.to_client else 0)
        if self.source_open:
            poll.register(self.source, select.POLLIN if len(self.to_daemon) < _BACKLOG else 0)
        return dict(poll.poll())

    def read_client(self) -> None:
        chunk = os.read(self.source, _CHUNK)
        *lines, self.from_client = (self.from_client + chunk).split(b"\n")
        if not chunk:
            self.source_open = False
            lines, self.from_client = [self.from_client] if self.from_client else [], b""
        for line in lines:
            self.memory.note_request(line)
        self.to_daemon += b"".join(line + b"\n" for line in lines)

    def read_daemon(self) -> None:
        chunk = self.daemon.recv(_CHUNK)
        if not chunk:
            raise EOFError
        *lines, self.from_daemon = (self.from_daemon + chunk).split(b"\n")
        self.to_client += b"".join(line + b"\n" for line in lines if not self.memory.note_answer(line))


class Memory:
    """What was asked and has no answer yet, and how the conversation began; by request id."""

    def __init__(self) -> None:
        self.unanswered: dict[str, bytes] = {}
        self.answers = 0
        self._handshake: dict[str, bytes] = {}  #: initialize and initialized, as the client sent them
        self._had: set[str] = set()  #: ids of repeated requests whose first answer the client has had

    def repeat(self) -> bytes:
        """What a new daemon must hear: the handshake, and all that the last one has not answered."""
        self._had = {key for key in self._handshake if key and key not in self.unanswered}
        return b"".join(({**self._handshake, **self.unanswered}).values())

    def note_request(self, line: bytes) -> None:
        message = _parse(line)
        method = message.get("method")
        key = _key(message) if "id" in message else ""
        if method == "initialize":
            self._handshake = {key: line + b"\n"}
        elif method == "notifications/initialized":
            self._handshake[""] = line + b"\n"
        elif method == "notifications/cancelled":
            parameters: Any = message.get("params")
            if isinstance(parameters, dict):
                self.unanswered.pop(json.dumps(cast("dict[str, Any]", parameters).get("requestId")), None)
        if key and method:
            self.unanswered[key] = line + b"\n"

    def note_answer(self, line: bytes) -> bool:
        """Take note of an answer; whether it is one that the client has had before."""
        message = _parse(line)
        if "id" not in message or "method" in message:
            return False
        key = _key(message)
        if key in self._had:
            self._had.discard(key)
            return True
        self.answers += 1
        self.unanswered.pop(key, None)
        return False


def _parse(line: bytes) -> dict[str, Any]:
    """The message in a line; empty where the daemon will have to say what is wrong with it."""
    try:
        message: Any = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", message) if isinstance(message, dict) else {}


def _key(message: dict[str, Any]) -> str:
    return json.dumps(message.get("id"))


def main() -> int:
    """Relay between stdin, stdout and the daemon; the exit code."""
    for signum in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_DFL)
    try:
        Relay(0, 1).run()
    except (start.DaemonError, OSError) as error:
        sys.stderr.write(f"forkjoin: {error}\n")
        return 1
    return 0
