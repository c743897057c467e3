"""An agent asks, and waits for the first answer; what nobody answers in time expires.

What is asked is on disk before anybody is told of it, under the call that asked: a relay that repeats it, since the
daemon was killed, waits on for the same answer, for as long as is left.
"""

import math
import time
from collections.abc import Callable

import anyio

from forkjoin.model import Request
from forkjoin.record.rows import NewRequest
from forkjoin.rooms import Rooms
from forkjoin.session import Call


async def ask(rooms: Rooms, agent: int, call: Call, new: NewRequest, given_up: Callable[[], bool]) -> Request:
    """What an agent asked with this call, once it is closed.

    Args:
        given_up: Whether it was its agent that has cancelled the call, or is gone: then it is withdrawn.

    Raises:
        CallerError: It may not ask now.
    """
    asked = await rooms.store.ask(agent, call, new)

    async def find_closed() -> Request | None:
        now = await rooms.store.request(asked.number)
        return None if now and now.closed is None else now or asked

    try:
        return await rooms.store.changes.until(find_closed)
    except anyio.get_cancelled_exc_class():
        if given_up():
            with anyio.CancelScope(shield=True):
                await rooms.store.withdraw(asked)
        raise


async def expire(rooms: Rooms) -> float:
    """Close what nobody has answered in time; in how many seconds the next is due."""
    now, due = time.time(), await rooms.store.next_expiry()
    if due is not None and due <= now:
        await rooms.store.expire_requests(now)
        due = await rooms.store.next_expiry()
    return math.inf if due is None else max(0.0, due - now)
