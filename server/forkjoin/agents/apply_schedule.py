"""Who starts, goes on, pauses, winds up or is skipped: that is decided, and recorded. The rest others see there."""

import logging
import math
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from forkjoin.agents.budgets import find_budgets
from forkjoin.agents.machine_usage import MachineMonitor
from forkjoin.agents.messages import taker_of
from forkjoin.agents.rate_limits import let_grow
from forkjoin.agents.retry import words_to_go_on
from forkjoin.core.error import BrokenPromiseError
from forkjoin.core.event import Noted
from forkjoin.core.model import Agent, Merge, Result, State
from forkjoin.scheduling.budget import format_usd
from forkjoin.scheduling.scheduler import SchedulerDecision, SchedulerInput, decide, default_max_running
from forkjoin.services import Services

log = logging.getLogger(__name__)

_WIND_UP = (
    "You have spent {spent} of the {most} that you may. Wind up now: commit what is done, and end with your report, "
    "also of what is left. If you have given it already, give it again."
)


class ScheduleApplier:
    """What it remembers is worth little: a daemon that takes over knows none of it.

    Attributes:
        max_running: How many may be at work at once.
        waiting: Why each that waits for its turn does, by number.
        next_pass_s: After so many seconds it is to be looked again, though nothing has happened.
    """

    def __init__(self, services: Services) -> None:
        self.max_running = services.settings.limits.max_running or default_max_running(os.cpu_count() or 1)
        self.waiting: Mapping[int, str] = {}
        self.next_pass_s = math.inf
        self._services = services
        self._machine = MachineMonitor(services)
        self._last_turns: dict[tuple[int, str], float] = {}  #: when each lead last had one started, or going on
        self._short_since: Mapping[int, float] = {}
        self._clock = time.time() - time.monotonic()

    async def act(self) -> list[Agent]:
        """Let start, go on, pause and be skipped whoever is to, of all agents; those that are under way then."""
        services, now = self._services, time.time()
        self._set_clock(now - time.monotonic())
        let_grow(services, now, self.max_running)
        agents = {agent.number: agent for agent in await services.store.agents.live()}
        decision = decide(await self._look(list(agents.values()), now))
        self.waiting, self.next_pass_s = decision.waiting, decision.decide_again_at - now
        self._short_since = decision.short_since
        if decision.give:
            await services.store.budgets.reserve(decision.give)
        for number in decision.start:
            with _unless_moved(number):
                agents[number] = await _start(services, agents[number])
                self._last_turns[agents[number].whose] = now
        await _hold_back(services, agents, decision)
        return [agent for agent in agents.values() if agent.under_way]

    def _set_clock(self, clock: float) -> None:
        """Where the clock was set, or the machine slept, nobody has waited the longer, or shorter, for it."""
        jump, self._clock = clock - self._clock, clock
        self._short_since = {number: since + jump for number, since in self._short_since.items()}

    async def _look(self, live: Sequence[Agent], now: float) -> SchedulerInput:
        """All that a decision looks at."""
        services = self._services
        live = [_without_slot(agent) if agent.number in services.waiting_for_environment else agent for agent in live]
        to_start = [agent for agent in live if not agent.under_way]
        before = {number for agent in to_start for number in agent.dependencies.after}
        return SchedulerInput(
            live,
            self.max_running,
            ended=await services.store.agents.final_states(before) if before else {},
            without_environment={one.number for one in to_start if not services.environments.find_for_agent(one)},
            now=now,
            rate_limits=dict(services.rate_limits),
            budgets=await find_budgets(services, live),
            machine=await self._machine.look(live),
            step_usd=services.settings.budget.reserve_usd,
            last_turns=dict(self._last_turns),
            attached=frozenset(services.attached),
            short_since=self._short_since,
            awaiting=set(services.waiting_for_nested),
        )


def _without_slot(agent: Agent) -> Agent:
    """The agent, which waits for its lead's environment, as one that pauses in midst; a verify asks no model."""
    account = "" if agent.state is State.FINISHING else agent.account
    return replace(agent, state=State.PAUSED, account=account)


async def _hold_back(services: Services, agents: dict[int, Agent], decision: SchedulerDecision) -> None:
    """Let pause, be skipped, and wind up whoever is to."""
    for number, pause in decision.pause.items():
        with _unless_moved(number):
            agents[number] = await services.store.lifecycle.move(
                agents[number], State.PAUSED, Noted(f"paused: {pause.why}"), pause
            )
    for number, why in decision.skip.items():
        with _unless_moved(number):
            result = Result(agents[number].attempt, State.FAILED, why, "", error=why)
            await services.store.lifecycle.finish(agents[number], result, Merge.NOTHING)
        del agents[number]
    for number in decision.wind_up:
        await _ask_to_wind_up(services, agents[number])


async def _start(services: Services, agent: Agent) -> Agent:
    """The agent, as it is once its start, or its going on, is recorded."""
    if agent.number in services.waiting_for_environment:
        services.waiting_for_environment.discard(agent.number)
        services.store.changes.announce()
        return agent
    if agent.pause.frozen:
        return await services.store.lifecycle.move(agent, State.RUNNING, Noted("goes on"))
    if agent.state is State.PAUSED:
        agent = await services.store.lifecycle.queue_again(agent, words_to_go_on(agent))
    return await services.store.lifecycle.move(agent, State.PREPARING, Noted("preparing its worktree"))


async def _ask_to_wind_up(services: Services, agent: Agent) -> None:
    """Ask for that once: another message could be another turn."""
    spent, most = format_usd(agent.money.spent_usd), format_usd(agent.money.reserved_usd)
    adapter, asked = taker_of(services, agent), False
    try:
        if adapter:
            asked = await services.executor.send(agent.handle, adapter.turn(_WIND_UP.format(spent=spent, most=most)))
    except OSError as error:  # no room for it, or its folder is gone
        log.warning("%s could not be asked to wind up: %s", agent.label, error)
    await services.store.agents.update(agent, wind_up=True)
    if asked:
        await services.store.events.add(agent, [(Noted(f"asked to wind up: it has spent {spent} of {most}"), -1)])


@contextmanager
def _unless_moved(number: int) -> Generator[None]:
    try:
        yield
    except BrokenPromiseError:
        log.info("a%d was stopped, or ended, before what was decided of it", number)
