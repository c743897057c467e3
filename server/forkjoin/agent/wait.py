"""Waiting: for agents to end, without holding anything; a wait that is cancelled hurts no agent."""

from collections.abc import Callable, Sequence
from typing import Literal

import anyio

from forkjoin.decision.verdict import Waited, divide
from forkjoin.model import Agent
from forkjoin.record.store import Store


async def wait(
    store: Store,
    agents: Sequence[Agent],
    until: Literal["all", "any"],
    timeout_s: float,
    stuck: Callable[[Agent], bool] = lambda _: False,
) -> Waited:
    """Return once all (or any) of these have ended, but after `timeout_s` seconds at the latest.

    Args:
        stuck: Whether an agent can't go on without who waits here: nothing but such is not waited for.
    """
    waited = divide(agents)

    async def look() -> Waited | None:
        nonlocal waited
        waited = divide(await store.agents_numbered(agent.number for agent in agents))
        return waited if waited.is_over(until) or all(map(stuck, waited.pending)) else None

    with anyio.move_on_after(timeout_s):
        await store.changes.until(look)
    return waited
