"""Waiting for agents to end. Cancelling a wait has no effect on the agents."""

from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from forkjoin.core.model import FINAL, Agent
from forkjoin.core.request import Request
from forkjoin.store.store import Store

Until = Literal["all", "any"]
#: Gets the open requests of the awaited agents. Returns those that the waiting lead has not seen.
FindNews = Callable[[Sequence[Request]], Awaitable[Sequence[Request]]]
#: Returns the numbers of the agents that can't continue until the waiting lead or a person acts.
FindStuck = Callable[[Sequence[Agent]], Awaitable[Set[int]]]


@dataclass(frozen=True, slots=True)
class WaitResult:
    """The awaited agents at the end of a wait, in the order of the call."""

    finished: list[Agent]
    pending: list[Agent]
    requests: Sequence[Request] = ()  #: the new requests, then the other open requests of the pending agents
    news: Sequence[Request] = ()  #: requests that were not reported to this lead before
    stuck: Set[int] = frozenset()  #: numbers of pending agents that can't continue by themselves

    def ends(self, until: Until) -> bool:
        """Return whether it is over, a request is new, or all pending agents are stuck."""
        return self.is_over(until) or bool(self.news) or len(self.stuck) == len(self.pending)

    def is_over(self, until: Until) -> bool:
        """Return whether all agents have ended or, if `until` is "any", at least one."""
        return not self.pending or (until == "any" and bool(self.finished))


async def wait(
    store: Store,
    agents: Sequence[Agent],
    until: Until,
    timeout_s: float,
    find_stuck: FindStuck | None = None,
    find_news: FindNews | None = None,
) -> WaitResult:
    """Wait until all (or any) of the agents have ended.

    The wait also ends when a new request arrives, or the time is over.

    Args:
        timeout_s: The maximum time in seconds.
        find_stuck: Finds pending agents that can't continue by themselves. The wait ends if all of them are stuck.
        find_news: Finds requests that the waiting lead has not seen. The wait ends if there is one.
    """
    waited = divide_by_end(agents)

    async def look() -> WaitResult | None:
        nonlocal waited
        waited = divide_by_end(await store.agents.get_all(agent.number for agent in agents))
        if find_news:
            open_requests = await store.requests.open_of([agent.number for agent in waited.pending])
            news = dict.fromkeys(await find_news(open_requests))
            waited = replace(waited, requests=[*(news | dict.fromkeys(open_requests))], news=[*news])
        if find_stuck:
            waited = replace(waited, stuck=await find_stuck(waited.pending))
        return waited if waited.ends(until) else None

    await store.changes.within(timeout_s, look)
    return waited


def divide_by_end(agents: Sequence[Agent]) -> WaitResult:
    """Return the agents divided into finished and pending ones, in the order given."""
    return WaitResult([a for a in agents if a.state in FINAL], [a for a in agents if a.state not in FINAL])
