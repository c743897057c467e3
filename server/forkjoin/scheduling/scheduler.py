"""Who starts next, goes on, or pauses. Pure: what is → what to do, and why not more.

The lead with the fewest agents at work has the next turn, of several the one whose last turn is longest ago; of its own
those that have begun, then the highest priority, then the one that most others wait for, directly or not (of work that
hangs together the long chains are to begin first), then the oldest. Whoever has the turn is asked at each gate
(`gate.py`) whether something holds it, and starts, or goes on, when nothing does.
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

#: Who waits for a turn.
_WAITS = frozenset({State.QUEUED, State.PAUSED})
#: Agents mostly wait for a model: more run than there are cores.
_AGENTS_PER_CORE = 4
_MOST_BY_DEFAULT = 16


@dataclass(frozen=True, slots=True)
class SchedulerInput:
    """All that is looked at; times are seconds since the epoch."""

    live: Sequence[Agent]  #: all that are in no final state
    max_running: int  #: how many may be active at once
    ended: Mapping[int, State] = field(default_factory=dict[int, State])  #: of those that queued ones come after
    without_environment: Set[int] = frozenset()  #: those to be started whose lead's environment a restart has lost
    now: float = 0
    rate_limits: Mapping[str, RateLimit] = field(default_factory=dict[str, RateLimit])  #: by account
    budgets: Sequence[Budget] = ()  #: of leads and repositories
    step_usd: float = 1  #: what is given at a time to those that have no budget of their own
    machine: MachineState | None = None  #: none where that is not looked at
    last_turns: Mapping[tuple[int, str], float] = field(default_factory=dict[tuple[int, str], float])  #: by lead
    attached: Set[int] = frozenset()  #: those in whose conversation a person is
    short_since: Mapping[int, float] = field(default_factory=dict[int, float])  #: since when there was no room for each
    awaiting: Set[int] = frozenset()  #: those at work whose program only waits for agents that it has spawned


@dataclass(frozen=True, slots=True)
class SchedulerDecision:
    """What to do with whom, by number."""

    start: tuple[int, ...]  #: who starts now, or goes on, in that order
    skip: Mapping[int, str]  #: why others never will
    waiting: Mapping[int, str]  #: why the rest waits
    pause: Mapping[int, Pause]  #: who of those that run is to pause
    give: Mapping[int, float]  #: how much who may spend from now on, in all
    wind_up: tuple[int, ...]  #: who of those that run is to be asked to come to an end
    short_since: Mapping[int, float]  #: since when there is no room for each that waits for that, or did before
    decide_again_at: float  #: when it is to be decided again though nothing has happened


def decide(inputs: SchedulerInput) -> SchedulerDecision:
    """What to start, what to skip, what to pause, and why each of the others waits."""
    dependencies = DependencyGate(inputs.live, inputs.ended)
    budgets = BudgetGate(inputs.live, inputs.budgets, inputs.step_usd)
    working = [agent for agent in inputs.live if agent.number not in inputs.awaiting]
    room = MachineGate(working, inputs.machine, inputs.now, inputs.short_since)
    gates: tuple[Gate, ...] = (
        EnvironmentGate(inputs.without_environment),
        dependencies,
        PersonGate(inputs.attached),
        RateLimitGate(working, inputs.rate_limits, inputs.now),
        RetryDelayGate(inputs.now),
        ExclusiveKeyGate(inputs.live),
        budgets,
        room,
        SlotGate(working, inputs.max_running),
    )
    start: list[int] = []
    skip: dict[int, str] = {}
    holds: dict[int, Hold] = {}
    turns = _Turns(inputs)
    for agent in turns:
        if why := dependencies.why_skip(agent):
            skip[agent.number] = why
        elif held := next(((gate, hold) for gate in gates if (hold := gate.hold(agent))), None):
            gate, holds[agent.number] = held
            gate.held(agent)
        else:
            start.append(agent.number)
            turns.started(agent)
            for gate in gates:
                gate.started(agent)
    waiting = {number: hold.why for number, hold in holds.items()}
    pause = {number: pause for gate in gates for number, pause in gate.find_pauses().items()}
    wind_up = tuple(number for number in budgets.find_agents_to_wind_up() if number not in pause)
    decide_again_at = min([*(hold.until for hold in holds.values()), *(gate.next_pause_at() for gate in gates)])
    short_since = {number: since for number, since in room.short_since.items() if number in holds}
    return SchedulerDecision(tuple(start), skip, waiting, pause, budgets.given, wind_up, short_since, decide_again_at)


class _Turns:
    """Those that wait, each once, in the order in which they have their turns; a start changes what follows."""

    def __init__(self, inputs: SchedulerInput) -> None:
        self._last_turns = inputs.last_turns
        self._awaited = _count_those_after(inputs.live)
        self._at_work = Counter(agent.whose for agent in inputs.live if agent.state in ACTIVE)
        self._queues: dict[tuple[int, str], list[Agent]] = defaultdict(list)
        waiting = (agent for agent in inputs.live if agent.state in _WAITS)
        for agent in sorted(waiting, key=self._rank, reverse=True):
            self._queues[agent.whose].append(agent)  # the next one last
        self._heap = [self._entry(lead) for lead in self._queues]
        heapq.heapify(self._heap)

    def __iter__(self) -> Iterator[Agent]:
        while self._heap:
            *_, lead = heapq.heappop(self._heap)
            yield self._queues[lead].pop()
            if self._queues[lead]:
                heapq.heappush(self._heap, self._entry(lead))

    def started(self, agent: Agent) -> None:
        self._at_work[agent.whose] += 1

    def _entry(self, lead: tuple[int, str]) -> tuple[int, float, bool, int, int, int, tuple[int, str]]:
        following = self._queues[lead][-1]
        return self._at_work[lead], self._last_turns.get(lead, 0), *self._rank(following), lead

    def _rank(self, agent: Agent) -> tuple[bool, int, int, int]:
        """The lower, the earlier among its lead's."""
        return not agent.has_begun, -agent.spec.priority, -self._awaited.get(agent.number, 0), agent.number


def _count_those_after(live: Sequence[Agent]) -> dict[int, int]:
    """How many younger ones wait for each, directly or not; within one call an older may too, and is not counted."""
    waiting = defaultdict[int, int](int)  # a bit for each
    for place, agent in enumerate(reversed(live)):
        for number in agent.dependencies.after:
            waiting[number] |= waiting[agent.number] | 1 << place
    return {number: bits.bit_count() for number, bits in waiting.items()}


def queue_order(inputs: SchedulerInput) -> list[int]:
    """Numbers of the queued ones in the order of their turns, were there slots enough."""
    return [agent.number for agent in _Turns(inputs) if agent.state is State.QUEUED]


def plan_waves(inputs: SchedulerInput, wanted: Set[int]) -> list[tuple[int, ...]]:
    """Waves of these agents: who starts at first, who when all of those have succeeded at once, and so on.

    As if none were queued but these and whom they come after; those that would wait for ever, or be skipped, are in
    none.
    """
    live = _with_those_before(inputs.live, wanted)
    inputs = replace(inputs, live=live, now=math.inf, rate_limits={}, budgets=(), machine=None)
    waves: list[tuple[int, ...]] = []
    while (decision := decide(inputs)).start or any(agent.state in ACTIVE for agent in inputs.live):
        waves.append(tuple(number for number in decision.start if number in wanted))
        over = {agent.number for agent in inputs.live if agent.state in ACTIVE} | set(decision.start)
        inputs = replace(
            inputs,
            live=[agent for agent in inputs.live if agent.number not in over],
            ended={**inputs.ended, **dict.fromkeys(over, State.SUCCEEDED)},
        )
    return [wave for wave in waves if wave]


def _with_those_before(live: Sequence[Agent], wanted: Set[int]) -> list[Agent]:
    """Those that are at work, those that are wanted, and all whom these come after."""
    by_number = {agent.number: agent for agent in live}
    queue, kept = list(wanted), {agent.number for agent in live if agent.state is not State.QUEUED}
    while queue:
        if (number := queue.pop()) in by_number and number not in kept:
            kept.add(number)
            queue += by_number[number].dependencies.after
    return [agent for agent in live if agent.number in kept]


def default_max_running(cores: int) -> int:
    """How many agents may run at once where the settings don't say: as many as there is room for, and no more."""
    return min(cores * _AGENTS_PER_CORE, _MOST_BY_DEFAULT)
