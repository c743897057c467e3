"""The relay: the thin process that an MCP client starts; it passes lines between the client and the daemon.

It remembers what has no answer yet. When the daemon goes, it connects to the next, repeats the handshake and sends
those once more; the client notices nothing. Standard library only, so that it is up in tens of milliseconds.
"""

import json
import os
import select
import selectors
import signal
import socket
import sys
from typing import Any, cast

from forkjoin.connection import start
from forkjoin.paths import find_home

_CHUNK = 65536
#: POSIX lets this much be written to a pipe that select calls writable, without blocking.
_SLICE = select.PIPE_BUF
#: Beyond this many bytes that a slow reader has not taken, no more are read for it.
_BACKLOG = 1024 * 1024
#: How often a daemon that goes at once is followed by another before the relay gives up.
_TRIES = 5


class Relay:
    """Lines from `source` go to the daemon, its lines to `sink`; both are file descriptors."""

    def __init__(self, source: int, sink: int) -> None:
        self.home = find_home()
        self.number = start.draw_number()
        self.source = source
        self.source_open = True
        self.sink = sink
        self.from_client = b""
        self.to_client = b""
        self.from_daemon = b""
        self.to_daemon = b""
        self.handshake: list[bytes] = []  #: initialize and initialized, as the client sent them
        self.handshake_id: Any = None
        self.swallow: list[str] = []  #: ids of repeated requests whose answer the client has had
        self.unanswered: dict[str, bytes] = {}

    def run(self) -> None:
        """Relay until the client closes its end, and what it asked before has been answered."""
        daemon = self.greet()
        failures = 0
        while True:
            if self.relay(daemon):
                return
            daemon.close()
            failures = 0 if self.answered else failures + 1
            if failures >= _TRIES:
                raise start.DaemonError(f"the daemon keeps going away; see {self.home.log}")
            daemon = self.greet()
            self.repeat()

    def greet(self) -> socket.socket:
        daemon = start.connect(self.home)
        start.hello(daemon, "relay", self.number)
        return daemon

    def repeat(self) -> None:
        """Send a new daemon what the last one knew: the handshake, and all that it has not answered."""
        self.from_daemon = b""
        pending = [line for key, line in self.unanswered.items() if key != self.handshake_id]
        if self.handshake_id is not None and self.handshake_id not in self.unanswered:
            self.swallow.append(self.handshake_id)
        self.to_daemon = b"".join([*self.handshake, *pending])

    def relay(self, daemon: socket.socket) -> bool:
        """Pass lines both ways; whether the client is done (else the daemon is gone)."""
        self.answered = False
        closing = False
        with selectors.PollSelector() as selector:  # unlike epoll it takes files, too
            while True:
                if not self.source_open and not closing and not self.to_daemon:
                    daemon.shutdown(socket.SHUT_WR)
                    closing = True
                self.watch(selector, daemon)
                for key, mask in selector.select():
                    if key.fileobj is daemon:
                        try:
                            if not self.serve_daemon(daemon, mask):
                                self.flush()
                                return closing
                        except OSError:
                            return closing
                    elif key.fd == self.sink:
                        self.to_client = self.to_client[os.write(self.sink, self.to_client[:_SLICE]) :]
                    else:
                        self.read_client()

    def watch(self, selector: selectors.BaseSelector, daemon: socket.socket) -> None:
        """Let `selector` look for just what can be dealt with now."""
        read_daemon = selectors.EVENT_READ if len(self.to_client) < _BACKLOG else 0
        write_daemon = selectors.EVENT_WRITE if self.to_daemon else 0
        read_client = selectors.EVENT_READ if self.source_open and len(self.to_daemon) < _BACKLOG else 0
        write_client = selectors.EVENT_WRITE if self.to_client else 0
        _set(selector, daemon, read_daemon | write_daemon)
        _set(selector, self.sink, write_client)
        _set(selector, self.source, read_client)

    def read_client(self) -> None:
        chunk = os.read(self.source, _CHUNK)
        *lines, self.from_client = (self.from_client + chunk).split(b"\n")
        if not chunk:
            self.source_open = False
            lines, self.from_client = [self.from_client] if self.from_client else [], b""
        for line in lines:
            self.note_request(line)
            self.to_daemon += line + b"\n"

    def serve_daemon(self, daemon: socket.socket, mask: int) -> bool:
        """Whether the daemon is still there."""
        if mask & selectors.EVENT_WRITE:
            self.to_daemon = self.to_daemon[daemon.send(self.to_daemon[:_CHUNK]) :]
        if mask & selectors.EVENT_READ:
            chunk = daemon.recv(_CHUNK)
            if not chunk:
                return False
            *lines, self.from_daemon = (self.from_daemon + chunk).split(b"\n")
            for line in lines:
                if not self.note_answer(line):
                    self.to_client += line + b"\n"
        return True

    def flush(self) -> None:
        """Give the client what is left for it."""
        while self.to_client:
            self.to_client = self.to_client[os.write(self.sink, self.to_client) :]

    # -- remembering

    def note_request(self, line: bytes) -> None:
        message = _parse(line)
        if message is None or "method" not in message:
            return
        if message["method"] == "initialize":
            self.handshake, self.handshake_id = [line + b"\n"], _key(message)
        elif message["method"] == "notifications/initialized":
            self.handshake.append(line + b"\n")
        elif message["method"] == "notifications/cancelled":
            parameters: Any = message.get("params")
            if isinstance(parameters, dict):
                self.unanswered.pop(json.dumps(cast("dict[str, Any]", parameters).get("requestId")), None)
        if "id" in message:
            self.unanswered[_key(message)] = line + b"\n"

    def note_answer(self, line: bytes) -> bool:
        """Take note of an answer; whether it is one that the client has had before."""
        message = _parse(line)
        if message is None or "id" not in message or "method" in message:
            return False
        key = _key(message)
        if key in self.swallow and key not in self.unanswered:
            self.swallow.remove(key)
            return True
        self.answered = True
        self.unanswered.pop(key, None)
        return False


def _set(selector: selectors.BaseSelector, file: "socket.socket | int", events: int) -> None:
    known = selector.get_map().get(file)
    if known is None:
        if events:
            selector.register(file, events)
    elif not events:
        selector.unregister(file)
    elif known.events != events:
        selector.modify(file, events)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The message in a line; none where the daemon will have to say what is wrong with it."""
    try:
        message: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", message) if isinstance(message, dict) else None


def _key(message: dict[str, Any]) -> str:
    return json.dumps(message.get("id"))


def main() -> int:
    """Relay between stdin, stdout and the daemon; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        Relay(0, 1).run()
    except (start.DaemonError, OSError) as error:
        sys.stderr.write(f"forkjoin: {error}\n")
        return 1
    return 0
