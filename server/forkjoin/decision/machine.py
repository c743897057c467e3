"""What the machine has room for. Pure.

An agent needs what the most of its kind needed that was seen: it starts when that much is free beside what those at
work have yet to take. When memory runs short all the same, nobody starts, and the youngest pause, one after the other:
what can be resumed ends, and gives its memory back; the rest is frozen, and takes no more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forkjoin.decision.gate import Gate, Hold
from forkjoin.model import ACTIVE, Agent, Pause, State

#: What an agent needs until its kind is known: a claude of about 400 MB, and what it runs. Bytes.
FIRST_NEED = 1_000_000_000
_SHORT = "memory is short"
#: Seconds until it is looked again where somebody waits for room, or runs.
_AGAIN_S = 5.0
#: By how much of the difference a kind's need follows a smaller peak; a larger one it follows at once.
_FORGETS = 0.25

#: A kind of agent: those of a project that run the same program.
Kind = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine has now, in bytes, and what agents take and need of it."""

    free: float
    kept_free: int  #: for the person, the lead and the daemon
    load: float = 0  #: programs that want a processor, as an average over the last minute
    most_load: float = 1
    first_need: float = FIRST_NEED  #: of a kind that nothing is known of
    taken: Mapping[int, int] = field(default_factory=dict[int, int])  #: by number
    needs: Mapping[Kind, int] = field(default_factory=dict[Kind, int])


def kind_of(agent: Agent) -> Kind:
    return agent.project, agent.spec.agent or ""


def learn(known: int | None, peak: int) -> int:
    """What a kind of agent needs, after one of it has had this peak."""
    if known is None or peak > known:
        return peak
    return round(known - (known - peak) * _FORGETS)


class Room(Gate):
    """Agents start, and go on, where there is memory and a processor for them; the only one always does."""

    def __init__(self, live: Sequence[Agent], machine: Machine, now: float) -> None:
        self._live = live
        self._machine = machine
        self._now = now
        self._working = [agent for agent in live if agent.state in ACTIVE]
        self._promised: float = sum(map(self._lacks, self._working))

    def hold(self, agent: Agent) -> Hold | None:
        if not self._working:
            return None
        if self._machine.load > self._machine.most_load:
            return self._again(f"the machine's load is {self._machine.load:.1f}: above {self._machine.most_load:.1f}")
        room = self._machine.free - self._machine.kept_free - self._promised
        if room < self._lacks(agent):
            return self._again(f"{gigabytes(max(0, room))} of memory free, {gigabytes(self._lacks(agent))} needed")
        return None

    def started(self, agent: Agent) -> None:
        self._working.append(agent)
        self._promised += self._lacks(agent)

    def to_pause(self) -> Mapping[int, Pause]:
        """The youngest, where memory is short, one after the other, and never the only one."""
        if self._machine.free >= self._machine.kept_free / 2:
            return {}
        running = [agent for agent in self._live if agent.state is State.RUNNING]
        just_now = any(one.paused_why == _SHORT and one.not_before > self._now for one in self._live)
        if len(self._working) < 2 or not running or just_now:
            return {}
        youngest = max(running, key=lambda agent: (agent.started or 0, agent.number))
        ends = youngest.converses
        return {youngest.number: Pause(_SHORT, frozen=not ends, ending=ends, not_before=self._now + _AGAIN_S)}

    def next_pause(self) -> float:
        """When memory may be short though nothing has happened."""
        return self._now + _AGAIN_S if len(self._working) > 1 else math.inf

    def _lacks(self, agent: Agent) -> float:
        """What the agent has yet to take, at its most."""
        return max(
            0,
            self._machine.needs.get(kind_of(agent), self._machine.first_need)
            - self._machine.taken.get(agent.number, 0),
        )

    def _again(self, why: str) -> Hold:
        return Hold(why, self._now + _AGAIN_S)


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
