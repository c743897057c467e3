"""Limits on connections: how many may be open, and how many bytes of unanswered messages they may hold.

An agent's program may open many connections and send only half of each line. Limits for each agent, and for all agents
together, ensure that a person can always connect.
"""

import resource
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mcp_types as types
from anyio import CancelScope, Lock

from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.transport.daemon_connection import LINE_LIMIT

#: Maximal connections that have not sent a hello, or whose hello was refused. When one more is opened, the oldest is
#: closed.
_BEFORE_HELLO = 64
#: Maximal admitted connections of one process, of one agent, and of all agents together.
_OF_PROCESS, _OF_AGENT, _OF_AGENTS = 64, 32, 1024
#: Maximal unanswered requests on one connection: of a lead or person, and of an agent.
_REQUESTS, _REQUESTS_OF_AGENT = 1000, 32
#: Maximal bytes of a message from an agent that can't spawn agents. Other callers send tasks, which may be longer.
_LINE_OF_AGENT = 4 * 1024 * 1024
#: Maximal bytes of incomplete lines and unanswered requests: of one process that belongs to no agent, of one agent, and
#: of all agents together.
_HELD, _HELD_BY_AGENT, _HELD_BY_AGENTS = 4 * LINE_LIMIT, LINE_LIMIT, 2 * LINE_LIMIT
#: Bytes that each connection may hold without being counted, so that a short message always gets through.
_FREE = 64 * 1024


class ConnectionLimits:
    """The limits of one daemon, and its open connections."""

    def __init__(self) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_before_hello = min(_BEFORE_HELLO, files // 8)
        self._most_of_agents = min(_OF_AGENTS, files // 2)
        self._before_hello: dict[CancelScope, None] = {}
        self._admitted: dict[ConnectionQuota, None] = {}

    @contextmanager
    def count_before_hello(self) -> Generator[None]:
        """Count a connection without an accepted hello while the context is open.

        If there are too many such connections, the context of the oldest one is cancelled.

        Raises:
            ConnectionAbortedError: This context was cancelled because newer connections were opened.
        """
        with CancelScope() as scope:
            self._before_hello[scope] = None
            if len(self._before_hello) > self._most_before_hello:
                oldest = next(iter(self._before_hello))
                del self._before_hello[oldest]
                oldest.cancel()
            try:
                yield
            finally:
                self._before_hello.pop(scope, None)
        if scope.cancelled_caught:
            raise ConnectionAbortedError

    @contextmanager
    def count_admitted(self, process: int) -> Generator["ConnectionQuota"]:
        """Count a connection of the process with this pid while the context is open.

        Yield the connection's quota.

        Raises:
            CallerError: The process has too many connections.
        """
        has_pid = process != 0  # unix(7) gives pid 0 to every process of another PID namespace
        if has_pid and sum(other.process == process for other in self._admitted) >= _OF_PROCESS:
            raise CallerError(
                f"process {process} has {_OF_PROCESS} connections, which is the limit. Close some of them"
            )
        locks = (other.admission_lock for other in self._admitted if other.process == process)
        quota = ConnectionQuota(self, process, next(locks, None) or Lock())
        self._admitted[quota] = None
        try:
            yield quota
        finally:
            del self._admitted[quota]

    def check_room_for(self, agent: Agent) -> None:
        """Raise `CallerError` if this agent, or all agents, have too many connections."""
        if sum(other.owner == agent.id for other in self._admitted) >= _OF_AGENT:
            raise CallerError(
                f"agent {agent.label} has {_OF_AGENT} connections, which is the limit. Close some of them"
            )
        if sum(other.agent is not None for other in self._admitted) >= self._most_of_agents:
            raise CallerError(f"agents have {self._most_of_agents} connections, which is the limit. Call again later")

    def is_within_limits(self, quota: "ConnectionQuota") -> bool:
        """Return whether the owner of this connection holds no more bytes than it may.

        If the owner is an agent, all agents together must not hold too many bytes either.
        """
        own = sum(other.counted_bytes for other in self._admitted if other.owner == quota.owner)
        if quota.agent is None:
            return own <= _HELD
        return (
            own <= _HELD_BY_AGENT
            and sum(other.counted_bytes for other in self._admitted if other.agent) <= _HELD_BY_AGENTS
        )


@dataclass(slots=True, eq=False)
class ConnectionQuota:
    """The bytes that one admitted connection holds, and may hold.

    Attributes:
        process: The pid of the process that connected.
        admission_lock: Held while a connection is admitted. All connections of a process share one lock, so that a
            process that opens many connections delays no other process.
        agent: The agent that the connection belongs to. `None` for a lead or a person.
        incomplete: Bytes received of a line that has not ended yet.
        requests: Bytes of each unanswered request, by the request's id.
    """

    limits: ConnectionLimits
    process: int
    admission_lock: Lock
    agent: Agent | None = None
    incomplete: int = 0
    requests: dict[str, int] = field(default_factory=dict[str, int])

    def assign(self, agent: Agent | None) -> None:
        """Set the agent that the connection belongs to, `None` for a lead or a person.

        Raises:
            CallerError: The agent, or all agents together, have too many connections.
        """
        if agent:
            self.limits.check_room_for(agent)
        self.agent = agent

    @property
    def owner(self) -> str | int:
        """The agent's id, or the pid of a process that belongs to no agent.

        Bytes are summed per owner.
        """
        return self.agent.id if self.agent else self.process

    @property
    def line_limit(self) -> int:
        """Maximal bytes of a message on this connection."""
        return _LINE_OF_AGENT if self.agent and not self.agent.spec.nesting else LINE_LIMIT

    @property
    def counted_bytes(self) -> int:
        """The held bytes, less those that each connection may hold uncounted."""
        return max(0, self.incomplete + sum(self.requests.values()) - _FREE)

    def record_incomplete(self, incomplete: int) -> bool:
        """Record how many bytes of an incomplete line are held.

        Return whether the limits allow that many.
        """
        self.incomplete = incomplete
        return incomplete <= _FREE or self.limits.is_within_limits(self)

    def begin_request(self, message: types.JSONRPCMessage, size: int) -> types.JSONRPCError | None:
        """Count a request of `size` bytes until it is answered or cancelled.

        Returns: The error response to send if the request's id is in use, or the request exceeds a limit. `None` if the
        message can be passed on.
        """
        if isinstance(message, types.JSONRPCNotification) and message.method == "notifications/cancelled":
            self.end_request((message.params or {}).get("requestId"))  # since no answer will end this request
        if not isinstance(message, types.JSONRPCRequest):
            return None
        most = _REQUESTS_OF_AGENT if self.agent else _REQUESTS
        if str(message.id) in self.requests:
            return error_response(
                None,
                types.INVALID_REQUEST,
                f"request id {str(message.id)[:80]} is in use by a request without an answer. Use another id",
            )
        if len(self.requests) >= most:
            return error_response(
                message.id,
                types.INTERNAL_ERROR,
                f"{most} requests have no answer yet, which is the limit. Wait for some answers first",
            )
        self.requests[str(message.id)] = size
        if size > _FREE and not self.limits.is_within_limits(self):
            self.end_request(message.id)
            return error_response(
                message.id,
                types.INTERNAL_ERROR,
                "the unanswered requests of this caller take too much memory. Wait for some answers first",
            )
        return None

    def end_request(self, request: object) -> None:
        """Stop counting the request with this id, which was answered or cancelled."""
        self.requests.pop(str(request), None)


def error_response(request_id: str | int | None, code: int, message: str) -> types.JSONRPCError:
    """Return a JSON-RPC error response.

    `request_id` is `None` if the message's id is unknown or in use.
    """
    return types.JSONRPCError(jsonrpc="2.0", id=request_id, error=types.ErrorData(code=code, message=message))
