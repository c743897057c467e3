"""The daemon's end of the socket: who may come in, what they say of themselves, and lines to and from JSON-RPC."""

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
from forkjoin.core.error import CallerError, ForkjoinError, is_passing, words_of
from forkjoin.core.line_reader import Lines
from forkjoin.core.paths import SOCKET, Home
from forkjoin.core.session import Hello, Session
from forkjoin.transport.connection_limits import ConnectionLimits, ConnectionQuota, error_response
from forkjoin.transport.daemon_connection import HELLO_LIMIT, peer_of
from forkjoin.version import PROTOCOL, __version__

log = logging.getLogger(__name__)

_HELLO_S = 10.0
#: How many connections wait to be let in, in order; with more than these, an agent could make a person wait for long.
_BACKLOG = 64
#: How long nobody is let in after one could not be.
_REST_S = 1.0
#: Of unix(7), since Linux 6.5; Python 3.11 has no name for it.
_SO_PEERPIDFD = 77
_GONE = "The process that connected has ended. Connect from the process that makes the calls."
#: Of an error that says what is wrong with a message.
_ERROR_CHARACTERS = 2000

#: What an error of ours in letting somebody in may be.
_OUR_FAULTS = (AssertionError, LookupError, TypeError, ValueError)

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]
#: Serves MCP to a session over two streams until the first is at its end.
Serve = Callable[[Session, Incoming, Outgoing], Awaitable[None]]
#: Returns the attempt that a process belongs to, if it belongs to one.
FindOwner = Callable[[int], Awaitable[str | None]]


@asynccontextmanager
async def bind(home: Home) -> AsyncGenerator[SocketListener]:
    """The daemon's socket, open to its owner alone. The process's working directory becomes the home's folder."""
    os.chdir(home.state)  # so that the socket's path is short, whatever the home's is
    (home.state / SOCKET).unlink(missing_ok=True)  # left by a daemon that was killed: we hold the lock
    async with await anyio.create_unix_listener(SOCKET, mode=0o600, backlog=_BACKLOG) as listener:
        try:
            yield listener
        finally:
            (home.state / SOCKET).unlink(missing_ok=True)


class SocketServer:
    """Lets connections in, one session each, and counts those that are there."""

    def __init__(self, serve: Serve, welcome: Callable[[Session], Awaitable[None]], find_owner: FindOwner) -> None:
        self._serve = serve
        self._welcome = welcome
        self._find_owner = find_owner
        self.connected = 0
        self._numbers = itertools.count(1)
        self._limits = ConnectionLimits()

    async def serve(self, listener: SocketListener, tasks: TaskGroup) -> None:
        """Let in whoever comes; while no descriptor is left for another, they wait at the door."""
        while True:
            try:
                stream = await listener.accept()
            except anyio.BrokenResourceError as error:
                if not is_passing(error):
                    raise
                log.warning("no connection can be let in now: %s", error.__cause__)
                await anyio.sleep(_REST_S)
            else:
                tasks.start_soon(self.handle, stream)

    async def handle(self, stream: SocketStream) -> None:
        """Serve one connection to its end; its trouble is its own."""
        self.connected += 1
        with daemon_log.concerning(connection=next(self._numbers)):
            try:
                async with stream:
                    await self._serve_connection(stream)
            except (anyio.BrokenResourceError, anyio.EndOfStream, ConnectionError, TimeoutError):
                log.info("a connection broke off")
            except Exception:  # a boundary: the other connections live on
                log.exception("a connection failed; its client connects again and repeats what had no answer")
            finally:
                self.connected -= 1

    async def _serve_connection(self, stream: SocketStream) -> None:
        connection = stream.extra(SocketAttribute.raw_socket)  # noqa: S610
        pid, user = peer_of(connection)
        if user != os.getuid():
            log.warning("user %d tried to connect, by process %d: refused", user, pid)
            return
        lines = _Reader(stream)
        with ExitStack() as let_in:
            try:
                session, quota = await self._let_in(connection, pid, lines, let_in)
            except CallerError as error:
                log.warning("refused process %d: %s", pid, error)
                refused = str(error)
            except _OUR_FAULTS as error:  # a boundary: the client would meet it again and again
                log.exception("process %d could not be let in", pid)
                refused = f"forkjoin failed ({words_of(error)}); forkjoin daemon logs says where"
            else:
                await _answer_hello(stream, ok=True)
                await _converse(stream, lines, session, quota, self._serve)
                return
        with self._limits.count_before_hello():
            await _refuse(stream, refused)

    async def _let_in(
        self, connection: socket.socket, pid: int, lines: "_Reader", held: ExitStack
    ) -> tuple[Session, ConnectionQuota]:
        """Read the hello and identify the caller. `held` counts the connection."""
        with anyio.fail_after(_HELLO_S):
            with self._limits.count_before_hello():
                hello = _parse_hello(await lines.next())
            quota = held.enter_context(self._limits.count_admitted(pid))
            async with quota.admission_lock:
                session = Session(hello, attempt=await _find_attempt(connection, pid, self._find_owner))
                await self._welcome(session)
        quota.assign(session.agent)
        lines.use(quota)
        return session, quota


async def _find_attempt(connection: socket.socket, pid: int, find_owner: FindOwner) -> str | None:
    """Return the attempt of the process that connected, despite any reuse of its pid.

    Raises:
        CallerError: That can't be told.
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
    """A descriptor of the process that connected, which is readable once that has ended; None if it has been reaped."""
    try:
        (peer,) = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, struct.calcsize("i")))
        return int(peer)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            return None
    with suppress(OSError):  # before Linux 6.5 its pid is all that is known
        return os.pidfd_open(pid)
    return None


class _Reader:
    """The lines that come over a connection; None for one that is longer than any message may be.

    The first line is a hello; those after it are messages, as an quota permits.
    """

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._lines = Lines(HELLO_LIMIT)
        self._found: Iterator[tuple[int, bytes | None]] = iter(())
        self._allowance: ConnectionQuota | None = None

    def use(self, quota: ConnectionQuota) -> None:
        """Read what follows as messages."""
        self._allowance = quota
        self._lines.limit = quota.line_limit

    async def next(self) -> bytes | None:
        while True:
            for _, line in self._found:
                if self._allowance:
                    self._allowance.record_incomplete(0)
                return line
            if self._allowance and not self._allowance.record_incomplete(self._lines.held):
                self._lines.drop()
                self._allowance.record_incomplete(0)
            self._found = self._lines.feed(await self._stream.receive())


def _parse_hello(line: bytes | None) -> Hello:
    if line is None:
        raise CallerError("the hello is longer than 1 MB")
    try:
        hello = Hello.model_validate(json.loads(line))
    except (ValueError, RecursionError) as error:
        what = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "it is no JSON"}
        where = ".".join(map(str, what["loc"]))
        raise CallerError(f"the hello was not understood: {where} {what['msg']}".replace("  ", " ")) from error
    if hello.protocol > PROTOCOL:  # all that is older is served
        raise CallerError(
            f"this daemon (forkjoin {__version__}) speaks protocol {PROTOCOL} at most, not {hello.protocol}; "
            "end it with `forkjoin daemon stop` (agents go on), and call again"
        )
    return hello


async def _answer_hello(stream: SocketStream, **answer: object) -> None:
    """Answer a hello, and say of which version we are: a newer relay ends an older daemon, be it a yes or a no."""
    about = {"version": __version__, "protocol": PROTOCOL, "pid": os.getpid()}
    await stream.send(json.dumps({**answer, **about}).encode() + b"\n")


async def _refuse(stream: SocketStream, why: str) -> None:
    """Say why not, and take what the other end is still sending: else the answer would be lost with the connection."""
    await _answer_hello(stream, ok=False, error=why)
    with anyio.move_on_after(_HELLO_S), suppress(anyio.EndOfStream):
        while True:
            await stream.receive()


async def _converse(
    stream: SocketStream, lines: _Reader, session: Session, quota: ConnectionQuota, serve: Serve
) -> None:
    """Pass messages between the socket and `serve` until the other end closes."""
    to_serve, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_serve = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_write, stream, session, quota, from_serve)
        tasks.start_soon(_read, lines, session, quota, to_serve, outgoing.clone())
        async with incoming, outgoing:
            await serve(session, incoming, outgoing)
        tasks.cancel_scope.cancel()


async def _read(
    lines: _Reader,
    session: Session,
    quota: ConnectionQuota,
    to_serve: MemoryObjectSendStream[SessionMessage | Exception],
    refuse: Outgoing,
) -> None:
    async with to_serve, refuse:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):  # the other end is gone, or does not listen
            while True:
                line = await lines.next()
                message = _parse(line, quota.line_limit)
                if isinstance(message, SessionMessage):
                    message = quota.begin_request(message.message, len(line or b"")) or message
                if isinstance(message, SessionMessage):
                    await to_serve.send(message)
                elif message is not None:
                    await refuse.send(SessionMessage(message))
        session.closed = True


def _parse(line: bytes | None, limit: int) -> SessionMessage | types.JSONRPCError | None:
    """The message in a line; or the error to answer it with; or nothing, in a blank one."""
    if line is None:
        why = f"a message may have {limit // 1024 // 1024} MB at most, and less where much is under way"
        return error_response(None, types.INVALID_REQUEST, why)
    if not line.strip():
        return None
    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError):
        return error_response(None, types.PARSE_ERROR, "that is no JSON")
    with suppress(ValidationError):
        message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        if isinstance(message, types.JSONRPCRequest | types.JSONRPCNotification) or "method" not in content:
            return SessionMessage(message)  # a request that holds a result as well is neither
    identity: Any = cast("dict[str, Any]", content).get("id") if isinstance(content, dict) else None
    known = identity if isinstance(identity, str | int) and not isinstance(identity, bool) else None
    return error_response(known, types.INVALID_REQUEST, "this is not a JSON-RPC 2.0 message")


async def _write(
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
                _bound(message.error)
            data = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
            try:
                await stream.send(data)
            except anyio.BrokenResourceError:  # the other end is gone, as the reader will find
                return
            try:
                await session.note_written(_written(message))
            except ForkjoinError as error:  # it is told once more
                log.warning("that an answer was written could not be recorded: %s", error)


def _written(message: types.JSONRPCMessage) -> str | int | None:
    """What the session knows an answer by that was written: its request's id, or its task's, where that was told of."""
    if isinstance(message, types.JSONRPCResponse):
        return message.id
    if isinstance(message, types.JSONRPCNotification) and message.method == "notifications/tasks":
        return cast("str", (message.params or {}).get("taskId"))
    return None


def _bound(error: types.ErrorData) -> None:
    """Cut what an error repeats of the request: a method's name may have megabytes."""
    error.message = error.message[:_ERROR_CHARACTERS]
    if error.data is not None and len(json.dumps(error.data, default=str)) > _ERROR_CHARACTERS:
        error.data = None
