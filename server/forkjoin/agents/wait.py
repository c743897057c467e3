"""Waiting: for agents to end, without holding anything; a wait that is cancelled hurts no agent."""

from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from forkjoin.core.model import FINAL, Agent, Request
from forkjoin.store.store import Store

Until = Literal["all", "any"]
#: Which of these requests, and of others that ask the same lead, were not told before.
FindNews = Callable[[Sequence[Request]], Awaitable[Sequence[Request]]]
#: Who of these, by number, can't go on without who waits, or a person.
FindStuck = Callable[[Sequence[Agent]], Awaitable[Set[int]]]


@dataclass(frozen=True, slots=True)
class Waited:
    """How those that are waited for stand, in the order asked for."""

    finished: list[Agent]
    pending: list[Agent]
    requests: Sequence[Request] = ()  #: what those ask that are pending, though frozen; before them what is news
    news: Sequence[Request] = ()  #: those that were not told before, of whoever asks this lead
    stuck: Set[int] = frozenset()  #: who of those that are pending can't go on by waiting

    def ends(self, until: Until) -> bool:
        """Whether the wait does: it is over, somebody asks, or none goes on by being waited for."""
        return self.is_over(until) or bool(self.news) or len(self.stuck) == len(self.pending)

    def is_over(self, until: Until) -> bool:
        """Whether there is nothing to wait for any more."""
        return not self.pending or (until == "any" and bool(self.finished))


async def wait(
    store: Store,
    agents: Sequence[Agent],
    until: Until,
    timeout_s: float,
    find_stuck: FindStuck | None = None,
    find_news: FindNews | None = None,
) -> Waited:
    """Return once all (or any) of these have ended, or one asks what is news; after `timeout_s` seconds at the latest.

    Args:
        find_stuck: Once all that are pending are such, it returns.
    """
    waited = divide(agents)

    async def look() -> Waited | None:
        nonlocal waited
        waited = divide(await store.agents.get_all(agent.number for agent in agents))
        if find_news:
            asked = await store.requests.open_of([agent.number for agent in waited.pending])
            news = dict.fromkeys(await find_news(asked))
            waited = replace(waited, requests=[*(news | dict.fromkeys(asked))], news=[*news])
        if find_stuck:
            waited = replace(waited, stuck=await find_stuck(waited.pending))
        return waited if waited.ends(until) else None

    await store.changes.within(timeout_s, look)
    return waited


def divide(agents: Sequence[Agent]) -> Waited:
    """Those that have ended, and the others, in the order given."""
    return Waited([a for a in agents if a.state in FINAL], [a for a in agents if a.state not in FINAL])
