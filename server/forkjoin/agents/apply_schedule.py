"""Recording the scheduler's decisions. Other modules then act on the records."""

import logging
import math
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from forkjoin.agents.budget_limits import find_budgets
from forkjoin.agents.machine_usage import MachineMonitor
from forkjoin.agents.message_delivery import find_message_adapter
from forkjoin.agents.rate_limits import relax_rate_limits
from forkjoin.agents.retry import continuation_message
from forkjoin.core.error import BrokenPromiseError
from forkjoin.core.event import Noted
from forkjoin.core.model import Agent, Merge, PauseKind, State
from forkjoin.core.result import Result
from forkjoin.scheduling.budget import format_usd
from forkjoin.scheduling.scheduler import SchedulerDecision, SchedulerInput, decide, default_max_running
from forkjoin.services import Services

log = logging.getLogger(__name__)

#: The message that asks an agent to finish before its budget is spent.
_WIND_UP = (
    "You have spent {spent} of your budget of {most}. Finish now: commit your work, and end with a report that also "
    "lists the remaining work. If you have already given your report, repeat it."
)


class ScheduleApplier:
    """Calls the scheduler and records its decisions.

    Its state is in memory only, and a new daemon starts without it.

    Attributes:
        max_running: The maximum number of active agents.
        waiting: By agent number, the reason why an agent does not start or continue, in words.
        next_pass_s: Seconds from the last decision until the next one is due if nothing else causes one.
    """

    def __init__(self, services: Services) -> None:
        self.max_running = services.settings.limits.max_running or default_max_running(os.cpu_count() or 1)
        self.waiting: Mapping[int, str] = {}
        self.next_pass_s = math.inf
        self._services = services
        self._machine = MachineMonitor(services)
        self._last_turns: dict[tuple[int, str], float] = {}  #: when each lead's agents last started or continued

    async def apply(self) -> list[Agent]:
        """Make a scheduling decision and record it.

        Return the agents that are under way afterwards.
        """
        services, now = self._services, time.time()
        relax_rate_limits(services, now, self.max_running)
        agents = {agent.number: agent for agent in await services.store.agents.live()}
        decision = decide(await self._collect_input(list(agents.values()), now))
        self.waiting, self.next_pass_s = decision.waiting, decision.decide_again_at - now
        if decision.reserve:
            await services.store.budgets.reserve(decision.reserve)
        for number in decision.start:
            with _unless_moved(number):
                agents[number] = await _start(services, agents[number])
                self._last_turns[agents[number].owner] = now
        await _hold_back(services, agents, decision)
        return [agent for agent in agents.values() if agent.under_way]

    async def _collect_input(self, live: Sequence[Agent], now: float) -> SchedulerInput:
        """Return everything that the scheduler needs for a decision."""
        services = self._services
        live = [_without_slot(agent) if agent.number in services.waiting_for_environment else agent for agent in live]
        to_start = [agent for agent in live if not agent.under_way]
        before = {number for agent in to_start for number in agent.dependencies.after}
        return SchedulerInput(
            live,
            self.max_running,
            ended=await services.store.agents.final_states(before) if before else {},
            without_environment={agent.number for agent in to_start if not services.environments.find_for_agent(agent)},
            now=now,
            rate_limits=dict(services.rate_limits),
            budgets=await find_budgets(services, live),
            machine=await self._machine.measure(live),
            step_usd=services.settings.budget.reserve_usd,
            last_turns=dict(self._last_turns),
            attached=frozenset(services.attached),
            waiting_for_nested=set(services.waiting_for_nested),
        )


def _without_slot(agent: Agent) -> Agent:
    """Return an agent that waits for an environment as if it were paused."""
    account = "" if agent.state is State.FINISHING else agent.account
    return replace(agent, state=State.PAUSED, account=account)


async def _hold_back(services: Services, agents: dict[int, Agent], decision: SchedulerDecision) -> None:
    """Record which agents pause or are skipped, and ask others to wind up.

    Args:
        agents: The live agents by number. Paused agents are replaced, and skipped agents are deleted.
    """
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
    """Record that the agent starts or continues. Return its new record."""
    if agent.number in services.waiting_for_environment:
        services.waiting_for_environment.discard(agent.number)
        services.store.changes.announce()
        return agent
    if agent.phase is PauseKind.FROZEN:
        return await services.store.lifecycle.move(agent, State.RUNNING, Noted("goes on"))
    if agent.state is State.PAUSED:
        agent = await services.store.lifecycle.queue_again(agent, continuation_message(agent))
    return await services.store.lifecycle.move(agent, State.PREPARING, Noted("preparing its worktree"))


async def _ask_to_wind_up(services: Services, agent: Agent) -> None:
    """Ask the agent to finish before its budget is spent, and record the request.

    It is not asked again, even if its program can't take the message: a second message could start another turn.
    """
    spent, most = format_usd(agent.money.spent_usd), format_usd(agent.money.reserved_usd)
    adapter, is_asked = find_message_adapter(services, agent), False
    try:
        if adapter:
            is_asked = await services.executor.send(
                agent.handle, adapter.encode_turn(_WIND_UP.format(spent=spent, most=most))
            )
    except OSError as error:  # the disk is full, or the attempt's folder is gone
        log.warning("%s could not be asked to wind up: %s", agent.label, error)
    await services.store.agents.update(agent, wind_up=True)
    if is_asked:
        await services.store.events.add(agent, [(Noted(f"asked to wind up: it has spent {spent} of {most}"), -1)])


@contextmanager
def _unless_moved(number: int) -> Generator[None]:
    """Return a context that ignores the refusal of a transition.

    A refusal means that the agent was stopped or has ended since the decision.
    """
    try:
        yield
    except BrokenPromiseError:
        log.info("a%d was stopped or ended before the decision about it was recorded", number)
