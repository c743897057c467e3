"""The cgroups of an attempt and its limits: as its folder tells, since another daemon may have made them elsewhere."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from forkjoin.core.model import TreeLimits
from forkjoin.process import cgroup_files, cgroup_root

#: Where this process may make cgroups, asked once: it stays where it is.
find_bases = functools.cache(cgroup_root.find_bases)


class _Recorded(BaseModel):
    """What spec.json says of them."""

    cgroups: list[str] = []


_PERIOD_US = 100_000


def order(folder: Path, own: TreeLimits, in_all: TreeLimits) -> dict[str, object]:
    """What spec.json is to say of them: those of a new attempt, with these limits, and those of all together."""
    bases = [base for base in find_bases() if own.cpu_s or not base.only_measures]
    folders = place(bases, _digest(folder.parent), _name(folder))
    return {"cgroups": folders, "cgroup_settings": settings(bases, folders, own, in_all)}


def place(bases: Iterable[cgroup_root.Base], home: str, attempt: str) -> list[str]:
    """Where the cgroups of that attempt would be: one in each base, beside those of its home's other attempts."""
    return [f"{base.folder}/{cgroup_files.PREFIX}{home}/{cgroup_files.PREFIX}{attempt}" for base in bases]


def settings(
    bases: Iterable[cgroup_root.Base], folders: Iterable[str], own: TreeLimits, in_all: TreeLimits
) -> list[list[str]]:
    """What is to be written so that attempts' cgroups, which are there, hold these limits: file and value, in order."""
    found: list[list[str]] = []
    for base, folder in zip(bases, folders, strict=True):
        home = os.path.dirname(folder)
        if base.version == 2:
            above = (base.folder, home)
            found += [[f"{at}/cgroup.subtree_control", f"+{name}"] for at in above for name in base.controllers]
        # all together are ended one by one before they are refused what they ask for (guard.py)
        most = replace(in_all, processes=2 * in_all.processes if in_all.processes else None)
        for at, limits in ((home, most), (folder, own)):
            found += [[f"{at}/{file}", value] for name in base.controllers for file, value in _set(base, name, limits)]
        if base.version == 2 and "memory" in base.controllers:
            found.append([f"{folder}/memory.oom.group", "1"])
    return found


def _set(base: cgroup_root.Base, controller: str, limits: TreeLimits) -> list[tuple[str, str]]:
    quota = str(int(limits.cpus * _PERIOD_US)) if limits.cpus else None
    match controller, base.version:
        case "memory", 2:  # without swap: it would get more than its limit, slowly, and the disk would be everybody's
            return [
                ("memory.max", str(limits.memory or "max")),
                ("memory.swap.max", "max" if limits.memory is None else "0"),
            ]
        case "memory", _:  # the limit with swap is never below that without, so one of the two first fails, to rise
            first, second = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
            return [(file, str(limits.memory or -1)) for file in (first, second, first)]
        case "pids", _:
            return [("pids.max", str(limits.processes or "max"))]
        case "cpu", 2:
            return [("cpu.max", f"{quota or 'max'} {_PERIOD_US}")]
        case "cpu", _:
            return [("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", quota or "-1")]
        case _:
            return []


def find(folder: Path) -> list[str]:
    """Where they are, or would be; the first, if there is any, is what the attempt's processes are found by."""
    with contextlib.suppress(OSError, ValidationError):
        found = _Recorded.model_validate_json((folder / "spec.json").read_bytes()).cgroups
        if found and all(group.endswith(_name(folder)) for group in found):
            return found
    return place(find_bases(), _digest(folder.parent), _name(folder))


def find_attempt(attempts: Path, path: str) -> str | None:
    """Return the handle of the attempt in this folder whose cgroup, or one within it, a path in a hierarchy is."""
    _, _, within = path.partition(f"/{cgroup_files.PREFIX}{_digest(attempts)}/{cgroup_files.PREFIX}")
    handle = within.partition("/")[0].rpartition("-")[0]
    return handle if handle and within.partition("/")[0] == _name(attempts / handle) else None


def remove(folder: Path) -> None:
    """Remove them, if nobody is in them any more."""
    cgroup_files.remove(find(folder))


def _name(folder: Path) -> str:
    return f"{folder.name}-{_digest(folder)}"


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
