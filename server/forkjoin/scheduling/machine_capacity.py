"""The machine's memory and load: whether another agent may start, and which agent gives memory back. Pure.

An agent starts when the memory that it needs is free. Memory that running agents are still expected to take does not
count as free. The first agent in the queue that does not fit reserves the memory that becomes free, so that all agents
after it wait too.

If memory runs short anyway, no agent starts, and one agent after the other gives way. Frozen agents that can be
resumed are ended first, because they do no work. Next is the youngest running agent: it is ended if it can be resumed
in its conversation, else it is frozen and takes no more memory.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forkjoin.core.model import ACTIVE, RUNS, Agent, Pause, PauseKind, PauseReason
from forkjoin.scheduling.gates import Gate, Hold

#: Bytes that an agent needs until its program's use is known: a claude of about 400 MB, and what it runs.
DEFAULT_NEED_BYTES = 1_000_000_000
#: Seconds until the next decision while an agent waits for capacity, or may have to give way.
_CHECK_INTERVAL_S = 5.0
#: The fraction of the memory limit for all agents. An agent gives way when less of it is left, since at the limit an
#: agent is killed.
_LEAST_PART_LEFT = 0.05
#: The part of the difference by which a smaller peak lowers what a program is expected to need.
_DECAY = 0.25

#: Agents with the same key, a project and the name of a program, are expected to need the same memory.
ProgramKey = tuple[int, str]


@dataclass(frozen=True, slots=True)
class MachineState:
    """The machine's free memory and load, and what agents use and need of its memory."""

    free_bytes: float
    kept_free_bytes: int  #: memory for the person, the lead and the daemon
    left_bytes: float = math.inf  #: unused part of the memory limit for all agents
    limit_bytes: float = math.inf  #: the memory limit for all agents
    load: float = 0  #: average number of programs that wanted a processor during the last minute
    max_load: float = 1  #: no agent starts while the load is higher
    default_need_bytes: float = DEFAULT_NEED_BYTES  #: for a program whose use is not known yet
    used_bytes: Mapping[int, int] = field(default_factory=dict[int, int])  #: what each agent uses now, by number
    #: What an agent with each program is expected to need; a program that never ran is missing.
    needed_bytes: Mapping[ProgramKey, int] = field(default_factory=dict[ProgramKey, int])


def program_key(agent: Agent) -> ProgramKey:
    return agent.project, agent.spec.agent or ""


def update_need(known: int | None, peak: int) -> int:
    """Return the bytes that a program is expected to need, after a new peak.

    The peak is the largest use of memory by an agent with this program. A larger peak counts at once. A smaller one
    lowers the expectation by a quarter of the difference.

    Args:
        known: The expectation until now; `None` if the program never ran.
    """
    if known is None or peak > known:
        return peak
    return round(known - (known - peak) * _DECAY)


class MachineGate(Gate):
    """The gate that checks free memory and the load.

    If no other agent is at work, an agent always passes: otherwise a small machine would never run it.
    """

    def __init__(self, live: Sequence[Agent], machine: MachineState | None, now: float) -> None:
        self._live = live
        self._machine = machine or MachineState(math.inf, 0, max_load=math.inf)
        self._now = now
        self._at_work = [agent for agent in live if agent.state in ACTIVE]
        self._expected_bytes: float = sum(map(self._still_needed_bytes, self._at_work))
        self._reserved_for: Agent | None = None  #: the first agent that did not fit

    def check(self, agent: Agent) -> Hold | None:
        machine, next_check = self._machine, self._now + _CHECK_INTERVAL_S
        if not self._at_work:
            return None
        if machine.load > machine.max_load:
            return Hold(f"the machine's load is {machine.load:.1f}: above {machine.max_load:.1f}", next_check)
        if self._reserved_for and agent.phase is not PauseKind.FROZEN:  # a frozen agent has its memory already
            return Hold(f"memory that becomes free is reserved for {self._reserved_for.label}", next_check)
        needed = self._still_needed_bytes(agent)
        free = min(machine.free_bytes - machine.kept_free_bytes, machine.left_bytes) - self._expected_bytes
        if free < needed:
            return Hold(f"{_gigabytes(max(0, free))} of memory free, {_gigabytes(needed)} needed", next_check)
        return None

    def on_start(self, agent: Agent) -> None:
        self._at_work.append(agent)
        self._expected_bytes += self._still_needed_bytes(agent)

    def on_hold(self, agent: Agent) -> None:
        self._reserved_for = self._reserved_for or agent

    def find_pauses(self) -> Mapping[int, Pause]:
        """Return the pause of the agent that gives way if memory is short, by number.

        No further agent pauses while an earlier pause has not yet freed its memory.
        """
        paused = [agent for agent in self._live if agent.pause.reason is PauseReason.MEMORY]
        is_taking_effect = any(
            agent.phase is PauseKind.ENDING or agent.pause.not_before > self._now for agent in paused
        )
        candidates = self._candidates_to_pause()
        if not self._is_memory_short() or is_taking_effect or not candidates:
            return {}
        youngest = max(candidates, key=lambda agent: (agent.timing.started or 0, agent.number))
        kind = PauseKind.ENDING if youngest.converses else PauseKind.FROZEN
        not_before = self._now + _CHECK_INTERVAL_S
        return {youngest.number: Pause(PauseReason.MEMORY, kind=kind, not_before=not_before)}

    def next_pause_at(self) -> float:
        can_pause = self._candidates_to_pause() and self._machine.free_bytes < math.inf
        return self._now + _CHECK_INTERVAL_S if can_pause else math.inf

    def _is_memory_short(self) -> bool:
        machine = self._machine
        is_machine_short = machine.free_bytes < machine.kept_free_bytes / 2
        return is_machine_short or machine.left_bytes < machine.limit_bytes * _LEAST_PART_LEFT

    def _candidates_to_pause(self) -> list[Agent]:
        """Return the agents of which one may be paused to free memory.

        These are frozen agents that can be resumed, or else the running agents. The only agent at work is not paused.
        """
        at_work = {agent.number for agent in self._at_work}
        resumable = [agent for agent in self._live if agent.phase is PauseKind.FROZEN and agent.converses]
        frozen = [agent for agent in resumable if agent.number not in at_work]
        running = [agent for agent in self._live if agent.state in RUNS]
        return frozen or (running if len(self._at_work) > 1 else [])

    def _still_needed_bytes(self, agent: Agent) -> float:
        """Return the additional bytes that the agent is expected to take."""
        needed = self._machine.needed_bytes.get(program_key(agent), self._machine.default_need_bytes)
        return max(0, needed - self._machine.used_bytes.get(agent.number, 0))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
