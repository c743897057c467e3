"""The daemon's watch over shims and over the limits of all attempts together.

A shim enforces its attempt's limits. A program could evade the limits by stopping its shim (SIGSTOP). So the
daemon resumes stopped shims. It ends an attempt whose shim is stopped again and again.

If there is a cgroup around all attempts, it enforces their total CPU and memory limits. A total number of processes
would only make it refuse forks, even those of small attempts. So the daemon itself counts processes, and ends the
attempt with the most.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.tree_limits import UNLIMITED, TreeLimits
from forkjoin.process import process_signals, shim_control
from forkjoin.process.cgroup_root import CgroupRoot
from forkjoin.process.process_table import ProcessIdentity
from forkjoin.process.resource_limits import format_bytes
from forkjoin.process.usage import ResourceUsage, measure_tree

#: Seconds between two checks. A check of 100 agents with 5 processes each takes about 50 ms.
CHECK_EVERY_S = 1.0
#: An attempt is ended if its shim was found stopped this often within this many seconds.
_MAX_STOPS, _STOPS_WINDOW_S = 3, 60.0
_STOPPED_SHIM = b"after its supervisor, which enforces its limits, was stopped again and again"


def limits_to_measure(total_limits: TreeLimits, roots: Iterable[CgroupRoot]) -> TreeLimits:
    """Return the limits of all attempts together that the daemon must measure itself.

    Args:
        roots: The folders in which cgroups for attempts are created.
    """
    is_enforced = any("memory" in root.controllers for root in roots)
    return TreeLimits(memory=None if is_enforced else total_limits.memory, processes=total_limits.processes)


class ShimWatchdog:
    """Resumes stopped shims, and ends attempts for limits that their shims can't enforce.

    Args:
        total_limits: The limits of all attempts together, as far as no cgroup enforces them.
    """

    def __init__(self, total_limits: TreeLimits) -> None:
        self._total_limits = total_limits
        self._stops: dict[Path, list[float]] = {}  #: times at which each shim was found stopped
        self._over_since: dict[Path, float] = {}  #: time at which each attempt's file `over` was first seen

    def check(self, folders: Iterable[Path]) -> list[Path]:
        """Check the attempts in these folders once. Return those whose shim is alive."""
        live = shim_control.find_live(folders)
        now = time.monotonic()
        self._stops = {
            folder: self._recent_stops(folder, now) + [now] * process_signals.resume_if_stopped(shim)
            for folder, shim in live.items()
        }
        self._over_since = {folder: self._over_since.get(folder, now) for folder in live if (folder / "over").exists()}
        for folder, since in self._over_since.items():
            if now >= since + shim_control.WAIT_S:
                shim_control.end_without_shim(folder)
        self._write_over({folder: shim for folder, shim in live.items() if folder not in self._over_since})
        return [*live]

    def _recent_stops(self, folder: Path, now: float) -> list[float]:
        return [at for at in self._stops.get(folder, ()) if at > now - _STOPS_WINDOW_S]

    def _write_over(self, live: Mapping[Path, ProcessIdentity]) -> None:
        """Write the file `over` of each attempt that must end, so that its shim ends it."""
        for folder in live:
            if len(self._stops[folder]) >= _MAX_STOPS:
                write_atomically(folder / "over", _STOPPED_SHIM)
        if self._total_limits != UNLIMITED:
            usages = {folder: measure_tree(shim.pid, str(folder)) for folder, shim in live.items()}
            if found := find_attempt_to_end(self._total_limits, usages):
                folder, message = found
                write_atomically(folder / "over", message.encode())


def find_attempt_to_end(total_limits: TreeLimits, usages: Mapping[Path, ResourceUsage]) -> tuple[Path, str] | None:
    """Return the folder of the attempt that must end for a total limit, and why.

    It is the largest attempt. Return `None` if all attempts together exceed no limit.

    Args:
        usages: The usage of each attempt, by its folder.
    """
    memory = sum(usage.memory for usage in usages.values())
    processes = sum(usage.processes for usage in usages.values())
    if total_limits.memory and memory > total_limits.memory:
        largest = max(usages, key=lambda folder: usages[folder].memory)
        limit = format_bytes(total_limits.memory)
        own = format_bytes(usages[largest].memory)
        return largest, f"by the memory limit of {limit} of all agents together (its own: {own})"
    if total_limits.processes and processes > total_limits.processes:
        largest = max(usages, key=lambda folder: usages[folder].processes)
        limit = f"{total_limits.processes} processes and threads of all agents together"
        return largest, f"by the limit of {limit} (its own: {usages[largest].processes})"
    return None
