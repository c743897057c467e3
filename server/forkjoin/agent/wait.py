"""Waiting: for agents to end, without holding anything; a wait that is cancelled hurts no agent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import anyio

from forkjoin.model import FINAL, Agent
from forkjoin.record.store import Store


@dataclass(frozen=True, slots=True)
class Waited:
    """How those that are waited for stand, in the order asked for."""

    finished: list[Agent]
    pending: list[Agent]

    def is_over(self, until: Literal["all", "any"]) -> bool:
        """Whether there is nothing to wait for any more."""
        return not self.pending or (until == "any" and bool(self.finished))


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


def divide(agents: Sequence[Agent]) -> Waited:
    return Waited([a for a in agents if a.state in FINAL], [a for a in agents if a.state not in FINAL])
