"""Limits on connections: how many there are, and how many bytes they may hold.

An agent's program may open as many connections as it likes, and leave each line half sent. It is bounded with all
others of its agent, and all agents together, so that a person always gets in.
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

#: Connections that have not said hello, or were refused: of more than these the oldest is closed.
_UNGREETED = 64
#: Connections of one process, of one agent, and of all agents.
_OF_PROCESS, _OF_AGENT, _OF_AGENTS = 64, 32, 1024
#: Requests of one connection that have no answer yet; of an agent's connection.
_REQUESTS, _REQUESTS_OF_AGENT = 1000, 32
#: Bytes of a message from an agent that may spawn none: the others send tasks.
_LINE_OF_AGENT = 4 * 1024 * 1024
#: Bytes that a process of no agent may hold in messages, one agent, and all agents: in lines that are half sent, and
#: requests without an answer.
_HELD, _HELD_BY_AGENT, _HELD_BY_AGENTS = 4 * LINE_LIMIT, LINE_LIMIT, 2 * LINE_LIMIT
#: Bytes that each connection may hold beside that: a short message always gets through.
_FREE = 64 * 1024


class ConnectionLimits:
    """The connections of one daemon, and what they hold."""

    def __init__(self) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_ungreeted = min(_UNGREETED, files // 8)
        self._most_of_agents = min(_OF_AGENTS, files // 2)
        self._ungreeted: dict[CancelScope, None] = {}
        self._let_in: dict[ConnectionQuota, None] = {}

    @contextmanager
    def count_before_hello(self) -> Generator[None]:
        """Count a connection before its hello. Close the oldest if there are too many.

        Raises:
            ConnectionAbortedError: It was this one.
        """
        with CancelScope() as scope:
            self._ungreeted[scope] = None
            if len(self._ungreeted) > self._most_ungreeted:
                oldest = next(iter(self._ungreeted))
                del self._ungreeted[oldest]
                oldest.cancel()
            try:
                yield
            finally:
                self._ungreeted.pop(scope, None)
        if scope.cancelled_caught:
            raise ConnectionAbortedError

    @contextmanager
    def count_admitted(self, process: int) -> Generator["ConnectionQuota"]:
        """Count a process's connection from its hello until it is closed.

        Raises:
            CallerError: The process has as many as it may.
        """
        known = process != 0  # else it is in a container of its own
        if known and sum(one.process == process for one in self._let_in) >= _OF_PROCESS:
            raise CallerError(
                f"process {process} has {_OF_PROCESS} connections, which is the limit. Close some of them"
            )
        turns = (one.admission_lock for one in self._let_in if one.process == process)
        quota = ConnectionQuota(self, process, next(turns, None) or Lock())
        self._let_in[quota] = None
        try:
            yield quota
        finally:
            del self._let_in[quota]

    def check_room_for(self, agent: Agent) -> None:
        """Raise `CallerError` if an agent, or agents as a whole, have as many connections as they may."""
        if sum(one.owner == agent.id for one in self._let_in) >= _OF_AGENT:
            raise CallerError(
                f"agent {agent.label} has {_OF_AGENT} connections, which is the limit. Close some of them"
            )
        if sum(one.agent is not None for one in self._let_in) >= self._most_of_agents:
            raise CallerError(f"agents have {self._most_of_agents} connections, which is the limit. Call again later")

    def is_within_limits(self, quota: "ConnectionQuota") -> bool:
        """Whether the owner of a connection, and agents as a whole, hold no more than they may."""
        own = sum(one.counted_bytes for one in self._let_in if one.owner == quota.owner)
        if quota.agent is None:
            return own <= _HELD
        return own <= _HELD_BY_AGENT and sum(one.counted_bytes for one in self._let_in if one.agent) <= _HELD_BY_AGENTS


@dataclass(slots=True, eq=False)
class ConnectionQuota:
    """What one connection may hold, and does.

    Attributes:
        half_sent: Bytes of the line that has no end yet.
        requests: The size of each request that has no answer yet, by its id.
    """

    limits: ConnectionLimits
    process: int
    admission_lock: Lock  #: held while it is let in, so that of one process nobody waits behind many
    agent: Agent | None = None
    half_sent: int = 0
    requests: dict[str, int] = field(default_factory=dict[str, int])

    def assign(self, agent: Agent | None) -> None:
        """Let the connection be an agent's, if it is one's.

        Raises:
            CallerError: The agent, or agents as a whole, have as many connections as they may.
        """
        if agent:
            self.limits.check_room_for(agent)
        self.agent = agent

    @property
    def owner(self) -> str | int:
        """Who is accountable for it: an agent, or else a process."""
        return self.agent.id if self.agent else self.process

    @property
    def line_limit(self) -> int:
        """Return the most bytes that a message may have."""
        return _LINE_OF_AGENT if self.agent and not self.agent.spec.nesting else LINE_LIMIT

    @property
    def counted_bytes(self) -> int:
        """The bytes that count: a connection may hold some beside."""
        return max(0, self.half_sent + sum(self.requests.values()) - _FREE)

    def record_incomplete(self, half_sent: int) -> bool:
        """Record the length of an incomplete line. Return whether it fits."""
        self.half_sent = half_sent
        return half_sent <= _FREE or self.limits.is_within_limits(self)

    def begin_request(self, message: types.JSONRPCMessage, size: int) -> types.JSONRPCError | None:
        """Record a message. Return an error response if a request doesn't fit."""
        if isinstance(message, types.JSONRPCNotification) and message.method == "notifications/cancelled":
            self.end_request((message.params or {}).get("requestId"))  # it gets no answer
        if not isinstance(message, types.JSONRPCRequest):
            return None
        most = _REQUESTS_OF_AGENT if self.agent else _REQUESTS
        if str(message.id) in self.requests:
            return error_response(None, types.INVALID_REQUEST, f"request {str(message.id)[:80]} has no answer yet")
        if len(self.requests) >= most:
            return error_response(
                message.id,
                types.INTERNAL_ERROR,
                f"{most} requests have no answer yet, which is the limit. Wait for some answers first",
            )
        self.requests[str(message.id)] = size
        if size > _FREE and not self.limits.is_within_limits(self):
            self.end_request(message.id)
            return error_response(message.id, types.INTERNAL_ERROR, "too much is under way: wait for answers first")
        return None

    def end_request(self, request: object) -> None:
        """Note that a request was answered, or cancelled."""
        self.requests.pop(str(request), None)


def error_response(identity: str | int | None, code: int, why: str) -> types.JSONRPCError:
    """Return the error response to a message that is not passed on."""
    return types.JSONRPCError(jsonrpc="2.0", id=identity, error=types.ErrorData(code=code, message=why))
