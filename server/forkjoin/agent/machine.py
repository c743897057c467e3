"""What the machine has, what agents take of it, and what of that is learned of their kind."""

import logging
import math
from collections.abc import Sequence

from forkjoin.agent.prepare import handle_of
from forkjoin.decision.machine import FIRST_NEED, Machine, kind_of, learn
from forkjoin.model import Agent, Outcome
from forkjoin.rooms import Rooms

log = logging.getLogger(__name__)

#: The part of the machine's memory that is kept free, and the least of it, where the settings don't say.
_KEPT, _KEPT_BYTES = 0.05, 500_000_000
#: The part of what all may take together that one is thought to need, at most, until its kind is known.
_FIRST_PART = 0.25
#: Programs that want each processor: more only makes all of them slower.
_LOAD_PER_CORE = 4


async def look_at_machine(rooms: Rooms, live: Sequence[Agent]) -> Machine | None:
    """What there is room for now; none where that can't be told, and nobody is held for it."""
    try:
        return await _look(rooms, live)
    except OSError as error:
        log.warning("what the machine has can't be told now: %s", error)
        return None


async def _look(rooms: Rooms, live: Sequence[Agent]) -> Machine:
    limits = rooms.settings.limits
    has = await rooms.executor.capacity()
    found = await rooms.executor.taken(handle_of(agent) for agent in live if agent.under_way)
    in_all = limits.memory or math.inf
    by_default = max(_KEPT_BYTES, int(has.memory * _KEPT))
    kept_free = by_default if limits.free_memory is None else limits.free_memory
    return Machine(
        free=min(has.free_memory, in_all - sum(found.values()) + kept_free),
        kept_free=kept_free,
        load=has.load,
        most_load=limits.max_load or has.cores * _LOAD_PER_CORE,
        first_need=min(FIRST_NEED, limits.memory_per_agent or math.inf, in_all * _FIRST_PART),
        taken={agent.number: found.get(handle_of(agent), 0) for agent in live if agent.under_way},
        needs=await rooms.store.peaks(),
    )


async def note_peak(rooms: Rooms, agent: Agent, outcome: Outcome) -> None:
    """Learn from what an attempt has needed; one that was cut off says little of what it would have."""
    if outcome.peak_memory_bytes and not outcome.asked:
        kind = kind_of(agent)
        known = (await rooms.store.peaks()).get(kind)
        await rooms.store.set_peak(*kind, learn(known, outcome.peak_memory_bytes))
