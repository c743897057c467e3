"""The cgroups of an attempt: as its folder tells, since another daemon may have made them elsewhere, or to be made."""

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from forkjoin.attempt import cgroup, hierarchy
from forkjoin.model import TreeLimits

#: Where this process may make cgroups, asked once: it stays where it is.
find_bases = functools.cache(hierarchy.find_bases)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What spec.json says of them; one of before an update knows of a single one."""

    cgroup: str | None = None
    cgroups: tuple[str, ...] = ()


_RECORDED = TypeAdapter(_Recorded)


def order(folder: Path, own: TreeLimits, in_all: TreeLimits) -> dict[str, object]:
    """What spec.json is to say of them: those of a new attempt, with these limits, and those of all together."""
    bases = [base for base in find_bases() if own.cpu_s or not base.only_measures]
    folders = hierarchy.place(bases, _digest(folder.parent), _name(folder))
    settings = hierarchy.settings(bases, folders, own, in_all)
    return {"cgroup": next(iter(folders), None), "cgroups": folders, "cgroup_settings": settings}


def find(folder: Path) -> list[str]:
    """Where they are, or would be; the first, if there is any, is what the attempt's processes are found by."""
    try:
        recorded = _RECORDED.validate_json((folder / "spec.json").read_bytes())
    except (OSError, ValidationError):
        recorded = _Recorded()
    found = list(recorded.cgroups) or [recorded.cgroup or ""]
    return found if all(group.endswith(_name(folder)) for group in found) else _place(folder)


def remove(folder: Path) -> None:
    """Remove them, if nobody is in them any more."""
    cgroup.remove(find(folder))


def _place(folder: Path) -> list[str]:
    return hierarchy.place(find_bases(), _digest(folder.parent), _name(folder))


def _name(folder: Path) -> str:
    return f"{folder.name}-{_digest(folder)}"


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
