"""What an attempt takes: memory, processes, CPU time; asked of its cgroups where these tell, else of its tree.

Standard library only, since the shim uses it too. Memory is what would be free if the attempt went: not the files that
the kernel caches or maps for it, which a cgroup counts until they are in the way. In a tree, what processes share is
counted once, as the largest that one of them shares (its exact part, smaps_rollup's, takes a hundred times as long to
ask), and what a fork has not written to yet is counted for both. Threads count as processes, as they do for a cgroup.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from forkjoin.process import cgroup_files, process_tree

_TICKS = os.sysconf("SC_CLK_TCK")
#: The most that the kernel asks for at once before it ends somebody for want of it.
_STEP = 65536
#: What tells of version 1 how much it has had of how much.
_MOST = ("memory.max_usage_in_bytes", "memory.limit_in_bytes")
#: What tells that a cgroup holds the limit, of version 2 or 1.
_MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
#: What counts as memory, and what does not though a process has it, of version 2; 1 has lines with those within, too.
_MEMORY_PARTS, _MAPPED_PARTS = ("anon", "shmem", "total_rss", "total_shmem"), ("file_mapped", "total_mapped_file")


class Usage(NamedTuple):
    memory: int = 0  #: bytes
    processes: int = 0
    cpu_s: float = 0
    mapped: int = 0  #: bytes of files; in a tree, of the process that has most


class Meter:
    """Measures this shim's attempt, with this mark and these cgroups; `held` are the limits that were set there."""

    def __init__(self, mark: str, folders: Sequence[str], held: Collection[str]) -> None:
        self.mark = mark
        self.folders = folders
        here = {os.path.basename(file) for file in held if os.path.dirname(file) in folders and os.path.exists(file)}
        self.memory_is_held = any(name in here for name in _MEMORY_LIMITS)
        self.processes_are_held = "pids.max" in here
        self.was_full = [False, False]  #: version 1: whether it was at its limit of memory, at the last two looks

    def read(self) -> Usage:
        """What is taken now."""
        held = self.memory_is_held and self.processes_are_held
        tree = Usage() if held else of_tree(os.getpid(), self.mark)
        parts = self.ask("memory.stat")
        return Usage(
            sum(parts.get(name, 0) for name in _MEMORY_PARTS) if self.memory_is_held else tree.memory,
            self.ask("pids.current").get("", 0) if self.processes_are_held else tree.processes,
            self.ask("cpuacct.usage").get("", 0) / 1e9 or self.ask("cpu.stat").get("usage_usec", 0) / 1e6 or tree.cpu_s,
            sum(parts.get(name, 0) for name in _MAPPED_PARTS) if self.memory_is_held else tree.mapped,
        )

    def find_killer(self) -> Literal["", "own", "together", "around"]:
        """Whose limit of memory has had the kernel kill one of it; '' for none, or one within. Asked each look."""
        events = self.ask("memory.events", "memory.oom_control")
        own = int(self.is_full()) if "oom" not in events else self.ask("memory.events.local").get("oom", events["oom"])
        if not events.get("oom_kill") or events.get("oom", 0) > own:
            return ""
        return "own" if own else "together" if self.home_was_full() else "around"

    def is_full(self) -> bool:
        """Whether it was at its limit of late: all that version 1 tells, which counts files that are cached."""
        most, limit = (self.ask(name).get("", 0) for name in _MOST)
        self.was_full = [self.was_full[-1], most > limit - _STEP]
        for folder in self.folders:
            cgroup_files.write(f"{folder}/memory.max_usage_in_bytes", "0")  # the most from now on
        return any(self.was_full)

    def home_was_full(self) -> bool:
        """Whether all together have been at their limit, which the cgroup around holds; 1 counts cached files again."""
        homes = [os.path.dirname(folder) for folder in self.folders]
        events = _ask(homes, "memory.events.local", "memory.events")  # that is as local before Linux 5.2
        most, limit = (_ask(homes, name).get("", 0) for name in _MOST)
        return events.get("oom", 0) > 0 or 0 < limit - _STEP < most

    @property
    def refused_processes(self) -> int:
        return self.ask("pids.events").get("max", 0)

    @property
    def processes_peak(self) -> int:
        """The most that there were at once; 0 where the kernel is too old to tell."""
        return self.ask("pids.peak").get("", 0)

    def ask(self, *names: str) -> dict[str, int]:
        return _ask(self.folders, *names)


def _ask(folders: Sequence[str], *names: str) -> dict[str, int]:
    """The numbers in the first of these files that there is, by what they are called; one alone by ''."""
    for file in (f"{folder}/{name}" for name in names for folder in folders):
        if lines := [line.split() for line in cgroup_files.read(file).splitlines()]:
            return {"".join(words[:-1]): int(words[-1]) for words in lines}
    return {}


def of_tree(root: int, mark: str) -> Usage:
    """What is taken by all below the shim of this attempt; of its own, only the CPU time of those that were below."""
    anonymous = shared = mapped = count = ticks = 0
    for pid, fields in _tree(root, mark):
        ticks += sum(map(int, fields[13 if pid == root else 11 : 15]))
        if pid != root:
            has = _resident(pid)
            anonymous += has.get("RssAnon", 0)
            shared, mapped = max(shared, has.get("RssShmem", 0)), max(mapped, has.get("RssFile", 0))
            count += int(fields[17])
    return Usage((anonymous + shared) * 1024, count, ticks / _TICKS, mapped * 1024)


def _resident(pid: int) -> dict[str, int]:
    """What of it is in memory, in KB, by kind (proc_pid_status(5)); nothing once it has ended."""
    lines = (line.split() for line in cgroup_files.read(f"/proc/{pid}/status").splitlines() if line.startswith("Rss"))
    return {name.rstrip(":"): int(size) for name, size, _ in lines}


def _tree(root: int, mark: str) -> Iterator[tuple[int, list[bytes]]]:
    """A process and all below it, with what its stat says; but no keeper, nor who is below one."""
    todo = [root]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):
            _, fields = process_tree.read_stat(pid)
            if (
                pid == root or int(fields[3]) != pid or not process_tree.is_keeper(pid, mark)
            ):  # a keeper leads a session
                yield pid, fields
                todo += process_tree.children(pid, int(fields[17]))
