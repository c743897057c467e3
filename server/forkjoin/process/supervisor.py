"""What no shim can see to by itself: that it goes on, that it heeds, and the limits of all attempts together.

A program may stop its shim, which is its watchdog: that is woken, and whoever does so again and again is ended.
A cgroup around all attempts keeps their processors and their memory to a limit by itself; of their processes it can
only refuse the next, to whoever asks for it, so that these are looked after here in any case, and it refuses only what
comes too fast for that.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.model import UNLIMITED, TreeLimits
from forkjoin.process import process_tree, shim_control
from forkjoin.process.cgroup_root import Base
from forkjoin.process.resource_limits import spell_bytes
from forkjoin.process.usage import Usage, of_tree

#: How often it is looked; a look at a hundred agents of five processes takes some 50 ms.
LOOK_EVERY_S = 1.0
#: How often a shim may be found stopped, and within how long.
_MOST_STOPS, _STOPS_S = 3, 60.0
_STOPPED = b"after its supervisor, which holds its limits, was stopped time and again"


def to_watch(in_all: TreeLimits, bases: Iterable[Base]) -> TreeLimits:
    """Those limits that no cgroup keeps."""
    is_held = any("memory" in base.controllers for base in bases)
    return TreeLimits(memory=None if is_held else in_all.memory, processes=in_all.processes)


class Guard:
    """Looks at attempts and their shims; `in_all` are the limits of all together that it is to keep."""

    def __init__(self, in_all: TreeLimits) -> None:
        self._in_all = in_all
        self._stops: dict[Path, list[float]] = {}  #: when each shim was found stopped, of late
        self._told: dict[Path, float] = {}  #: since when each was known to be told to end

    def look(self, folders: Iterable[Path]) -> list[Path]:
        """See to the attempts in these folders; those of them that live."""
        live = shim_control.find_live(folders)
        now = time.monotonic()
        self._stops = {
            folder: self._of_late(folder, now) + [now] * process_tree.wake(shim) for folder, shim in live.items()
        }
        self._told = {folder: self._told.get(folder, now) for folder in live if (folder / "over").exists()}
        for folder, since in self._told.items():
            if now >= since + shim_control.WAIT_S:
                shim_control.end_without(folder)
        self._tell({folder: shim for folder, shim in live.items() if folder not in self._told})
        return [*live]

    def _of_late(self, folder: Path, now: float) -> list[float]:
        return [at for at in self._stops.get(folder, ()) if at > now - _STOPS_S]

    def _tell(self, live: Mapping[Path, process_tree.Identity]) -> None:
        """Leave word for those that are to end."""
        for folder in live:
            if len(self._stops[folder]) >= _MOST_STOPS:
                write_atomically(folder / "over", _STOPPED)
        if self._in_all != UNLIMITED:
            past = find_past(self._in_all, {folder: of_tree(shim.pid, str(folder)) for folder, shim in live.items()})
            if past:
                folder, words = past
                write_atomically(folder / "over", words.encode())


def find_past(limits: TreeLimits, usages: Mapping[Path, Usage]) -> tuple[Path, str] | None:
    """The folder of the attempt to be ended, and by which limit, in words; none while they are within."""
    memory = sum(usage.memory for usage in usages.values())
    processes = sum(usage.processes for usage in usages.values())
    if limits.memory and memory > limits.memory:
        largest = max(usages, key=lambda folder: usages[folder].memory)
        own = spell_bytes(usages[largest].memory)
        return largest, f"by the memory limit of {spell_bytes(limits.memory)} of all agents together (its own: {own})"
    if limits.processes and processes > limits.processes:
        largest = max(usages, key=lambda folder: usages[folder].processes)
        limit = f"{limits.processes} processes and threads of all agents together"
        return largest, f"by the limit of {limit} (its own: {usages[largest].processes})"
    return None
