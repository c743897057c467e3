"""What an attempt takes: memory, processes, CPU time; asked of its cgroups where these tell, else of its tree.

Standard library only, since the shim uses it too. Memory is what would be free if the attempt went: not the files that
the kernel caches for it, which a cgroup counts until they are in the way. In a tree, what processes share is counted
once, as the largest that one of them shares (its exact part, smaps_rollup's, takes a hundred times as long to ask), and
what a fork has not written to yet is counted for both. Threads count as processes, as they do for a cgroup.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from forkjoin.attempt import cgroup, process

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
#: What tells that a cgroup holds the limit, of version 2 or 1.
_MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
#: What counts as memory, of version 2; 1 has a line for what those within take, too.
_MEMORY_PARTS = ("anon", "shmem", "total_rss", "total_shmem")


class Usage(NamedTuple):
    memory: int = 0  #: bytes
    processes: int = 0
    cpu_s: float = 0


class Meter:
    """Measures the attempt of this shim, whose cgroups are these folders; `held` are the limits that were set there."""

    def __init__(self, folders: Sequence[str], held: Collection[str]) -> None:
        self.folders = folders
        here = {os.path.basename(file) for file in held if os.path.dirname(file) in folders and os.path.exists(file)}
        self.memory_is_held = any(name in here for name in _MEMORY_LIMITS)
        self.processes_are_held = "pids.max" in here

    def read(self) -> Usage:
        """What is taken now."""
        held = self.memory_is_held and self.processes_are_held
        tree = Usage() if held else of_tree(os.getpid())
        parts = self.ask("memory.stat")
        return Usage(
            sum(parts.get(name, 0) for name in _MEMORY_PARTS) if self.memory_is_held else tree.memory,
            self.ask("pids.current").get("", 0) if self.processes_are_held else tree.processes,
            self.ask("cpuacct.usage").get("", 0) / 1e9 or self.ask("cpu.stat").get("usage_usec", 0) / 1e6 or tree.cpu_s,
        )

    @property
    def memory_kills(self) -> int:
        """How many processes of it the kernel has killed for want of memory."""
        return self.ask("memory.events", "memory.oom_control").get("oom_kill", 0)

    @property
    def memory_peak(self) -> int:
        """The most that the kernel has counted, with the files that it caches."""
        return self.ask("memory.peak", "memory.max_usage_in_bytes").get("", 0)

    @property
    def refused_processes(self) -> int:
        return self.ask("pids.events").get("max", 0)

    @property
    def processes_peak(self) -> int:
        """The most that there were at once; 0 where the kernel is too old to tell."""
        return self.ask("pids.peak").get("", 0)

    def ask(self, *names: str) -> dict[str, int]:
        """The numbers in the first of these files that there is, by what they are called; one alone by ''."""
        for file in (f"{folder}/{name}" for name in names for folder in self.folders):
            if lines := [line.split() for line in cgroup.read(file).splitlines()]:
                return {"".join(words[:-1]): int(words[-1]) for words in lines}
        return {}


def of_tree(root: int) -> Usage:
    """What is taken by all below this process; of its own, only the CPU time of those that were below it."""
    anonymous = shared = count = ticks = 0
    for pid, fields in _tree(root):
        ticks += sum(map(int, fields[13 if pid == root else 11 : 15]))
        if pid != root:
            with contextlib.suppress(ValueError):  # it has just ended
                resident, of_files = map(int, cgroup.read(f"/proc/{pid}/statm").split()[1:3])
                anonymous += resident - of_files
                shared = max(shared, of_files)
                count += int(fields[17])
    return Usage((anonymous + shared) * _PAGE, count, ticks / _TICKS)


def _tree(root: int) -> Iterator[tuple[int, list[bytes]]]:
    """A process and all below it, with what its stat says; but no keeper, nor who is below one."""
    todo = [root]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):
            _, fields = process.read_stat(pid)
            if pid == root or int(fields[3]) != pid or not process.is_keeper(pid):  # a keeper leads a session
                yield pid, fields
                todo += _children(pid, int(fields[17]))


def _children(pid: int, threads: int) -> Iterator[int]:
    """A process's children, whichever of its threads has started them (proc_pid_task(5))."""
    for task in os.listdir(f"/proc/{pid}/task") if threads > 1 else (pid,):
        yield from map(int, cgroup.read(f"/proc/{pid}/task/{task}/children").split())
