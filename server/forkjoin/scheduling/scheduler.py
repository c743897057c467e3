"""The scheduler: which agents start, go on after a pause, pause, or are skipped. Pure.

The next turn belongs to the lead with the fewest agents at work. Between equal leads it belongs to the one whose last
turn is longest ago. A lead's agents take its turns in this order:

1. agents that have begun before
2. the highest priority
3. the agent that most other agents wait for, directly or not, so that long chains begin early
4. the oldest agent

An agent whose turn it is starts, or goes on, if no gate (`gates.py`) holds it back.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from forkjoin.core.model import ACTIVE, Agent, Budget, Pause, State
from forkjoin.scheduling.budget import BudgetGate
from forkjoin.scheduling.gates import (
    DependencyGate,
    EnvironmentGate,
    ExclusiveKeyGate,
    Gate,
    Hold,
    PersonGate,
    RateLimitGate,
    RetryDelayGate,
    SlotGate,
)
from forkjoin.scheduling.machine_capacity import MachineGate, MachineState
from forkjoin.scheduling.rate_limit_policy import RateLimit

#: States of agents that wait for a turn.
_WAITING = frozenset({State.QUEUED, State.PAUSED})
#: Agents mostly wait for a model, so more of them run than there are cores.
_AGENTS_PER_CORE = 4
_DEFAULT_MAX_RUNNING = 16


@dataclass(frozen=True, slots=True)
class SchedulerInput:
    """The input of a decision. Agents are named by number, and times are seconds since the epoch."""

    live: Sequence[Agent]  #: all agents that have not ended
    max_running: int  #: how many agents may be at work at once
    ended: Mapping[int, State] = field(default_factory=dict[int, State])  #: final states of dependencies
    without_environment: Set[int] = frozenset()  #: agents whose lead's environment was lost by a restart
    now: float = 0
    rate_limits: Mapping[str, RateLimit] = field(default_factory=dict[str, RateLimit])  #: by account
    budgets: Sequence[Budget] = ()  #: of leads and repositories
    step_usd: float = 1  #: the step in which agents without a budget of their own get money
    machine: MachineState | None = None  #: `None` if memory and load should not be checked
    last_turns: Mapping[tuple[int, str], float] = field(default_factory=dict[tuple[int, str], float])  #: by lead
    attached: Set[int] = frozenset()  #: agents that a person is attached to
    waiting_for_nested: Set[int] = frozenset()  #: agents that only wait for agents that they spawned: they use no slot


@dataclass(frozen=True, slots=True)
class SchedulerDecision:
    """The output of a decision, by agent number."""

    start: tuple[int, ...]  #: agents that start or go on, in this order
    skip: Mapping[int, str]  #: agents that can never start, and why
    waiting: Mapping[int, str]  #: all other agents that wait, and why
    pause: Mapping[int, Pause]  #: running agents that pause
    reserve: Mapping[int, float]  #: agents' new total reservations of money, in USD
    wind_up: tuple[int, ...]  #: running agents that should be asked to finish
    decide_again_at: float  #: when to decide again although no event happens; seconds since the epoch


def decide(inputs: SchedulerInput) -> SchedulerDecision:
    """Decide which agents start, pause or are skipped, and why the others wait."""
    dependencies = DependencyGate(inputs.live, inputs.ended)
    budgets = BudgetGate(inputs.live, inputs.budgets, inputs.step_usd)
    gates = _make_gates(inputs, dependencies, budgets)
    start: list[int] = []
    skip: dict[int, str] = {}
    holds: dict[int, Hold] = {}
    turns = _Turns(inputs)
    for agent in turns:
        if reason := dependencies.find_skip_reason(agent):
            skip[agent.number] = reason
        elif held := next(((gate, hold) for gate in gates if (hold := gate.check(agent))), None):
            gate, holds[agent.number] = held
            gate.on_hold(agent)
        else:
            start.append(agent.number)
            turns.on_start(agent)
            for gate in gates:
                gate.on_start(agent)
    pause = {number: pause for gate in gates for number, pause in gate.find_pauses().items()}
    return SchedulerDecision(
        start=tuple(start),
        skip=skip,
        waiting={number: hold.reason for number, hold in holds.items()},
        pause=pause,
        reserve=budgets.new_reservations,
        wind_up=tuple(number for number in budgets.find_agents_to_wind_up() if number not in pause),
        decide_again_at=min([*(hold.until for hold in holds.values()), *(gate.next_pause_at() for gate in gates)]),
    )


def _make_gates(inputs: SchedulerInput, dependencies: DependencyGate, budgets: BudgetGate) -> Sequence[Gate]:
    """Return the gates in the order in which they are checked."""
    using_slots = [agent for agent in inputs.live if agent.number not in inputs.waiting_for_nested]
    return (
        EnvironmentGate(inputs.without_environment),
        dependencies,
        PersonGate(inputs.attached),
        RateLimitGate(using_slots, inputs.rate_limits, inputs.now),
        RetryDelayGate(inputs.now),
        ExclusiveKeyGate(inputs.live),
        budgets,
        MachineGate(using_slots, inputs.machine, inputs.now),
        SlotGate(using_slots, inputs.max_running),
    )


class _Turns:
    """An iterator over the waiting agents in the order of their turns.

    The order depends on how many agents of each lead are at work, so the caller reports each agent that starts.
    """

    def __init__(self, inputs: SchedulerInput) -> None:
        self._last_turns = inputs.last_turns
        self._dependents = _count_dependents(inputs.live)
        self._at_work = Counter(agent.owner for agent in inputs.live if agent.state in ACTIVE)
        self._queues: dict[tuple[int, str], list[Agent]] = defaultdict(list)
        waiting = (agent for agent in inputs.live if agent.state in _WAITING)
        for agent in sorted(waiting, key=self._rank, reverse=True):
            self._queues[agent.owner].append(agent)  # the next agent of a lead is the last of its list
        self._heap = [self._heap_entry(lead) for lead in self._queues]
        heapq.heapify(self._heap)

    def __iter__(self) -> Iterator[Agent]:
        while self._heap:
            *_, lead = heapq.heappop(self._heap)
            yield self._queues[lead].pop()
            if self._queues[lead]:
                heapq.heappush(self._heap, self._heap_entry(lead))

    def on_start(self, agent: Agent) -> None:
        self._at_work[agent.owner] += 1

    def _heap_entry(self, lead: tuple[int, str]) -> tuple[int, float, bool, int, int, int, tuple[int, str]]:
        following = self._queues[lead][-1]
        return self._at_work[lead], self._last_turns.get(lead, 0), *self._rank(following), lead

    def _rank(self, agent: Agent) -> tuple[bool, int, int, int]:
        """Return the agent's sort key among its lead's agents. The lowest goes first."""
        return not agent.has_begun, -agent.spec.priority, -self._dependents.get(agent.number, 0), agent.number


def _count_dependents(live: Sequence[Agent]) -> dict[int, int]:
    """Return how many younger agents wait for each agent, directly or not.

    In a single spawn, an older agent may depend on a younger agent. Then the older agent is not counted.
    """
    dependents = defaultdict[int, int](int)  # a bit for each dependent
    for place, agent in enumerate(reversed(live)):
        for number in agent.dependencies.after:
            dependents[number] |= dependents[agent.number] | 1 << place
    return {number: bits.bit_count() for number, bits in dependents.items()}


def queue_order(inputs: SchedulerInput) -> list[int]:
    """Return the numbers of the queued agents in the order of their turns.

    Each start can change that order.
    """
    return [agent.number for agent in _Turns(inputs) if agent.state is State.QUEUED]


def plan_waves(inputs: SchedulerInput, wanted: Set[int]) -> list[tuple[int, ...]]:
    """Return the waves in which the wanted agents would start.

    The first wave starts now, and each further one when all agents before it have succeeded. The plan ignores other
    queued agents, unless a wanted one depends on them, as well as budgets, capacity and rate limits. Agents that would
    be skipped, or never start, are in no wave.
    """
    live = _with_dependencies(inputs.live, wanted)
    inputs = replace(inputs, live=live, now=math.inf, rate_limits={}, budgets=(), machine=None)
    waves: list[tuple[int, ...]] = []
    while (decision := decide(inputs)).start or any(agent.state in ACTIVE for agent in inputs.live):
        waves.append(tuple(number for number in decision.start if number in wanted))
        succeeded = {agent.number for agent in inputs.live if agent.state in ACTIVE} | set(decision.start)
        inputs = replace(
            inputs,
            live=[agent for agent in inputs.live if agent.number not in succeeded],
            ended={**inputs.ended, **dict.fromkeys(succeeded, State.SUCCEEDED)},
        )
    return [wave for wave in waves if wave]


def _with_dependencies(live: Sequence[Agent], wanted: Set[int]) -> list[Agent]:
    """Return the live agents that matter for a plan of the wanted agents.

    These are the wanted agents, their dependencies, and the agents that are not queued. Indirect dependencies are
    included.
    """
    by_number = {agent.number: agent for agent in live}
    to_visit, kept = list(wanted), {agent.number for agent in live if agent.state is not State.QUEUED}
    while to_visit:
        if (number := to_visit.pop()) in by_number and number not in kept:
            kept.add(number)
            to_visit += by_number[number].dependencies.after
    return [agent for agent in live if agent.number in kept]


def default_max_running(cores: int) -> int:
    """Return how many agents may run at once if the settings don't say."""
    return min(cores * _AGENTS_PER_CORE, _DEFAULT_MAX_RUNNING)
