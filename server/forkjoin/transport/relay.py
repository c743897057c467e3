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

from forkjoin.core.line_reader import Lines
from forkjoin.core.paths import find_home
from forkjoin.transport import daemon_connection
from forkjoin.transport.daemon_connection import LINE_LIMIT

_CHUNK = 65536
#: What a slow reader has not taken may grow to this many bytes before no more is read for it.
_BACKLOG = 1024 * 1024
#: How often a daemon that goes before it has answered anything is followed by another.
_TRIES = 5
_CANCELLED = "notifications/cancelled"
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Relay:
    """Lines from `source` go to the daemon, the daemon's to `sink`; both are file descriptors."""

    def __init__(self, source: int, sink: int) -> None:
        self.home = find_home()
        self.number = daemon_connection.new_relay_id()
        self.source = source
        self.source_open = True
        self.sink = sink
        self.from_client = Lines(LINE_LIMIT)
        self.from_daemon = Lines(LINE_LIMIT)
        self.to_client = bytearray()  #: whole lines that are to be written
        self.to_daemon = bytearray()
        self.memory = Memory()

    def run(self) -> None:
        """Relay until the client has closed its end and has had its answers, or is gone.

        Raises:
            DaemonError: None can be reached, and the client, which was told so, can't begin without one.
        """
        failures = 0
        while True:
            heard = self.memory.heard
            try:
                return self.attend()
            except (ConnectionError, EOFError):
                failures = 0 if self.memory.heard > heard else failures + 1
                if failures < _TRIES:
                    continue
                why = f"forkjoin's daemon keeps going away; see {self.home.log}"
            except (daemon_connection.DaemonError, OSError) as error:
                why = str(error)
            failures = 0
            self.refuse(why)

    def attend(self) -> None:
        """Reach a daemon, tell it what the last one did not answer, and relay."""
        daemon, _ = daemon_connection.connect_and_greet(self.home, "relay", self.number)
        with daemon:
            self.from_daemon = Lines(LINE_LIMIT)
            self.to_daemon = bytearray(self.memory.repeat())
            self.to_client += self.memory.take_back()
            self.relay(daemon)

    def refuse(self, why: str) -> None:
        """Answer in words what no daemon has answered; return when there is something to try another one for.

        Raises:
            DaemonError: The client could not begin, or has gone: it starts us again when it wants.
        """
        words = f"{why}\nWhether this was carried out is not known: call list_agents once that is mended."
        refused = self.memory.refuse_all(words)
        self.to_client += refused
        while self.to_client:
            del self.to_client[: os.write(self.sink, self.to_client)]
        if refused and not self.memory.heard:
            raise daemon_connection.DaemonError(why)
        while self.source_open and not self.memory.unanswered:
            self.read_client()
        if not self.memory.unanswered:
            raise daemon_connection.DaemonError(why)

    def relay(self, daemon: socket.socket) -> None:
        """Pass lines both ways until the client is done.

        Raises:
            ConnectionError, EOFError: The daemon is gone.
        """
        while self.source_open or self.memory.is_owed or self.to_daemon or self.to_client:
            ready = self.wait(daemon)
            if ready.get(self.sink, 0) & _GONE:
                return
            if ready.get(self.sink, 0):
                # So much a pipe that poll calls writable takes without blocking.
                del self.to_client[: os.write(self.sink, self.to_client[: select.PIPE_BUF])]
            if ready.get(self.source, 0):
                self.read_client()
            if ready.get(daemon.fileno(), 0) & select.POLLOUT:
                # That it is gone must not end us.
                del self.to_daemon[: daemon.send(self.to_daemon[:_CHUNK], socket.MSG_NOSIGNAL)]
            if ready.get(daemon.fileno(), 0) & ~select.POLLOUT:
                self.read_daemon(daemon)

    def wait(self, daemon: socket.socket) -> dict[int, int]:
        """What can be read or written now without blocking, by descriptor; nothing is read for who does not read."""
        poll = select.poll()
        from_daemon = select.POLLIN if len(self.to_client) < _BACKLOG else 0
        poll.register(daemon, from_daemon | (select.POLLOUT if self.to_daemon else 0))
        poll.register(self.sink, select.POLLOUT if self.to_client else 0)
        if self.source_open:
            poll.register(self.source, select.POLLIN if len(self.to_daemon) < _BACKLOG else 0)
        return dict(poll.poll())

    def read_client(self) -> None:
        chunk = os.read(self.source, _CHUNK)
        found = self.from_client.feed(chunk) if chunk else self.from_client.rest()
        self.source_open = bool(chunk)
        for _, line in found:
            if line is None:
                self.to_client += _TOO_LONG
            elif self.memory.note_request(line):
                self.to_daemon += line + b"\n"

    def read_daemon(self, daemon: socket.socket) -> None:
        chunk = daemon.recv(_CHUNK)
        if not chunk:
            raise EOFError
        for _, line in self.from_daemon.feed(chunk):
            if line is not None and not self.memory.note_answer(line):
                self.to_client += line + b"\n"


class Memory:
    """What was asked and has no answer yet, and how the conversation began; by request id."""

    def __init__(self) -> None:
        self.unanswered: dict[str, bytes] = {}
        self.heard = 0  #: lines from daemons that the client had not had before
        self._handshake: dict[str, bytes] = {}  #: initialize and initialized, as the client sent them
        self._listening: set[str] = set()  #: ids of requests that have no answer as long as the client is there
        self._had: set[str] = set()  #: ids of repeated requests whose first answer the client has had
        self._asked: set[str] = set()  #: ids of what the daemon asks the client, which has not answered

    @property
    def is_owed(self) -> bool:
        """Whether there will be an answer that the client has not had."""
        return not self.unanswered.keys() <= self._listening

    def repeat(self) -> bytes:
        """What a new daemon must hear: the handshake, and all that the last one has not answered."""
        begun = self._handshake.values()
        again = [line for line in self.unanswered.values() if line not in begun]
        self._had = {key for key, line in self._handshake.items() if key and line not in self.unanswered.values()}
        return b"".join((*begun, *again))

    def take_back(self) -> bytes:
        """What the client must hear of what an earlier daemon asked it: the next counts its own from 1 again."""
        gone = [
            {"jsonrpc": "2.0", "method": _CANCELLED, "params": {"requestId": json.loads(key)}} for key in self._asked
        ]
        self._asked.clear()
        return b"".join(json.dumps(one).encode() + b"\n" for one in gone)

    def refuse_all(self, why: str) -> bytes:
        """An error in words for each that has no answer; none of them is sent again."""
        refused = [_refusal(json.loads(key), -32603, why) for key in self.unanswered]
        self.unanswered.clear()
        return b"".join(refused)

    def note_request(self, line: bytes) -> bool:
        """Take note of what the client says; whether a daemon is there for it, which an answer may have outlived."""
        message = _parse(line)
        method = message.get("method")
        key = _key(message)
        if method == "initialize":
            self._handshake = {key: line + b"\n"}
        elif method == "notifications/initialized":
            self._handshake[""] = line + b"\n"
        elif method == _CANCELLED:
            parameters: Any = message.get("params")
            if isinstance(parameters, dict):
                self.unanswered.pop(json.dumps(cast("dict[str, Any]", parameters).get("requestId")), None)
        if key and method:
            self.unanswered[key] = line + b"\n"
            (self._listening.add if method == "subscriptions/listen" else self._listening.discard)(key)
        if method or not message.keys() & {"result", "error"}:
            return True
        known = key in self._asked
        self._asked.discard(key)
        return known

    def note_answer(self, line: bytes) -> bool:
        """Take note of a line from a daemon; whether it is an answer that the client has had before."""
        message = _parse(line)
        key = _key(message)
        is_answer = bool(key) and "method" not in message
        if key and not is_answer:
            self._asked.add(key)
        if is_answer and key in self._had:
            self._had.discard(key)
            return True
        self.heard += 1
        if is_answer:
            self.unanswered.pop(key, None)
            self._listening.discard(key)
        return False


def _parse(line: bytes) -> dict[str, Any]:
    """The message in a line; empty where the daemon will have to say what is wrong with it."""
    try:
        message: Any = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", message) if isinstance(message, dict) else {}


def _key(message: dict[str, Any]) -> str:
    """What the message's id is known by; '' where it has none that can be answered."""
    number: Any = message.get("id")
    return json.dumps(number) if isinstance(number, str | int) and not isinstance(number, bool) else ""


def _refusal(number: str | int | None, code: int, why: str) -> bytes:
    error = {"code": code, "message": why}
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": error}).encode() + b"\n"


_TOO_LONG = _refusal(None, -32600, f"a message may have {LINE_LIMIT // 1024 // 1024} MB at most")


def run() -> int:
    """Relay between stdin, stdout and the daemon; the exit code."""
    for signum in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_DFL)
    try:
        Relay(0, 1).run()
    except (daemon_connection.DaemonError, OSError) as error:
        sys.stderr.write(f"forkjoin: {error}\n")
        return 1
    return 0
