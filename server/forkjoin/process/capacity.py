"""The CPUs and memory that attempts can use: those of the machine, or of the container around this process."""

import math
import os
from dataclasses import dataclass

import psutil

from forkjoin.process import cgroup_files, cgroup_root


@dataclass(frozen=True, slots=True)
class Capacity:
    """The size and load of the machine, within the limits of the cgroups around this process."""

    cores: int
    memory: int  #: bytes that this process and its descendants can use together
    free_memory: int  #: bytes of `memory` that are free now
    load: float  #: load average of the last minute


def measure_capacity() -> Capacity:
    free = int(min(psutil.virtual_memory().available, _memory_bounds("self")[1]))
    return Capacity(os.cpu_count() or 1, find_memory(), free, os.getloadavg()[0])


def find_memory(process: str = "self") -> int:
    """Return the bytes of memory that a process and its descendants can use together.

    That is the machine's memory, or the smallest limit of the cgroups around the process.

    Args:
        process: The pid, or "self".
    """
    return int(min(psutil.virtual_memory().total, _memory_bounds(process)[0]))


def _memory_bounds(process: str) -> tuple[float, float]:
    """Return the smallest memory limit and the smallest free memory, in bytes.

    Only the process's cgroup and the cgroups around it are considered. Both numbers are infinite if none has a limit.
    """
    folders = cgroup_root.cgroups_of(process)
    own = folders.get("memory") or folders.get("", "")
    bounds = [
        (limit, _free_memory(folder, limit))
        for folder in (own, *cgroup_root.ancestors(own))
        if (limit := _memory_limit(folder))
    ]
    return min((limit for limit, _ in bounds), default=math.inf), min((free for _, free in bounds), default=math.inf)


def _memory_limit(folder: str) -> int:
    """Return the memory limit of a cgroup in bytes, or 0 if it has none."""
    text = cgroup_files.read(f"{folder}/memory.max") or cgroup_files.read(f"{folder}/memory.limit_in_bytes")
    return int(text) if text.strip().isdigit() else 0


def _free_memory(folder: str, limit: int) -> int:
    """Return the bytes of a cgroup's limit that are free. Cached files count as free."""
    used = cgroup_files.read(f"{folder}/memory.current") or cgroup_files.read(f"{folder}/memory.usage_in_bytes")
    lines = dict(line.split(maxsplit=1) for line in cgroup_files.read(f"{folder}/memory.stat").splitlines())
    # In cgroup v1, only `total_` lines include child cgroups.
    form = "total_{}" if "total_inactive_file" in lines else "{}"
    cached = sum(int(lines.get(form.format(name), 0)) for name in ("inactive_file", "active_file"))
    return max(0, limit - int(used or 0) + cached)
