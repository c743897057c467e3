"""What the machine has room for. Pure.

An agent needs what the most of its kind needed that was seen: it starts when that much is free beside what those at
work have yet to take. For one that has waited long for that, what comes free is kept: else those that need little would
always be before it. When memory runs short all the same, nobody starts, and one after the other pauses: what is frozen
and can be resumed ends first, since it does nothing, then the youngest that can; the rest is frozen, and takes no more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forkjoin.core.model import ACTIVE, RUNS, Agent, Pause
from forkjoin.scheduling.gates import Gate, Hold, format_time

#: What an agent needs until its kind is known: a claude of about 400 MB, and what it runs. Bytes.
DEFAULT_NEED_BYTES = 1_000_000_000
_SHORT = "memory is short"
#: Seconds until it is looked again where somebody waits for room, or runs.
_AGAIN_S = 5.0
#: For so long others may go before one for which there is no room: agents end every few minutes, so that what it needs
#: mostly comes free by itself, with no memory left idle for it.
PATIENCE_S = 180.0
#: For so long what comes free is kept for it then, and for so long not, in turns: what it needs may be taken by one
#: that runs for hours, and others are not to wait for that.
KEPT_S = 1800.0
#: Where less than this part is left of what agents may take together, one gives way: at that limit one is killed.
_CLOSE = 0.05
#: By how much of the difference a kind's need follows a smaller peak; a larger one it follows at once.
_FORGETS = 0.25

#: A kind of agent: those of a project that run the same program.
Kind = tuple[int, str]


@dataclass(frozen=True, slots=True)
class MachineState:
    """What the machine has now, in bytes, and what agents take and need of it."""

    free: float
    kept_free_bytes: int  #: for the person, the lead and the daemon
    left: float = math.inf  #: of what agents may take together
    in_all: float = math.inf  #: that they may take together
    load: float = 0  #: programs that want a processor, as an average over the last minute
    most_load: float = 1
    default_need_bytes: float = DEFAULT_NEED_BYTES  #: of a kind that nothing is known of
    taken: Mapping[int, int] = field(default_factory=dict[int, int])  #: by number
    needs: Mapping[Kind, int] = field(default_factory=dict[Kind, int])


def program_key(agent: Agent) -> Kind:
    return agent.project, agent.spec.agent or ""


def update_need(known: int | None, peak: int) -> int:
    """What a kind of agent needs, after one of it has had this peak."""
    if known is None or peak > known:
        return peak
    return round(known - (known - peak) * _FORGETS)


class MachineGate(Gate):
    """Agents start, and go on, where there is memory and a processor for them; the only one always does."""

    def __init__(
        self, live: Sequence[Agent], machine: MachineState | None, now: float, short_since: Mapping[int, float]
    ) -> None:
        self.short_since = dict(short_since)  #: since when there was no room for each that waits, by number
        self._live = live
        self._machine = machine or MachineState(math.inf, 0, most_load=math.inf)
        self._now = now
        self._working = [agent for agent in live if agent.state in ACTIVE]
        self._promised: float = sum(map(self._lacks, self._working))
        self._first: Agent | None = None  #: of those that have waited long

    def hold(self, agent: Agent) -> Hold | None:
        if not self._working:
            return None
        if self._machine.load > self._machine.most_load:
            why = f"the machine's load is {self._machine.load:.1f}: above {self._machine.most_load:.1f}"
            return self._again(agent, why)
        if self._first and not agent.pause.frozen:  # a frozen agent has its memory, and frees none of it by waiting
            since = format_time(self.short_since[self._first.number])
            return self._again(agent, f"what memory comes free is for {self._first.label}, which waits since {since}")
        room = min(self._machine.free - self._machine.kept_free_bytes, self._machine.left) - self._promised
        if room < self._lacks(agent):
            why = f"{gigabytes(max(0, room))} of memory free, {gigabytes(self._lacks(agent))} needed"
            return self._again(agent, why)
        return None

    def started(self, agent: Agent) -> None:
        self._working.append(agent)
        self._promised += self._lacks(agent)

    def held(self, agent: Agent) -> None:
        if self._first:
            return  # behind that one it loses no patience
        kept_for_s = self._now - self.short_since.setdefault(agent.number, self._now) - PATIENCE_S
        if kept_for_s >= 0 and kept_for_s // KEPT_S % 2 == 0:
            self._first = agent

    def find_pauses(self) -> Mapping[int, Pause]:
        """Who gives its memory back, or takes no more, where memory is short: one after the other."""
        last = [one for one in self._live if one.pause.why == _SHORT]
        just_now = any(one.pause.ending or one.pause.not_before > self._now for one in last)
        found = self._to_shrink()
        if not self._is_short() or just_now or not found:
            return {}
        youngest = max(found, key=lambda agent: (agent.timing.started or 0, agent.number))
        ends = youngest.converses
        return {youngest.number: Pause(_SHORT, frozen=not ends, ending=ends, not_before=self._now + _AGAIN_S)}

    def next_pause_at(self) -> float:
        """When memory may be short though nothing has happened."""
        return self._now + _AGAIN_S if self._to_shrink() and self._machine.free < math.inf else math.inf

    def _is_short(self) -> bool:
        machine = self._machine
        return machine.free < machine.kept_free_bytes / 2 or machine.left < machine.in_all * _CLOSE

    def _to_shrink(self) -> list[Agent]:
        """Of whom one is to pause where memory is short: never the only one at work."""
        going_on = {agent.number for agent in self._working}
        frozen = [one for one in self._live if one.pause.frozen and one.converses and one.number not in going_on]
        running = [one for one in self._live if one.state in RUNS]
        return frozen or (running if len(self._working) > 1 else [])

    def _lacks(self, agent: Agent) -> float:
        """What the agent has yet to take, at its most."""
        need = self._machine.needs.get(program_key(agent), self._machine.default_need_bytes)
        return max(0, need - self._machine.taken.get(agent.number, 0))

    def _again(self, agent: Agent, why: str) -> Hold:
        """That, until it is looked again: in a moment, or at its next turn, or that of whom it waits behind."""
        whose = {agent.number, self._first.number if self._first else agent.number}
        turns = (_next_turn(self._now - self.short_since.get(number, self._now)) for number in whose)
        return Hold(why, self._now + min(_AGAIN_S, *turns))


def _next_turn(waited_s: float) -> float:
    """In how many seconds what comes free is kept for one that has waited so long, or is so no more."""
    past_s = waited_s - PATIENCE_S
    return KEPT_S - past_s % KEPT_S if past_s >= 0 else -past_s


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
