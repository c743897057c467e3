"""What this machine has, as far as the cgroups around this process, a container's as a rule, let it have that."""

import math
import os

import psutil

from forkjoin.process import cgroup_files, cgroup_root
from forkjoin.process.executor import Capacity


def find() -> Capacity:
    available = int(min(psutil.virtual_memory().available, _bounds()[1]))
    return Capacity(os.cpu_count() or 1, find_memory(), available, os.getloadavg()[0])


def find_memory(process: str = "self") -> int:
    """Bytes of memory, for all together, where that process is their daemon."""
    return int(min(psutil.virtual_memory().total, _bounds(process)[0]))


def _bounds(process: str = "self") -> tuple[float, float]:
    """Bytes that the cgroups around a process, a container's as a rule, let it have in all, and from now on."""
    folders = cgroup_root.folders_of(process)
    own = folders.get("memory") or folders.get("", "")
    bounds = [(limit, _left(folder, limit)) for folder in (own, *cgroup_root.above(own)) if (limit := _limit(folder))]
    return min((limit for limit, _ in bounds), default=math.inf), min((left for _, left in bounds), default=math.inf)


def _limit(folder: str) -> int:
    told = cgroup_files.read(f"{folder}/memory.max") or cgroup_files.read(f"{folder}/memory.limit_in_bytes")
    return int(told) if told.strip().isdigit() else 0


def _left(folder: str, limit: int) -> int:
    """What is left of a limit: files that are cached can go."""
    used = cgroup_files.read(f"{folder}/memory.current") or cgroup_files.read(f"{folder}/memory.usage_in_bytes")
    told = dict(line.split(maxsplit=1) for line in cgroup_files.read(f"{folder}/memory.stat").splitlines())
    part = "total_{}" if "total_inactive_file" in told else "{}"  # version 1 counts those within apart
    files = sum(int(told.get(part.format(name), 0)) for name in ("inactive_file", "active_file"))
    return max(0, limit - int(used or 0) + files)
