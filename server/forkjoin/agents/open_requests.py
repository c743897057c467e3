"""Open requests: questions and permissions of agents that wait for an answer, and expire without one.

A request is recorded under the id of the tool call that made it, before a lead sees it. So a relay that repeats the
call after the daemon was killed waits for the answer to the same request, and the request expires at the same time.
"""

import math
import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from forkjoin.core.request import Request
from forkjoin.core.session import Call
from forkjoin.services import Services
from forkjoin.store.rows import NewRequest
from forkjoin.store.store import Store

#: The number of seconds by which the clock may be corrected without extending the open requests.
_JUMP_S = 5.0

#: Waits at most this number of seconds. Returns the closed request, or `None` if it is still open.
FindClosed = Callable[[float], Awaitable[Request | None]]


async def ask(
    store: Store,
    agent: int,
    call: Call,
    new: NewRequest,
    wait: Callable[[FindClosed], Awaitable[Request | None]],
    given_up: Callable[[], bool],
) -> Request:
    """Record a request, and return it once it is answered or has expired.

    Args:
        agent: The number of the agent that asks.
        call: The tool call by which the agent asks.
        wait: Awaits the given function again and again, until it returns the request.
        given_up: Returns whether the agent has ended or cancelled the call itself. If this coroutine is cancelled then,
            the request is withdrawn. Otherwise the request stays open, and the agent's relay repeats the call.

    Raises:
        CallerError: The agent may not ask now.
    """
    request: Request | None = None
    with anyio.CancelScope(shield=True):  # a cancellation after the request was recorded would leave it open for ever
        request = await store.requests.add(agent, call, new)
    assert request
    try:
        closed = await wait(partial(_find_closed, store, request))
    except anyio.get_cancelled_exc_class():
        if given_up():
            with anyio.CancelScope(shield=True):
                await store.requests.withdraw(request)
        raise
    assert closed
    return closed


async def _find_closed(store: Store, request: Request, timeout_s: float) -> Request | None:
    """Wait until the request is closed or its record is gone, and return it.

    Return `None` after the timeout.
    """

    async def look() -> Request | None:
        now = await store.requests.get(request.number)
        return None if now and now.closed is None else now or request  # no record: the agent was removed

    return await store.changes.within(timeout_s, look)


class RequestExpiry:
    """Closes requests that were not answered in time.

    The time during which the machine slept does not count.
    """

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._clock = time.time() - time.monotonic()

    async def close_expired(self) -> float:
        """Close expired requests.

        Return the seconds until the next one expires, or infinity if no request is open.
        """
        await self._set_clock(time.time())
        now, due = time.time(), await self._store.requests.next_expiry()
        if due is not None and due <= now:
            await self._store.requests.expire(now)
            due = await self._store.requests.next_expiry()
        return math.inf if due is None else max(0.0, due - now)

    async def _set_clock(self, now: float) -> None:
        """Extend the open requests if the clock was set forward or the machine slept.

        Args:
            now: The time in seconds since the epoch.
        """
        clock = now - time.monotonic()
        jump = clock - self._clock
        if jump > _JUMP_S:
            await self._store.requests.postpone(jump, now - jump)
        self._clock = clock
