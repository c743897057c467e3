"""Starting: of those that wait, who may start or go on, who never will, and who of those that run is to pause.

What is decided is recorded, and no more: what there is to do for it, the loop sees in the records.
"""

import logging
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

from forkjoin.agent.rest import words_to_go_on
from forkjoin.decision import governor, scheduler
from forkjoin.error import BrokenPromiseError
from forkjoin.event import Noted
from forkjoin.model import Agent, Merge, Result, State
from forkjoin.rooms import Rooms

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    agents: list[Agent]  #: all that are under way or wait now
    waiting: dict[int, str]  #: why each that waits does, by number
    again_s: float  #: after so many seconds it is to be looked again, though nothing has happened


async def start_what_may(rooms: Rooms, live: list[Agent], most: int) -> Started:
    """Start, or let go on, those that may, of all that are under way or wait, so that `most` run at once."""
    now = time.time()
    _let_accounts_grow(rooms, now, most)
    to_start = [agent for agent in live if agent.state is State.QUEUED or (agent.state is State.PAUSED and agent.rests)]
    find = rooms.environments.find
    situation = scheduler.Situation(
        live,
        most,
        await _ended(rooms, to_start),
        {one.number for one in to_start if not find(one.environment, one.project, one.lead)},
        now,
        dict(rooms.accounts),
    )
    decision = scheduler.decide(situation)
    agents = {agent.number: agent for agent in live}
    for number in decision.start:
        with _unless_moved(number):
            agents[number] = await _start(rooms, agents[number])
    for number, why in decision.pause.items():
        with _unless_moved(number):
            agents[number] = await rooms.store.move(agents[number], State.PAUSED, Noted(f"paused: {why}"), frozen=True)
    for number, why in decision.skip.items():
        with _unless_moved(number):
            result = Result(agents[number].attempt, State.FAILED, why, "", error=why)
            await rooms.store.finish(agents[number], result, Merge.NOTHING)
        del agents[number]
    return Started(list(agents.values()), decision.waiting, decision.again - now)


def _let_accounts_grow(rooms: Rooms, now: float, most: int) -> None:
    for name, account in list(rooms.accounts.items()):
        if grown := governor.grow(account, now, most):
            rooms.accounts[name] = grown
        else:
            del rooms.accounts[name]


async def _start(rooms: Rooms, agent: Agent) -> Agent:
    """The agent, as it is once its start, or its going on, is recorded."""
    if agent.frozen:
        return await rooms.store.move(agent, State.RUNNING, Noted("goes on"))
    if agent.state is State.PAUSED:
        agent = await rooms.store.queue_again(agent, words_to_go_on(agent))
    return await rooms.store.move(agent, State.PREPARING, Noted("preparing its worktree"))


@contextmanager
def _unless_moved(number: int) -> Generator[None]:
    try:
        yield
    except BrokenPromiseError:
        log.info("a%d was stopped, or ended, before what was decided of it", number)


async def _ended(rooms: Rooms, waiting: Iterable[Agent]) -> dict[int, State]:
    """How those ended that others which wait come after."""
    numbers = {number for agent in waiting for number in agent.after}
    return await rooms.store.ended(numbers) if numbers else {}
