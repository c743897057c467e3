"""The relay: the thin process that an MCP client starts, which passes lines between the client and the daemon.

The relay remembers unanswered requests. When the daemon ends, the relay connects to the next daemon, and repeats the
handshake and these requests, so that the client notices nothing. The relay imports only the standard library, so that
it starts within tens of milliseconds.
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
#: When this many bytes wait to be written to one side, the relay reads no more from the other side.
_BACKLOG = 1024 * 1024
#: When this many daemons in a row have ended without sending a line, all unanswered requests are refused.
_TRIES = 5
_CANCELLED = "notifications/cancelled"
#: Events of poll(2) which say that no process reads the other end of a pipe any more.
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Relay:
    """The connection between a client and one daemon after the other.

    Attributes:
        source: The file descriptor from which the client's messages are read.
        source_open: Whether the client may still send messages.
        sink: The file descriptor to which messages for the client are written.
        to_client: Complete lines that are still to be written to the client.
        to_daemon: Complete lines that are still to be sent to the daemon.
    """

    def __init__(self, source: int, sink: int) -> None:
        self.home = find_home()
        self.id = daemon_connection.new_relay_id()
        self.source = source
        self.source_open = True
        self.sink = sink
        self.from_client = Lines(LINE_LIMIT)
        self.from_daemon = Lines(LINE_LIMIT)
        self.to_client = bytearray()
        self.to_daemon = bytearray()
        self.conversation = Conversation()

    def run(self) -> None:
        """Relay until the client has closed its end and got all answers, or reads no more.

        While no daemon can be reached, the client's requests are refused.

        Raises:
            DaemonError: No daemon can be reached, and there is nothing left to wait for (see `refuse_unanswered`).
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
        """Connect to a daemon, and relay until the client is done.

        Requests that the previous daemon did not answer are repeated first.

        Raises:
            DaemonError, OSError: No daemon can be reached.
            ConnectionError, EOFError: The daemon ended.
        """
        daemon, _ = daemon_connection.connect_and_greet(self.home, "relay", self.id)
        with daemon:
            self.from_daemon = Lines(LINE_LIMIT)
            self.to_daemon = bytearray(self.conversation.repeat())
            self.to_client += self.conversation.cancel_server_requests()
            self.pass_lines(daemon)

    def refuse_unanswered(self, reason: str) -> None:
        """Answer all unanswered requests with an error.

        Block until the client sends another request.

        Args:
            reason: Why no daemon can be reached.

        Raises:
            DaemonError: The client's first request was refused, or the client sends no more requests. In the first
                case the client's handshake has failed, and it will start another relay.
        """
        message = (
            f"{reason}\nforkjoin can't know whether this call was carried out. Correct the error above, then call "
            "list_agents."
        )
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
        """Pass lines both ways until the client is done, or reads no more.

        Raises:
            ConnectionError, EOFError: The daemon ended.
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
        """Block until a descriptor can be read or written.

        Return the events of poll(2) by descriptor.

        Nothing is read from one side while `_BACKLOG` bytes wait to be written to the other side.
        """
        poll = select.poll()
        from_daemon = select.POLLIN if len(self.to_client) < _BACKLOG else 0
        poll.register(daemon, from_daemon | (select.POLLOUT if self.to_daemon else 0))
        poll.register(self.sink, select.POLLOUT if self.to_client else 0)
        if self.source_open:
            poll.register(self.source, select.POLLIN if len(self.to_daemon) < _BACKLOG else 0)
        return dict(poll.poll())

    def read_client(self) -> None:
        """Read from the client, and queue its complete lines for the daemon."""
        chunk = os.read(self.source, _CHUNK)
        found = self.from_client.feed(chunk) if chunk else self.from_client.rest()
        self.source_open = bool(chunk)
        for _, line in found:
            if line is None:
                self.to_client += _TOO_LONG
            elif self.conversation.note_request(line):
                self.to_daemon += line + b"\n"

    def read_daemon(self, daemon: socket.socket) -> None:
        """Read from the daemon, and queue lines that the client has not got yet.

        Raises:
            EOFError: The daemon closed the connection.
        """
        chunk = daemon.recv(_CHUNK)
        if not chunk:
            raise EOFError
        for _, line in self.from_daemon.feed(chunk):
            if line is not None and not self.conversation.note_answer(line):
                self.to_client += line + b"\n"


class Conversation:
    """The part of the client's conversation that is repeated to a new daemon.

    An id is kept as JSON text.

    Attributes:
        unanswered: The line of each of the client's requests that has no answer, by the request's id.
        received: How many lines came from daemons, except answers that the client had already.
    """

    def __init__(self) -> None:
        self.unanswered: dict[str, bytes] = {}
        self.received = 0
        #: the client's lines `initialize`, by its id, and `notifications/initialized`, by an empty text
        self._handshake: dict[str, bytes] = {}
        #: ids of requests that a daemon answers only when the subscription ends
        self._subscriptions: set[str] = set()
        #: ids of the handshake requests that were repeated to this daemon although the client has an answer
        self._answered_before: set[str] = set()
        #: ids of the daemon's requests that the client has not answered
        self._from_daemon: set[str] = set()

    @property
    def is_owed(self) -> bool:
        """Whether a daemon owes the client an answer.

        The answer to a subscription doesn't count.
        """
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
        """Return lines that cancel the previous daemon's open requests to the client.

        The next daemon counts the ids of its requests from the same number, so an answer that came late would be taken
        for the answer to another request.
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
        """Record a line from the client. Return whether to send it to the daemon.

        An answer to a request that an earlier daemon sent is not sent on.
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
    """Return the JSON object in a line, or an empty dict if there is none.

    The daemon answers such a line with an error.
    """
    try:
        message: Any = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", message) if isinstance(message, dict) else {}


def _key(message: dict[str, Any]) -> str:
    """Return the message's id as JSON text, or an empty text if it has none."""
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
