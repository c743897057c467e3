"""The daemon's socket: it admits connections, and passes JSON-RPC messages between each and its MCP session."""

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
#: Length of the kernel's queue of connections. With a longer one an agent could make a person wait for long.
_BACKLOG = 64
#: Seconds until the next try after a connection could not be accepted.
_RETRY_S = 1.0
#: A socket option of unix(7) since Linux 6.5. Python 3.11 has no constant for it.
_SO_PEERPIDFD = 77
_GONE = "The process that connected has ended. Connect from the process that makes the calls."
#: Maximal characters of an error message, which may repeat a part of the request.
_ERROR_LENGTH = 2000

#: Exceptions that are bugs of forkjoin's when a connection is admitted.
_BUGS = (AssertionError, LookupError, TypeError, ValueError)

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]
#: A function that serves MCP to a session over two streams until the first one ends.
Serve = Callable[[Session, Incoming, Outgoing], Awaitable[None]]
#: A function that returns the handle of the attempt that a process belongs to, or `None`.
FindOwner = Callable[[int], Awaitable[str | None]]


@asynccontextmanager
async def bind(home: Home) -> AsyncGenerator[SocketListener]:
    """Listen on the daemon's socket, which only its owner can connect to.

    Changes the working directory to the home.
    """
    os.chdir(home.state)  # a socket's path must be short, and the home's may be long
    (home.state / SOCKET).unlink(missing_ok=True)  # left by a killed daemon; this one holds the lock
    async with await anyio.create_unix_listener(SOCKET, mode=0o600, backlog=_BACKLOG) as listener:
        try:
            yield listener
        finally:
            (home.state / SOCKET).unlink(missing_ok=True)


class SocketServer:
    """Admits connections, and serves each as a session.

    Attributes:
        connected: Number of open connections.
    """

    def __init__(self, serve: Serve, welcome: Callable[[Session], Awaitable[None]], find_owner: FindOwner) -> None:
        self._serve = serve
        self._welcome = welcome
        self._find_owner = find_owner
        self.connected = 0
        self._numbers = itertools.count(1)
        self._limits = ConnectionLimits()

    async def serve(self, listener: SocketListener, tasks: TaskGroup) -> None:
        """Accept connections until cancelled.

        While no file descriptor is left, new connections wait.
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
        """Serve one connection until it ends. Its errors don't affect other connections."""
        self.connected += 1
        with daemon_log.concerning(connection=next(self._numbers)):
            try:
                async with stream:
                    await self._serve_connection(stream)
            except (anyio.BrokenResourceError, anyio.EndOfStream, ConnectionError, TimeoutError):
                log.info("a connection was lost")
            except Exception:  # a boundary: the other connections go on
                log.exception("a connection failed; its client will reconnect and repeat unanswered requests")
            finally:
                self.connected -= 1

    async def _serve_connection(self, stream: SocketStream) -> None:
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
            except _BUGS as error:  # a boundary: without an answer the client would try again and again
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
        """Read the hello and identify the caller.

        Args:
            admitted: Keeps the connection counted until it is closed.

        Raises:
            CallerError: The caller is refused.
        """
        with anyio.fail_after(_HELLO_S):
            with self._limits.count_before_hello():
                hello = _parse_hello(await lines.next())
            quota = admitted.enter_context(self._limits.count_admitted(pid))
            async with quota.admission_lock:
                session = Session(hello, attempt=await _find_attempt(connection, pid, self._find_owner))
                await self._welcome(session)
        quota.assign(session.agent)
        lines.use(quota)
        return session, quota


async def _find_attempt(connection: socket.socket, pid: int, find_owner: FindOwner) -> str | None:
    """Return the handle of the connected process's attempt, or `None`.

    Raises:
        CallerError: The process can't be seen from here, or has ended, so that its pid may be reused.
    """
    if not pid:
        raise CallerError(
            "forkjoin can't see this process, which is in another PID namespace. Call from the daemon's PID namespace."
        )
    peer = _open_peer(connection, pid)
    if peer is None:
        raise CallerError(_GONE)
    try:
        attempt = await find_owner(pid)
        ended = select.poll()
        ended.register(peer, select.POLLIN)
        if ended.poll(0):
            raise CallerError(_GONE)
    finally:
        os.close(peer)
    return attempt


def _open_peer(connection: socket.socket, pid: int) -> int | None:
    """Return a pidfd of the connected process, or `None` if the process is gone."""
    try:
        (peer,) = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, struct.calcsize("i")))
        return int(peer)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return None
    with suppress(OSError):  # before Linux 6.5 only the pid is known
        return os.pidfd_open(pid)
    return None


class _LineReader:
    """The lines that a connection receives: first a hello, then messages within a quota."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._lines = Lines(HELLO_LIMIT)
        self._found: Iterator[tuple[int, bytes | None]] = iter(())
        self._quota: ConnectionQuota | None = None

    def use(self, quota: ConnectionQuota) -> None:
        """Read the following lines as messages within this quota."""
        self._quota = quota
        self._lines.limit = quota.line_limit

    async def next(self) -> bytes | None:
        """Return the next line, or `None` in place of a line that is too long.

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
    if line is None:
        raise CallerError("the hello is longer than 1 MB. Unset large environment variables")
    try:
        hello = Hello.model_validate(json.loads(line))
    except (ValueError, RecursionError) as error:
        what = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "not JSON"}
        where = ".".join(map(str, what["loc"]))
        raise CallerError(f"the hello is invalid: {where} {what['msg']}".replace("  ", " ")) from error
    if hello.protocol > PROTOCOL:  # all older versions are served
        raise CallerError(
            f"this daemon (forkjoin {__version__}) knows protocols up to {PROTOCOL}, not {hello.protocol}. "
            "Stop it with `forkjoin daemon stop` (agents go on), and call again"
        )
    return hello


async def _answer_hello(stream: SocketStream, **answer: object) -> None:
    """Answer a hello.

    Every answer contains this daemon's version, because a newer relay ends an older daemon.
    """
    about = {"version": __version__, "protocol": PROTOCOL, "pid": os.getpid()}
    await stream.send(json.dumps({**answer, **about}).encode() + b"\n")


async def _refuse(stream: SocketStream, why: str) -> None:
    """Answer a hello with an error, and read what the client still sends.

    Closing a connection with unread data could discard the answer.
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
    async with to_serve, refuse:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):  # the client is gone
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
    """Return the message in a line, or `None` for a blank line.

    Returns an error response for an invalid line.
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
            return SessionMessage(message)  # a message with both method and result is invalid
    given: Any = cast("dict[str, Any]", content).get("id") if isinstance(content, dict) else None
    request_id = given if isinstance(given, str | int) and not isinstance(given, bool) else None
    return error_response(request_id, types.INVALID_REQUEST, "the message is not a JSON-RPC 2.0 message")


async def _send_messages(
    stream: SocketStream,
    session: Session,
    quota: ConnectionQuota,
    messages: MemoryObjectReceiveStream[SessionMessage],
) -> None:
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
            except anyio.BrokenResourceError:  # the client is gone, as the reader will notice
                return
            try:
                with anyio.CancelScope(shield=True):  # the client may close the connection once it has the answer
                    await session.note_written(_reply_key(message))
            except ForkjoinError as error:  # agents in the answer will be reported once more
                log.warning("could not record that an answer was written: %s", error)


def _reply_key(message: types.JSONRPCMessage) -> str | int | None:
    """Return the key under which the session knows an answer.

    The key is the request's id, or the id of a task in a notification. Return `None` for any other message.
    """
    if isinstance(message, types.JSONRPCResponse):
        return message.id
    if isinstance(message, types.JSONRPCNotification) and message.method == "notifications/tasks":
        return cast("str", (message.params or {}).get("taskId"))
    return None


def _shorten_error(error: types.ErrorData) -> None:
    """Shorten an error that repeats a part of the request, which may have megabytes."""
    error.message = error.message[:_ERROR_LENGTH]
    if error.data is not None and len(json.dumps(error.data, default=str)) > _ERROR_LENGTH:
        error.data = None
