"""The relay: the thin process that an MCP client starts, which passes lines between the client and the daemon.

The relay remembers unanswered requests. When the daemon ends, it connects to the next one, and repeats the handshake
and these requests, so the client notices nothing. It imports only the standard library, to start within tens of
milliseconds.
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
#: Maximal bytes that wait for a slow reader before the relay stops reading for it.
_BACKLOG = 1024 * 1024
#: Maximal daemons in a row that end before they answer anything.
_TRIES = 5
_CANCELLED = "notifications/cancelled"
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Relay:
    """The connection of a client to one daemon after the other.

    Attributes:
        source: The file descriptor of the client's messages.
        sink: The file descriptor for messages to the client.
    """

    def __init__(self, source: int, sink: int) -> None:
        self.home = find_home()
        self.id = daemon_connection.new_relay_id()
        self.source = source
        self.source_open = True
        self.sink = sink
        self.from_client = Lines(LINE_LIMIT)
        self.from_daemon = Lines(LINE_LIMIT)
        self.to_client = bytearray()  #: complete lines still to be written
        self.to_daemon = bytearray()
        self.conversation = Conversation()

    def run(self) -> None:
        """Relay until the client has closed its end and got all answers, or is gone.

        Raises:
            DaemonError: No daemon can be reached, so the client, which got an error, can't start.
        """
        failures = 0
        while True:
            received = self.conversation.received
            try:
                return self.relay_to_daemon()
            except (ConnectionError, EOFError):
                failures = 0 if self.conversation.received > received else failures + 1
                if failures < _TRIES:
                    continue
                reason = f"forkjoin's daemon keeps ending. See {self.home.log}"
            except (daemon_connection.DaemonError, OSError) as error:
                reason = str(error)
            failures = 0
            self.refuse_unanswered(reason)

    def relay_to_daemon(self) -> None:
        """Connect to a daemon and relay until the client is done.

        Requests that the last daemon did not answer are repeated first.

        Raises:
            DaemonError, OSError: No daemon can be reached.
            ConnectionError, EOFError: The daemon is gone.
        """
        daemon, _ = daemon_connection.connect_and_greet(self.home, "relay", self.id)
        with daemon:
            self.from_daemon = Lines(LINE_LIMIT)
            self.to_daemon = bytearray(self.conversation.repeat())
            self.to_client += self.conversation.cancel_server_requests()
            self.pass_lines(daemon)

    def refuse_unanswered(self, reason: str) -> None:
        """Answer all open requests with an error.

        Return when the client sends the next request.

        Raises:
            DaemonError: The client got an error for its first request, or is gone. It will start another relay.
        """
        message = f"{reason}\nIt is not known whether this call was carried out. Correct that, then call list_agents."
        refused = self.conversation.refuse_all(message)
        self.to_client += refused
        while self.to_client:
            del self.to_client[: os.write(self.sink, self.to_client)]
        if refused and not self.conversation.received:
            raise daemon_connection.DaemonError(reason)
        while self.source_open and not self.conversation.unanswered:
            self.read_client()
        if not self.conversation.unanswered:
            raise daemon_connection.DaemonError(reason)

    def pass_lines(self, daemon: socket.socket) -> None:
        """Pass lines both ways until the client is done.

        Raises:
            ConnectionError, EOFError: The daemon is gone.
        """
        while self.source_open or self.conversation.is_owed or self.to_daemon or self.to_client:
            ready = self.wait(daemon)
            if ready.get(self.sink, 0) & _GONE:
                return
            if ready.get(self.sink, 0):
                # A pipe that poll reports as writable takes this much without blocking.
                del self.to_client[: os.write(self.sink, self.to_client[: select.PIPE_BUF])]
            if ready.get(self.source, 0):
                self.read_client()
            if ready.get(daemon.fileno(), 0) & select.POLLOUT:
                # MSG_NOSIGNAL: a daemon that is gone must not end the relay by SIGPIPE.
                del self.to_daemon[: daemon.send(self.to_daemon[:_CHUNK], socket.MSG_NOSIGNAL)]
            if ready.get(daemon.fileno(), 0) & ~select.POLLOUT:
                self.read_daemon(daemon)

    def wait(self, daemon: socket.socket) -> dict[int, int]:
        """Wait until something can be read or written.

        Return the poll events by descriptor.

        Nothing is read for a side that does not read itself.
        """
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
            elif self.conversation.note_request(line):
                self.to_daemon += line + b"\n"

    def read_daemon(self, daemon: socket.socket) -> None:
        chunk = daemon.recv(_CHUNK)
        if not chunk:
            raise EOFError
        for _, line in self.from_daemon.feed(chunk):
            if line is not None and not self.conversation.note_answer(line):
                self.to_client += line + b"\n"


class Conversation:
    """What a new daemon must know of the conversation with the client so far.

    Attributes:
        unanswered: The line of each request without an answer, by the JSON of its id.
        received: Number of lines from daemons, without repeated answers.
    """

    def __init__(self) -> None:
        self.unanswered: dict[str, bytes] = {}
        self.received = 0
        self._handshake: dict[
            str, bytes
        ] = {}  #: the client's initialize and initialized lines, by the JSON of their ids
        self._subscriptions: set[str] = set()  #: ids of requests that stay unanswered while the client is connected
        self._answered_before: set[str] = set()  #: ids of repeated requests that the client has an answer to
        self._from_daemon: set[str] = set()  #: ids of the daemon's requests that the client has not answered

    @property
    def is_owed(self) -> bool:
        """Whether a request other than a subscription is unanswered."""
        return not self.unanswered.keys() <= self._subscriptions

    def repeat(self) -> bytes:
        """Return the lines for a new daemon: the handshake and all unanswered requests."""
        handshake = self._handshake.values()
        requests = [line for line in self.unanswered.values() if line not in handshake]
        self._answered_before = {
            key for key, line in self._handshake.items() if key and line not in self.unanswered.values()
        }
        return b"".join((*handshake, *requests))

    def cancel_server_requests(self) -> bytes:
        """Return lines that cancel an earlier daemon's requests to the client.

        The next daemon reuses their ids.
        """
        cancelled = [
            {"jsonrpc": "2.0", "method": _CANCELLED, "params": {"requestId": json.loads(key)}}
            for key in self._from_daemon
        ]
        self._from_daemon.clear()
        return b"".join(json.dumps(message).encode() + b"\n" for message in cancelled)

    def refuse_all(self, message: str) -> bytes:
        """Return an error response to each unanswered request, and forget these requests."""
        refused = [_error_line(json.loads(key), -32603, message) for key in self.unanswered]
        self.unanswered.clear()
        return b"".join(refused)

    def note_request(self, line: bytes) -> bool:
        """Record a line from the client. Return whether it should be passed on.

        An answer to a request of an earlier daemon must not be.
        """
        message = _parse_line(line)
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
            (self._subscriptions.add if method == "subscriptions/listen" else self._subscriptions.discard)(key)
        if method or not message.keys() & {"result", "error"}:
            return True
        known = key in self._from_daemon
        self._from_daemon.discard(key)
        return known

    def note_answer(self, line: bytes) -> bool:
        """Record a line from a daemon.

        Return whether it is an answer that the client has already.
        """
        message = _parse_line(line)
        key = _key(message)
        is_answer = bool(key) and "method" not in message
        if key and not is_answer:
            self._from_daemon.add(key)
        if is_answer and key in self._answered_before:
            self._answered_before.discard(key)
            return True
        self.received += 1
        if is_answer:
            self.unanswered.pop(key, None)
            self._subscriptions.discard(key)
        return False


def _parse_line(line: bytes) -> dict[str, Any]:
    """Return the message in a line, or an empty dict for an invalid line.

    The daemon reports invalid lines.
    """
    try:
        message: Any = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", message) if isinstance(message, dict) else {}


def _key(message: dict[str, Any]) -> str:
    """Return the JSON of the message's id, or '' if it has no valid id."""
    number: Any = message.get("id")
    return json.dumps(number) if isinstance(number, str | int) and not isinstance(number, bool) else ""


def _error_line(number: str | int | None, code: int, message: str) -> bytes:
    error = {"code": code, "message": message}
    return json.dumps({"jsonrpc": "2.0", "id": number, "error": error}).encode() + b"\n"


_TOO_LONG = _error_line(None, -32600, f"a message may have at most {LINE_LIMIT // 1024 // 1024} MB")


def run() -> int:
    """Relay between stdin, stdout and the daemon. Return the exit code."""
    for signum in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_DFL)
    try:
        Relay(0, 1).run()
    except (daemon_connection.DaemonError, OSError) as error:
        sys.stderr.write(f"forkjoin: {error}\n")
        return 1
    return 0
