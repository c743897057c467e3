"""How a tool call waits for its answer.

A call blocks and reports its progress to the client. A deferred call, which an MCP task stands for, checks once.
"""

import math
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from forkjoin.core.model import Agent
from forkjoin.store.mcp_tasks import McpTask
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR

T = TypeVar("T")

#: Seconds between two progress reports of a blocking call. A client may give up on a silent call.
PROGRESS_S = 10.0
#: Maximal characters of a progress report.
_PROGRESS_LENGTH = 300


class NoAnswerYetError(MCPError):
    """A call that must not block has no answer yet.

    Attributes:
        agents: The numbers of the agents that the call waits for.
    """

    def __init__(self, progress: str, agents: Sequence[Agent]) -> None:
        super().__init__(INTERNAL_ERROR, progress)
        self.agents = [agent.number for agent in agents]


@dataclass(frozen=True, slots=True)
class Deferral:
    """How a deferred call is made.

    Attributes:
        deferred: The record of the call, or `None` when it is made for the first time.
        notification: The key of the notification that will carry the answer. With it the call blocks. `None` if a
            reply carries the answer.
    """

    deferred: McpTask | None = None
    notification: str | None = None


_deferral: ContextVar[Deferral | None] = ContextVar("deferral", default=None)


@contextmanager
def deferring(deferral: Deferral) -> Generator[None]:
    """Make the calls in this context deferred ones."""
    token = _deferral.set(deferral)
    try:
        yield
    finally:
        _deferral.reset(token)


class ReplyWait:
    """The wait of one call for its answer."""

    def __init__(self, context: ServerRequestContext[Any, Any], show: Callable[[str], str]) -> None:
        deferral = _deferral.get()
        self.deferred = deferral.deferred if deferral else None
        self.notification = deferral.notification if deferral else None
        self._blocks = deferral is None or deferral.notification is not None
        self._session = context.session
        self._show = show
        self._reports_progress = deferral is None and "progress_token" in (context.meta or {})
        self._begun = time.monotonic()

    async def wait(
        self,
        agents: Sequence[Agent],
        ask: Callable[[float], Awaitable[T | None]],
        describe_progress: Callable[[], Awaitable[str]],
        timeout_s: float = math.inf,
    ) -> T | None:
        """Call `ask` until it returns an answer, or return `None` after `timeout_s`.

        The timeout of a deferred call is measured by the wall clock, which all daemons share, also after a reboot.

        Args:
            agents: The agents that the call waits for.
            ask: Gets the seconds that it may block, and returns `None` if there is no answer by then.

        Raises:
            NoAnswerYetError: There is no answer, and this call must not block.
        """
        until = self._begun + timeout_s - (max(0.0, time.time() - self.deferred.created) if self.deferred else 0)
        while True:
            left_s = max(0.0, until - time.monotonic())
            answer = await ask(min(left_s, PROGRESS_S) if self._blocks else 0)
            if answer is not None or left_s <= (PROGRESS_S if self._blocks else 0):
                return answer
            if not self._blocks:
                raise NoAnswerYetError(await self._shorten(describe_progress), agents)
            if self._reports_progress:
                await self._report(await self._shorten(describe_progress))

    async def report_repeatedly(self, progress: str) -> None:
        """Report the same progress again and again, until cancelled.

        Returns at once if the client wants no reports.
        """
        while self._reports_progress:
            await self._report(progress)
            await anyio.sleep(PROGRESS_S)

    async def _report(self, progress: str) -> None:
        await self._session.report_progress(round(time.monotonic() - self._begun, 3), message=progress)

    async def _shorten(self, describe_progress: Callable[[], Awaitable[str]]) -> str:
        return self._show(await describe_progress())[:_PROGRESS_LENGTH]
