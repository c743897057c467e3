"""An agent asks, and waits for the first answer; what nobody answers in time expires.

What is asked is on disk before anybody is told of it, under the call that asked: a relay that repeats it, since the
daemon was killed, waits on for the same answer, for as long as is left.
"""

import math
import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from forkjoin.core.model import Request
from forkjoin.core.session import Call
from forkjoin.services import Services
from forkjoin.store.rows import NewRequest
from forkjoin.store.store import Store

#: By so much no clock is put right from one look to the next.
_JUMP_S = 5.0


#: Waits for so many seconds for what was asked to be closed; none where it is not yet.
FindClosed = Callable[[float], Awaitable[Request | None]]


async def ask(
    store: Store,
    agent: int,
    call: Call,
    new: NewRequest,
    wait: Callable[[FindClosed], Awaitable[Request | None]],
    given_up: Callable[[], bool],
) -> Request:
    """What an agent asked with this call, once it is closed.

    Args:
        wait: Calls what it is given again and again, until that is so.
        given_up: Whether it was its agent that has cancelled the call, or is gone: then it is withdrawn.

    Raises:
        CallerError: It may not ask now.
    """
    asked: Request | None = None
    with anyio.CancelScope(shield=True):  # cancelled midway, it might be asked, and nobody would withdraw it
        asked = await store.requests.add(agent, call, new)
    assert asked
    try:
        closed = await wait(partial(_find_closed, store, asked))
    except anyio.get_cancelled_exc_class():
        if given_up():
            with anyio.CancelScope(shield=True):
                await store.requests.withdraw(asked)
        raise
    assert closed
    return closed


async def _find_closed(store: Store, asked: Request, timeout_s: float) -> Request | None:
    async def look() -> Request | None:
        now = await store.requests.get(asked.number)
        return None if now and now.closed is None else now or asked

    return await store.changes.within(timeout_s, look)


class Expiry:
    """Closes what nobody has answered in time; while the machine slept, nobody could."""

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._clock = time.time() - time.monotonic()

    async def act(self) -> float:
        """Close what is due; in how many seconds the next is."""
        await self._set_clock(time.time())
        now, due = time.time(), await self._store.requests.next_expiry()
        if due is not None and due <= now:
            await self._store.requests.expire(now)
            due = await self._store.requests.next_expiry()
        return math.inf if due is None else max(0.0, due - now)

    async def _set_clock(self, now: float) -> None:
        """Where the clock was put forward, or the machine slept, what was asked before has the longer."""
        clock = now - time.monotonic()
        jump = clock - self._clock
        if jump > _JUMP_S:
            await self._store.requests.postpone(jump, now - jump)
        self._clock = clock
