"""The daemon's socket server, which passes messages between each connection and its MCP session."""

import errno
import itertools
import json
import logging
import os
import select
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, cast

import anyio
import mcp_types as types
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from forkjoin.core import daemon_log
from forkjoin.core.error import CallerError, ForkjoinError, describe_error, is_transient
from forkjoin.core.line_reader import Lines
from forkjoin.core.paths import SOCKET, Home
from forkjoin.core.session import Hello, Session
from forkjoin.transport.connection_limits import ConnectionLimits, ConnectionQuota, error_response
from forkjoin.transport.daemon_connection import HELLO_LIMIT, peer_of
from forkjoin.version import PROTOCOL, __version__

log = logging.getLogger(__name__)

#: Seconds in which a hello must arrive and be answered.
_HELLO_S = 10.0
#: Maximal connections that wait to be accepted. Behind more connections of an agent, a person would wait longer.
_BACKLOG = 64
#: Seconds until the next try after a connection could not be accepted.
_RETRY_S = 1.0
#: A socket option of unix(7) since Linux 6.5. Python 3.11 has no constant for it.
_SO_PEERPIDFD = 77
_PEER_ENDED = "The process that connected has ended. Connect from the process that makes the calls."
#: Maximal characters of an error message, and of its data. Both may repeat a part of the request.
_ERROR_LENGTH = 2000
#: Exceptions that, while a connection is admitted, only a bug of forkjoin's raises.
_BUGS = (AssertionError, LookupError, TypeError, ValueError)

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]
#: A function that serves MCP to a session: it reads messages from the first stream until that ends, and sends answers
#: to the second one.
Serve = Callable[[Session, Incoming, Outgoing], Awaitable[None]]
#: A function that returns the handle of the attempt that a process belongs to, or `None`.
FindOwner = Callable[[int], Awaitable[str | None]]


@asynccontextmanager
async def bind(home: Home) -> AsyncGenerator[SocketListener]:
    """Listen on the home's socket, which only the user can connect to.

    The socket is removed at the end.

    Changes the working directory to the home.
    """
    os.chdir(home.state)  # the home's path may be longer than a socket's address allows (108 bytes, unix(7))
    (home.state / SOCKET).unlink(missing_ok=True)  # a killed daemon leaves its socket, and bind(2) fails if it exists
    async with await anyio.create_unix_listener(SOCKET, mode=0o600, backlog=_BACKLOG) as listener:
        try:
            yield listener
        finally:
            (home.state / SOCKET).unlink(missing_ok=True)


class SocketServer:
    """A server that admits connections, and serves MCP to each in a session of its own.

    Attributes:
        connected: How many connections are open, those that have sent no hello included.
    """

    def __init__(self, serve: Serve, authenticate: Callable[[Session], Awaitable[None]], find_owner: FindOwner) -> None:
        """Make a server. `authenticate` sets `Session.agent`, or raises `CallerError`."""
        self._serve = serve
        self._authenticate = authenticate
        self._find_owner = find_owner
        self.connected = 0
        self._numbers = itertools.count(1)
        self._limits = ConnectionLimits()

    async def serve(self, listener: SocketListener, tasks: TaskGroup) -> None:
        """Accept connections until cancelled, and serve each in a task of `tasks`.

        While the daemon has no free file descriptor, new connections wait until others are closed.
        """
        while True:
            try:
                stream = await listener.accept()
            except anyio.BrokenResourceError as error:
                if not is_transient(error):
                    raise
                log.warning("no connection can be accepted now: %s", error.__cause__)
                await anyio.sleep(_RETRY_S)
            else:
                tasks.start_soon(self.handle, stream)

    async def handle(self, stream: SocketStream) -> None:
        """Serve one connection until it is closed.

        Its errors are logged, and don't affect other connections.
        """
        self.connected += 1
        with daemon_log.concerning(connection=next(self._numbers)):
            try:
                async with stream:
                    await self._serve_connection(stream)
            except (anyio.BrokenResourceError, anyio.EndOfStream, ConnectionError, TimeoutError):
                log.info("a connection was lost")
            except Exception:  # a boundary: a raised error would end all connections of the task group
                log.exception("a connection failed; its client will reconnect and repeat unanswered requests")
            finally:
                self.connected -= 1

    async def _serve_connection(self, stream: SocketStream) -> None:
        """Admit a connection and serve it, or refuse it with the reason."""
        connection = stream.extra(SocketAttribute.raw_socket)  # noqa: S610
        pid, user = peer_of(connection)
        if user != os.getuid():
            log.warning("refused process %d of user %d", pid, user)
            return
        lines = _LineReader(stream)
        with ExitStack() as admitted:
            try:
                session, quota = await self._admit(connection, pid, lines, admitted)
            except CallerError as error:
                log.warning("refused process %d: %s", pid, error)
                refused = str(error)
            except _BUGS as error:  # a boundary: without an answer, the client would connect again and again
                log.exception("process %d could not be admitted", pid)
                refused = f"forkjoin failed ({describe_error(error)}). See forkjoin daemon logs"
            else:
                await _answer_hello(stream, ok=True)
                await _exchange_messages(stream, lines, session, quota, self._serve)
                return
        with self._limits.count_before_hello():
            await _refuse(stream, refused)

    async def _admit(
        self, connection: socket.socket, pid: int, lines: "_LineReader", admitted: ExitStack
    ) -> tuple[Session, ConnectionQuota]:
        """Read the hello and authenticate the caller.

        Args:
            pid: The pid of the process that connected.
            admitted: Until this stack is closed, the connection counts against the limits.

        Returns: The session, and the quota of the connection.

        Raises:
            CallerError: The caller is refused.
            TimeoutError: The hello did not arrive, or could not be handled, within `_HELLO_S` seconds.
        """
        with anyio.fail_after(_HELLO_S):
            with self._limits.count_before_hello():
                hello = _parse_hello(await lines.next())
            quota = admitted.enter_context(self._limits.count_admitted(pid))
            async with quota.admission_lock:
                session = Session(hello, attempt=await _find_attempt(connection, pid, self._find_owner))
                await self._authenticate(session)
        quota.assign(session.agent)
        lines.use(quota)
        return session, quota


async def _find_attempt(connection: socket.socket, pid: int, find_owner: FindOwner) -> str | None:
    """Return the handle of the connected process's attempt, or `None`.

    Raises:
        CallerError: The process is in another PID namespace, or has ended: then `pid` may be another process by now.
    """
    if not pid:
        raise CallerError(
            "forkjoin can't see this process, which is in another PID namespace. Call from the daemon's PID namespace."
        )
    peer = _open_peer(connection, pid)
    if peer is None:
        raise CallerError(_PEER_ENDED)
    try:
        attempt = await find_owner(pid)
        ended = select.poll()
        ended.register(peer, select.POLLIN)
        if ended.poll(0):  # a pidfd is readable once its process has ended (pidfd_open(2))
            raise CallerError(_PEER_ENDED)
    finally:
        os.close(peer)
    return attempt


def _open_peer(connection: socket.socket, pid: int) -> int | None:
    """Return a pidfd of the connected process, or `None` if it has ended."""
    try:
        (peer,) = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, struct.calcsize("i")))
        return int(peer)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return None
    with suppress(OSError):  # before Linux 6.5, sockets have no SO_PEERPIDFD
        return os.pidfd_open(pid)
    return None


class _LineReader:
    """A reader of the lines of one connection: first a hello, then messages within a quota."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._lines = Lines(HELLO_LIMIT)
        self._found: Iterator[tuple[int, bytes | None]] = iter(())
        self._quota: ConnectionQuota | None = None

    def use(self, quota: ConnectionQuota) -> None:
        """Count the following lines against this quota, no longer as a hello."""
        self._quota = quota
        self._lines.limit = quota.line_limit

    async def next(self) -> bytes | None:
        """Return the next line, or `None` if that line is too long.

        The rest of such a line is skipped.

        Raises:
            anyio.EndOfStream: The other end has closed the connection.
        """
        while True:
            for _, line in self._found:
                if self._quota:
                    self._quota.record_incomplete(0)
                return line
            if self._quota and not self._quota.record_incomplete(self._lines.held):
                self._lines.drop()
                self._quota.record_incomplete(0)
            self._found = self._lines.feed(await self._stream.receive())


def _parse_hello(line: bytes | None) -> Hello:
    """Return the hello in a line, which is `None` if it was too long.

    Raises:
        CallerError: The hello is too long, invalid, or of a newer protocol than this daemon's.
    """
    if line is None:
        raise CallerError("the hello is longer than 1 MB. Unset large environment variables")
    try:
        hello = Hello.model_validate(json.loads(line))
    except (ValueError, RecursionError) as error:
        what = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "not JSON"}
        where = ".".join(map(str, what["loc"]))
        raise CallerError(f"the hello is invalid: {where} {what['msg']}".replace("  ", " ")) from error
    if hello.protocol > PROTOCOL:
        raise CallerError(
            f"this daemon (forkjoin {__version__}) knows protocols up to {PROTOCOL}, not {hello.protocol}. "
            "Stop it with `forkjoin daemon stop` (agents go on), and call again"
        )
    return hello


async def _answer_hello(stream: SocketStream, **answer: object) -> None:
    """Answer a hello.

    Every answer contains this daemon's version, by which a newer relay or command recognizes a daemon to replace.
    """
    about = {"version": __version__, "protocol": PROTOCOL, "pid": os.getpid()}
    await stream.send(json.dumps({**answer, **about}).encode() + b"\n")


async def _refuse(stream: SocketStream, why: str) -> None:
    """Answer a hello with an error, then discard input for `_HELLO_S` seconds at most.

    If the connection were closed while data is unread, the client might not receive the answer.
    """
    await _answer_hello(stream, ok=False, error=why)
    with anyio.move_on_after(_HELLO_S), suppress(anyio.EndOfStream):
        while True:
            await stream.receive()


async def _exchange_messages(
    stream: SocketStream, lines: _LineReader, session: Session, quota: ConnectionQuota, serve: Serve
) -> None:
    """Pass messages between the socket and `serve` until the client disconnects."""
    to_serve, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_serve = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_send_messages, stream, session, quota, from_serve)
        tasks.start_soon(_receive_messages, lines, session, quota, to_serve, outgoing.clone())
        async with incoming, outgoing:
            await serve(session, incoming, outgoing)
        tasks.cancel_scope.cancel()


async def _receive_messages(
    lines: _LineReader,
    session: Session,
    quota: ConnectionQuota,
    to_serve: MemoryObjectSendStream[SessionMessage | Exception],
    refuse: Outgoing,
) -> None:
    """Pass messages to `to_serve`, and answers to refused ones to `refuse`.

    Returns when the client has disconnected, which is recorded in the session.
    """
    async with to_serve, refuse:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):  # raised when the client has disconnected
            while True:
                line = await lines.next()
                message = _parse_message(line, quota.line_limit)
                if isinstance(message, SessionMessage):
                    message = quota.begin_request(message.message, len(line or b"")) or message
                if isinstance(message, SessionMessage):
                    await to_serve.send(message)
                elif message is not None:
                    await refuse.send(SessionMessage(message))
        session.closed = True


def _parse_message(line: bytes | None, limit: int) -> SessionMessage | types.JSONRPCError | None:
    """Return the message in a line, an error response, or `None` for a blank line.

    Args:
        line: `None` if the line was too long.
        limit: The maximal bytes of a message, for the error.
    """
    if line is None:
        why = f"a message may have at most {limit // 1024 // 1024} MB, and less while many requests are unanswered"
        return error_response(None, types.INVALID_REQUEST, why)
    if not line.strip():
        return None
    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError):
        return error_response(None, types.PARSE_ERROR, "the message is not JSON")
    with suppress(ValidationError):
        message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        if isinstance(message, types.JSONRPCRequest | types.JSONRPCNotification) or "method" not in content:
            return SessionMessage(message)  # the condition is false for a response that has a method, which is invalid
    given: Any = cast("dict[str, Any]", content).get("id") if isinstance(content, dict) else None
    request_id = given if isinstance(given, str | int) and not isinstance(given, bool) else None
    return error_response(request_id, types.INVALID_REQUEST, "the message is not a JSON-RPC 2.0 message")


async def _send_messages(
    stream: SocketStream,
    session: Session,
    quota: ConnectionQuota,
    messages: MemoryObjectReceiveStream[SessionMessage],
) -> None:
    """Send the session's messages to the client.

    Once an answer is written, the session is told so.

    Returns when there are no more messages, or the client has disconnected.
    """
    async with messages:
        async for sent in messages:
            message = sent.message
            if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
                quota.end_request(message.id)
            if isinstance(message, types.JSONRPCError):
                _shorten_error(message.error)
            data = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
            try:
                await stream.send(data)
            except anyio.BrokenResourceError:  # the client has disconnected, so `_receive_messages` also returns
                return
            try:
                # A client that disconnects as soon as it has the answer cancels this task, too early without a shield.
                with anyio.CancelScope(shield=True):
                    await session.note_written(_reply_key(message))
            except ForkjoinError as error:  # a later wait then reports the agents of this answer once more
                log.warning("could not record that an answer was written: %s", error)


def _reply_key(message: types.JSONRPCMessage) -> str | int | None:
    """Return the id of the answered request, or of the task in a notification.

    Return `None` if the message is neither.
    """
    if isinstance(message, types.JSONRPCResponse):
        return message.id
    if isinstance(message, types.JSONRPCNotification) and message.method == "notifications/tasks":
        return cast("str", (message.params or {}).get("taskId"))
    return None


def _shorten_error(error: types.ErrorData) -> None:
    """Cut the error's message, and remove long data.

    Both may repeat a part of a request of megabytes.
    """
    error.message = error.message[:_ERROR_LENGTH]
    if error.data is not None and len(json.dumps(error.data, default=str)) > _ERROR_LENGTH:
        error.data = None
