"""Starting: of those that are queued, who may, who never will, and why the others wait."""

import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

from forkjoin.decision import scheduler
from forkjoin.error import BrokenPromiseError
from forkjoin.event import Noted
from forkjoin.model import Agent, Merge, Result, State
from forkjoin.rooms import Rooms

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    agents: list[Agent]  #: all that are under way or queued now
    waiting: dict[int, str]  #: why each that is queued waits, by number


async def start_what_may(rooms: Rooms, live: list[Agent], most: int) -> Started:
    """Start those that may, of all that are under way or queued, so that `most` run at once."""
    queued = {agent.number: agent for agent in live if agent.state is State.QUEUED}
    find = rooms.environments.find
    situation = scheduler.Situation(
        live,
        most,
        await _ended(rooms, queued.values()),
        {n for n, agent in queued.items() if not find(agent.environment, agent.project, agent.lead)},
    )
    decision = scheduler.decide(situation)
    now = {agent.number: agent for agent in live}
    for number in decision.start:
        with _unless_stopped(number):
            noted = Noted("preparing its worktree")
            now[number] = await rooms.store.move(queued[number], State.PREPARING, noted)
    for number, why in decision.skip.items():
        with _unless_stopped(number):
            result = Result(queued[number].attempt, State.FAILED, why, "", error=why)
            await rooms.store.finish(queued[number], result, Merge.NOTHING)
        del now[number]
    return Started(list(now.values()), decision.waiting)


@contextmanager
def _unless_stopped(number: int) -> Generator[None]:
    try:
        yield
    except BrokenPromiseError:
        log.info("a%d was stopped before it could start", number)


async def _ended(rooms: Rooms, queued: Iterable[Agent]) -> dict[int, State]:
    """How those ended that queued ones come after."""
    numbers = {number for agent in queued for number in agent.after}
    return await rooms.store.ended(numbers) if numbers else {}
