"""Who starts next. Pure: what is → what to do, and why not more.

Higher priority first, then age. Dependencies, memory, money and rate limits are further reasons to wait; each is
another look at a queued agent, before the slots are counted.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

from forkjoin.model import ACTIVE, Agent, State

#: What an agent takes, until its own peak is known: a claude of about 400 MB, and what it runs.
_AGENT_BYTES = 1 << 30
#: Agents mostly wait for a model: more run than there are cores.
_AGENTS_PER_CORE = 4
_MOST_BY_DEFAULT = 16


@dataclass(frozen=True, slots=True)
class Decision:
    """Which queued agents start now, by number, and why each of the others waits."""

    start: tuple[int, ...]
    waiting: dict[int, str]


def in_order(agents: Sequence[Agent]) -> list[Agent]:
    """The queued ones in the order in which they start."""
    queued = (agent for agent in agents if agent.state is State.QUEUED)
    return sorted(queued, key=lambda agent: (-agent.spec.priority, agent.number))


def decide(agents: Sequence[Agent], max_running: int, without_environment: Set[int]) -> Decision:
    """What to start, of `agents` (all that are in no final state).

    Args:
        max_running: How many may be active at once.
        without_environment: Numbers of those whose lead's environment a restart has lost.
    """
    free = max_running - sum(agent.state in ACTIVE for agent in agents)
    start: list[int] = []
    waiting: dict[int, str] = {}
    for agent in in_order(agents):
        if agent.number in without_environment:
            waiting[agent.number] = "its lead's environment is gone since a restart; it comes back with its session"
        elif free > len(start):
            start.append(agent.number)
        else:
            waiting[agent.number] = f"all {max_running} slots are taken"
    return Decision(tuple(start), waiting)


def default_max_running(cores: int, free_memory_bytes: int) -> int:
    """How many agents this machine carries, where the settings don't say."""
    return max(1, min(cores * _AGENTS_PER_CORE, free_memory_bytes // _AGENT_BYTES, _MOST_BY_DEFAULT))
