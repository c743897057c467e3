"""Measurements of the machine's free resources and of the memory that agents use."""

import logging
import math
import time
from collections.abc import Sequence

from forkjoin.core.model import Agent
from forkjoin.core.outcome import Outcome
from forkjoin.process.capacity import Capacity
from forkjoin.scheduling.machine_capacity import DEFAULT_NEED_BYTES, MachineState, program_key, update_need
from forkjoin.services import Services

log = logging.getLogger(__name__)

#: The share of the memory that is kept free unless the settings say otherwise, and the least number of bytes.
_KEPT_FREE_SHARE, _KEPT_FREE_BYTES = 0.05, 500_000_000
#: The maximum share of the memory limit that an agent is assumed to need while no attempt of its program was measured.
_ASSUMED_SHARE = 0.25
#: The load per processor above which no agent starts.
_LOAD_PER_CORE = 4
#: Seconds for which a measurement is reused, since each measurement reads all processes.
_REUSED_S = 1.0


class MachineMonitor:
    """Measures the machine for the scheduler, at most once a second."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._measured_at = -math.inf
        self._capacity = Capacity(1, 0, 0, 0)
        self._used: dict[str, int] = {}

    async def measure(self, live: Sequence[Agent]) -> MachineState | None:
        """Return the state of the machine, or `None` if it can't be measured now.

        Args:
            live: All agents that have not ended.
        """
        try:
            if time.monotonic() >= self._measured_at + _REUSED_S:
                self._capacity = await self._services.executor.capacity()
                self._used = await self._services.executor.measure_memory(
                    agent.handle for agent in live if agent.under_way
                )
                self._measured_at = time.monotonic()
        except Exception as error:  # a boundary: agents start even if /proc is unreadable
            log.warning("the machine's resources can't be measured: %s", error)
            return None
        return await self._machine_state(live)

    async def _machine_state(self, live: Sequence[Agent]) -> MachineState:
        limits, has, used = self._services.settings.limits, self._capacity, self._used
        in_all = limits.memory or math.inf
        by_default = max(_KEPT_FREE_BYTES, int(has.memory * _KEPT_FREE_SHARE))
        kept_free_bytes = by_default if limits.free_memory is None else limits.free_memory
        return MachineState(
            free_bytes=has.free_memory,
            kept_free_bytes=kept_free_bytes,
            left_bytes=in_all - sum(used.values()),
            limit_bytes=in_all,
            load=has.load,
            max_load=limits.max_load or has.cores * _LOAD_PER_CORE,
            default_need_bytes=min(DEFAULT_NEED_BYTES, limits.memory_per_agent or math.inf, in_all * _ASSUMED_SHARE),
            used_bytes={agent.number: used.get(agent.handle, 0) for agent in live if agent.under_way},
            needed_bytes=await self._services.store.projects.memory_peaks(),
        )


async def record_peak_memory(services: Services, agent: Agent, outcome: Outcome) -> None:
    """Update the memory that agents with this program are expected to need.

    An attempt that was asked to end does not count, since it may have used more memory later.
    """
    if outcome.peak_memory_bytes and not outcome.asked:
        key = program_key(agent)
        known = (await services.store.projects.memory_peaks()).get(key)
        await services.store.projects.set_memory_peak(*key, update_need(known, outcome.peak_memory_bytes))
