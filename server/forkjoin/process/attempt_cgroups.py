"""The cgroups of each attempt: their names, and the settings that enforce the attempt's limits.

The folders of an existing attempt are read from its spec.json, since the daemon that started it may have found other
places for cgroups than this daemon.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from forkjoin.core.tree_limits import TreeLimits
from forkjoin.process import cgroup_files, cgroup_root

#: Returns the folders in which this process can create cgroups. Cached, since they depend on the daemon's own cgroup,
#: which doesn't change.
find_cgroup_roots = functools.cache(cgroup_root.find_cgroup_roots)


class _Recorded(BaseModel):
    """The keys of spec.json that are read here."""

    cgroups: list[str] = []


_CPU_PERIOD_US = 100_000


def plan(folder: Path, limits: TreeLimits, total_limits: TreeLimits) -> dict[str, object]:
    """Return the part of spec.json from which the shim creates cgroups.

    Args:
        folder: The attempt's folder.
        limits: The limits of this attempt.
        total_limits: The limits of all attempts together.
    """
    # Joining a hierarchy takes time. One that only measures CPU time is needed only for a limit of CPU time.
    roots = [root for root in find_cgroup_roots() if limits.cpu_s or not root.only_measures]
    folders = place(roots, _digest_of_path(folder.parent), _name(folder))
    return {"cgroups": folders, "cgroup_settings": settings(roots, folders, limits, total_limits)}


def place(roots: Iterable[cgroup_root.CgroupRoot], home: str, attempt: str) -> list[str]:
    """Return the folders of an attempt's cgroups, one in each root.

    Args:
        home: The digest that names the cgroup around all attempts of this home.
        attempt: The name of the attempt within that cgroup.
    """
    return [f"{root.folder}/{cgroup_files.PREFIX}{home}/{cgroup_files.PREFIX}{attempt}" for root in roots]


def settings(
    roots: Iterable[cgroup_root.CgroupRoot], folders: Iterable[str], limits: TreeLimits, total_limits: TreeLimits
) -> list[list[str]]:
    """Return pairs of a file and a value, in the order in which the shim writes them.

    Args:
        folders: The folder of the attempt's cgroup in each of the roots.
        limits: The limits of this attempt.
        total_limits: The limits of all attempts together.
    """
    found: list[list[str]] = []
    for root, folder in zip(roots, folders, strict=True):
        home = os.path.dirname(folder)
        if root.version == 2:
            parents = (root.folder, home)
            found += [
                [f"{parent}/cgroup.subtree_control", f"+{name}"] for parent in parents for name in root.controllers
            ]
        # At the total number of processes, the watchdog ends the largest attempt. If the kernel had the same limit, it
        # would refuse forks to every attempt before that.
        doubled = 2 * total_limits.processes if total_limits.processes else None
        for each, own in ((home, replace(total_limits, processes=doubled)), (folder, limits)):
            found += [
                [f"{each}/{file}", value] for name in root.controllers for file, value in _values(root, name, own)
            ]
        if root.version == 2 and "memory" in root.controllers:
            found.append([f"{folder}/memory.oom.group", "1"])
    return found


def _values(root: cgroup_root.CgroupRoot, controller: str, limits: TreeLimits) -> list[tuple[str, str]]:
    """Return the names of a controller's files, and the values that set these limits."""
    quota = str(int(limits.cpus * _CPU_PERIOD_US)) if limits.cpus else None
    match controller, root.version:
        case "memory", 2:  # without swap, since its use would not count as memory and would slow down the machine
            return [
                ("memory.max", str(limits.memory or "max")),
                ("memory.swap.max", "max" if limits.memory is None else "0"),
            ]
        case "memory", _:  # the first may not exceed the second, so a higher value is accepted only at the end
            first, second = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
            return [(file, str(limits.memory or -1)) for file in (first, second, first)]
        case "pids", _:
            return [("pids.max", str(limits.processes or "max"))]
        case "cpu", 2:
            return [("cpu.max", f"{quota or 'max'} {_CPU_PERIOD_US}")]
        case "cpu", _:
            return [("cpu.cfs_period_us", str(_CPU_PERIOD_US)), ("cpu.cfs_quota_us", quota or "-1")]
        case _:
            return []


def find(folder: Path) -> list[str]:
    """Return the folders of an attempt's cgroups, whether they exist or not.

    All processes of the attempt are in each of them, so that the first is enough to find the processes.
    """
    with contextlib.suppress(OSError, ValidationError):
        found = _Recorded.model_validate_json((folder / "spec.json").read_bytes()).cgroups
        if found and all(cgroup.endswith(_name(folder)) for cgroup in found):
            return found
    return place(find_cgroup_roots(), _digest_of_path(folder.parent), _name(folder))


def find_attempt(attempts: Path, line: str) -> str | None:
    """Return the handle of the attempt to which a cgroup belongs.

    Return `None` if the cgroup belongs to no attempt in the folder.

    Args:
        attempts: The folder with the folders of all attempts.
        line: A line of /proc/PID/cgroup.
    """
    _, _, within = line.partition(f"/{cgroup_files.PREFIX}{_digest_of_path(attempts)}/{cgroup_files.PREFIX}")
    handle = within.partition("/")[0].rpartition("-")[0]
    return handle if handle and within.partition("/")[0] == _name(attempts / handle) else None


def remove_cgroups_of(folder: Path) -> None:
    """Remove the cgroups of an attempt. A cgroup that contains processes remains."""
    cgroup_files.remove_empty(find(folder))


def _name(folder: Path) -> str:
    return f"{folder.name}-{_digest_of_path(folder)}"


def _digest_of_path(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
