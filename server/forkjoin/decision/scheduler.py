"""Who starts next. Pure: what is → what to do, and why not more.

The lead with the fewest agents at work has the next turn; of its own the highest priority, then the oldest. Whoever
has the turn is asked at each gate (`gate.py`) whether something holds it, and starts when nothing does.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from forkjoin.decision.gate import Dependencies, Environment, Exclusive, Gate, Slots
from forkjoin.model import ACTIVE, Agent, State

#: What an agent takes, until its own peak is known: a claude of about 400 MB, and what it runs.
_AGENT_BYTES = 1 << 30
#: Agents mostly wait for a model: more run than there are cores.
_AGENTS_PER_CORE = 4
_MOST_BY_DEFAULT = 16


@dataclass(frozen=True, slots=True)
class Situation:
    """All that is looked at."""

    live: Sequence[Agent]  #: all that are in no final state
    max_running: int  #: how many may be active at once
    ended: Mapping[int, State] = field(default_factory=dict[int, State])  #: of those that queued ones come after
    without_environment: Set[int] = frozenset()  #: queued ones whose lead's environment a restart has lost


@dataclass(frozen=True, slots=True)
class Decision:
    """Which queued agents start now, in that order; why others never will, and why the rest waits, by number."""

    start: tuple[int, ...]
    skip: dict[int, str]
    waiting: dict[int, str]


def decide(situation: Situation) -> Decision:
    """What to start of the queued ones, what to skip, and why each of the others waits."""
    dependencies = Dependencies(situation.live, situation.ended)
    gates: tuple[Gate, ...] = (
        Environment(situation.without_environment),
        dependencies,
        Exclusive(situation.live),
        Slots(situation.live, situation.max_running),
    )
    decision = Decision((), {}, {})
    start: list[int] = []
    turns = _Turns(situation.live)
    for agent in turns:
        if why := dependencies.why_skip(agent):
            decision.skip[agent.number] = why
        elif why := next((why for gate in gates if (why := gate.why_wait(agent))), None):
            decision.waiting[agent.number] = why
        else:
            start.append(agent.number)
            turns.started(agent)
            for gate in gates:
                gate.started(agent)
    return replace(decision, start=tuple(start))


class _Turns:
    """The queued agents, each once, in the order in which they have their turns; a start changes what follows."""

    def __init__(self, live: Sequence[Agent]) -> None:
        self._at_work = Counter(_lead(agent) for agent in live if agent.state in ACTIVE)
        self._queues: dict[tuple[int, str], list[Agent]] = defaultdict(list)
        queued = (agent for agent in live if agent.state is State.QUEUED)
        for agent in sorted(queued, key=lambda agent: (agent.spec.priority, -agent.number)):
            self._queues[_lead(agent)].append(agent)  # the next one last
        self._heap = [self._entry(lead) for lead in self._queues]
        heapq.heapify(self._heap)

    def __iter__(self) -> Iterator[Agent]:
        while self._heap:
            *_, lead = heapq.heappop(self._heap)
            yield self._queues[lead].pop()
            if self._queues[lead]:
                heapq.heappush(self._heap, self._entry(lead))

    def started(self, agent: Agent) -> None:
        self._at_work[_lead(agent)] += 1

    def _entry(self, lead: tuple[int, str]) -> tuple[int, int, int, tuple[int, str]]:
        following = self._queues[lead][-1]
        return self._at_work[lead], -following.spec.priority, following.number, lead


def _lead(agent: Agent) -> tuple[int, str]:
    return agent.project, agent.lead


def queue(situation: Situation) -> list[int]:
    """Numbers of the queued ones in the order of their turns, were there slots enough."""
    return [agent.number for agent in _Turns(situation.live)]


def foresee(situation: Situation, wanted: Set[int]) -> list[tuple[int, ...]]:
    """Waves of these agents: who starts at first, who when all of those have succeeded at once, and so on.

    As if none were queued but these and whom they come after; those that would wait for ever, or be skipped, are in
    none.
    """
    situation = replace(situation, live=_with_those_before(situation.live, wanted))
    waves: list[tuple[int, ...]] = []
    while (decision := decide(situation)).start or any(agent.state in ACTIVE for agent in situation.live):
        waves.append(tuple(number for number in decision.start if number in wanted))
        over = {agent.number for agent in situation.live if agent.state in ACTIVE} | set(decision.start)
        situation = replace(
            situation,
            live=[agent for agent in situation.live if agent.number not in over],
            ended={**situation.ended, **dict.fromkeys(over, State.SUCCEEDED)},
        )
    return [wave for wave in waves if wave]


def _with_those_before(live: Sequence[Agent], wanted: Set[int]) -> list[Agent]:
    """Those that are at work, those that are wanted, and all whom these come after."""
    by_number = {agent.number: agent for agent in live}
    queue, kept = list(wanted), {agent.number for agent in live if agent.state is not State.QUEUED}
    while queue:
        if (number := queue.pop()) in by_number and number not in kept:
            kept.add(number)
            queue += by_number[number].after
    return [agent for agent in live if agent.number in kept]


def default_max_running(cores: int, free_memory_bytes: int) -> int:
    """How many agents this machine carries, where the settings don't say."""
    return max(1, min(cores * _AGENTS_PER_CORE, free_memory_bytes // _AGENT_BYTES, _MOST_BY_DEFAULT))
