"""The cgroups of each attempt: their names, and the settings that enforce the attempt's limits.

The folders are read from the attempt's spec.json, since an earlier daemon may have created them in another place.
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

#: The folders in which this process can create cgroups. Cached, since the daemon stays in its cgroup.
find_cgroup_roots = functools.cache(cgroup_root.find_cgroup_roots)


class _Recorded(BaseModel):
    """The part of spec.json about cgroups."""

    cgroups: list[str] = []


_CPU_PERIOD_US = 100_000


def plan(folder: Path, limits: TreeLimits, total_limits: TreeLimits) -> dict[str, object]:
    """Return the part of spec.json that describes a new attempt's cgroups.

    The shim creates these cgroups.

    Args:
        folder: The attempt's folder.
        limits: The limits of this attempt.
        total_limits: The limits of all attempts together.
    """
    # A hierarchy that only measures CPU time is of use only for a limit of CPU time.
    roots = [root for root in find_cgroup_roots() if limits.cpu_s or not root.only_measures]
    folders = place(roots, _digest_of_path(folder.parent), _name(folder))
    return {"cgroups": folders, "cgroup_settings": settings(roots, folders, limits, total_limits)}


def place(roots: Iterable[cgroup_root.CgroupRoot], home: str, attempt: str) -> list[str]:
    """Return the folders of an attempt's cgroups, one for each root.

    Each folder is within the cgroup around all attempts.
    """
    return [f"{root.folder}/{cgroup_files.PREFIX}{home}/{cgroup_files.PREFIX}{attempt}" for root in roots]


def settings(
    roots: Iterable[cgroup_root.CgroupRoot], folders: Iterable[str], limits: TreeLimits, total_limits: TreeLimits
) -> list[list[str]]:
    """Return the file and value pairs that limit existing cgroups.

    The shim writes them in this order.
    """
    found: list[list[str]] = []
    for root, folder in zip(roots, folders, strict=True):
        home = os.path.dirname(folder)
        if root.version == 2:
            parents = (root.folder, home)
            found += [
                [f"{parent}/cgroup.subtree_control", f"+{name}"] for parent in parents for name in root.controllers
            ]
        # The watchdog ends the largest attempt at the total limit. The kernel refuses forks only far above it.
        doubled = 2 * total_limits.processes if total_limits.processes else None
        for each, own in ((home, replace(total_limits, processes=doubled)), (folder, limits)):
            found += [
                [f"{each}/{file}", value] for name in root.controllers for file, value in _values(root, name, own)
            ]
        if root.version == 2 and "memory" in root.controllers:
            found.append([f"{folder}/memory.oom.group", "1"])
    return found


def _values(root: cgroup_root.CgroupRoot, controller: str, limits: TreeLimits) -> list[tuple[str, str]]:
    """Return the files of a controller and the values that set these limits."""
    quota = str(int(limits.cpus * _CPU_PERIOD_US)) if limits.cpus else None
    match controller, root.version:
        case "memory", 2:  # no swap: otherwise an agent gets more than its limit, and slows the disk for everybody
            return [
                ("memory.max", str(limits.memory or "max")),
                ("memory.swap.max", "max" if limits.memory is None else "0"),
            ]
        case "memory", _:  # limit_in_bytes must never exceed memsw.limit_in_bytes: one of the first two writes may fail
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

    The first, if there is one, is used to find the attempt's processes.
    """
    with contextlib.suppress(OSError, ValidationError):
        found = _Recorded.model_validate_json((folder / "spec.json").read_bytes()).cgroups
        if found and all(cgroup.endswith(_name(folder)) for cgroup in found):
            return found
    return place(find_cgroup_roots(), _digest_of_path(folder.parent), _name(folder))


def find_attempt(attempts: Path, line: str) -> str | None:
    """Return the handle of the attempt to which a cgroup belongs, or `None`.

    Args:
        attempts: The folder with the folders of all attempts.
        line: A line of /proc/PID/cgroup.
    """
    _, _, within = line.partition(f"/{cgroup_files.PREFIX}{_digest_of_path(attempts)}/{cgroup_files.PREFIX}")
    handle = within.partition("/")[0].rpartition("-")[0]
    return handle if handle and within.partition("/")[0] == _name(attempts / handle) else None


def remove(folder: Path) -> None:
    """Remove an attempt's cgroups, unless they contain processes."""
    cgroup_files.remove(find(folder))


def _name(folder: Path) -> str:
    return f"{folder.name}-{_digest_of_path(folder)}"


def _digest_of_path(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
