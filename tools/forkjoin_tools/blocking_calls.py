"""How long a call waits for its answer: it blocks, and its client is told how far it is; or it looks once, where the
answer is fetched later."""

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

#: How long a call blocks before its client is told how far it is: a client may give up what it hears nothing of.
PROGRESS_S = 10.0
#: Characters of that.
_WORDS = 300


class NotYetError(MCPError):
    """A call that is not to block has no answer yet: how far it is, and the numbers of the agents that it is for."""

    def __init__(self, how_far: str, agents: Sequence[Agent]) -> None:
        super().__init__(INTERNAL_ERROR, how_far)
        self.agents = [agent.number for agent in agents]


@dataclass(frozen=True, slots=True)
class Later:
    """How a call is made whose answer is fetched later."""

    deferred: McpTask | None = None  #: none where it is made for the first time
    told_in: str | None = None  #: the notification that brings its answer, for which it blocks; none: a reply


_later: ContextVar[Later | None] = ContextVar("later", default=None)


@contextmanager
def making(later: Later) -> Generator[None]:
    """Make the calls in here with `later`, and not as their client has asked for."""
    token = _later.set(later)
    try:
        yield
    finally:
        _later.reset(token)


class Patience:
    """How one call waits: it blocks, and its client is told how far it is; or it looks once, and has no answer yet."""

    def __init__(self, context: ServerRequestContext[Any, Any], show: Callable[[str], str]) -> None:
        later = _later.get()
        self.deferred = later.deferred if later else None
        self.told_in = later.told_in if later else None
        self._blocks = later is None or later.told_in is not None
        self._session, self._show = context.session, show
        self._tells = later is None and "progress_token" in (context.meta or {})
        self._begun = time.monotonic()

    async def wait(
        self,
        agents: Sequence[Agent],
        ask: Callable[[float], Awaitable[T | None]],
        how_far: Callable[[], Awaitable[str]],
        timeout_s: float = math.inf,
    ) -> T | None:
        """What `ask` answers, which is given so many seconds at a time; none once `timeout_s` are over.

        Those of a deferred call go by the wall clock, the one that all daemons and a restarted machine share.

        Raises:
            NotYetError: There is no answer, and this call does not block.
        """
        until = self._begun + timeout_s - (max(0.0, time.time() - self.deferred.created) if self.deferred else 0)
        while True:
            left_s = max(0.0, until - time.monotonic())
            answer = await ask(min(left_s, PROGRESS_S) if self._blocks else 0)
            if answer is not None or left_s <= (PROGRESS_S if self._blocks else 0):
                return answer
            if not self._blocks:
                raise NotYetError(await self._words(how_far), agents)
            if self._tells:
                await self._tell(await self._words(how_far))

    async def keep_telling(self, words: str) -> None:
        """Tell the client again and again that this is waited for, until this is cancelled."""
        while self._tells:
            await self._tell(words)
            await anyio.sleep(PROGRESS_S)

    async def _tell(self, words: str) -> None:
        await self._session.report_progress(round(time.monotonic() - self._begun, 3), message=words)

    async def _words(self, how_far: Callable[[], Awaitable[str]]) -> str:
        return self._show(await how_far())[:_WORDS]
