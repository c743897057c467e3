"""Measurement of what an attempt uses: memory, processes and CPU time.

Standard library only, since the shim imports this module. Each number comes from the attempt's cgroups if they count
it, otherwise from its process tree.

Memory means the bytes that would become free if the attempt ended. So files that the kernel caches or maps do not
count, although a cgroup counts them until the kernel drops them. In a process tree, shared memory counts once, as the
largest amount that one process shares: exact numbers (smaps_rollup) take a hundred times as long. Pages that a fork has
not yet written to count for both processes. Threads count as processes, as they do in a cgroup.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from forkjoin.process import attempt_processes, cgroup_files, process_table

_TICKS = os.sysconf("SC_CLK_TCK")
#: A cgroup counts as full if fewer bytes than this are free. The kernel charges memory in batches, so that the count
#: may stay below the limit.
_CHARGE_BATCH = 65536
#: Files of cgroup v1 with the peak of memory use, and with its limit.
_PEAK_AND_LIMIT = ("memory.max_usage_in_bytes", "memory.limit_in_bytes")
#: Files of cgroup v2 and v1 with the memory limit.
_MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
#: Lines of memory.stat that count as memory. In version 1 the `total_` lines include descendant cgroups.
_MEMORY_LINES = ("anon", "shmem", "total_rss", "total_shmem")
#: Lines of memory.stat about mapped files, which do not count as memory.
_MAPPED_LINES = ("file_mapped", "total_mapped_file")


class ResourceUsage(NamedTuple):
    """The resources that an attempt uses."""

    memory: int = 0  #: bytes
    processes: int = 0  #: number of processes and threads
    cpu_s: float = 0  #: seconds of CPU time, ended processes included
    mapped: int = 0  #: bytes of mapped files; in a process tree, those of the process that has mapped most


class Meter:
    """Measures the attempt of the calling shim.

    Args:
        mark: The attempt's mark.
        cgroups: The folders of the attempt's cgroups.
        applied: The cgroup files of the settings that the kernel has accepted.
    """

    def __init__(self, mark: str, cgroups: Sequence[str], applied: Collection[str]) -> None:
        self.mark = mark
        self.cgroups = cgroups
        names = {
            os.path.basename(file) for file in applied if os.path.dirname(file) in cgroups and os.path.exists(file)
        }
        self.kernel_limits_memory = any(name in names for name in _MEMORY_LIMITS)
        self.kernel_limits_processes = "pids.max" in names
        self.was_full = [
            False,
            False,
        ]  #: in cgroup v1: for each of the last two calls of `is_full`, whether memory was at its limit

    def read(self) -> ResourceUsage:
        """Measure the current usage."""
        needs_tree = not (self.kernel_limits_memory and self.kernel_limits_processes)
        tree = measure_tree(os.getpid(), self.mark) if needs_tree else ResourceUsage()
        memory = self.read_numbers("memory.stat")
        cpu_ns = self.read_numbers("cpuacct.usage").get("", 0)
        cpu_us = self.read_numbers("cpu.stat").get("usage_usec", 0)
        return ResourceUsage(
            sum(memory.get(name, 0) for name in _MEMORY_LINES) if self.kernel_limits_memory else tree.memory,
            self.read_numbers("pids.current").get("", 0) if self.kernel_limits_processes else tree.processes,
            cpu_ns / 1e9 or cpu_us / 1e6 or tree.cpu_s,
            sum(memory.get(name, 0) for name in _MAPPED_LINES) if self.kernel_limits_memory else tree.mapped,
        )

    def find_exceeded_memory_limit(self) -> Literal["", "own", "total", "machine"]:
        """Return the memory limit for which the kernel has killed a process.

        "own" is the attempt's limit, and "total" that of all attempts together. "machine" is the memory of the machine,
        or the limit of another cgroup around the attempt's. Return "" if the kernel has killed no process, or only for
        the limit of a cgroup that the program itself has created.
        """
        events = self.read_numbers("memory.events", "memory.oom_control")
        if "oom" in events:
            own = self.read_numbers("memory.events.local").get("oom", events["oom"])
        else:
            own = int(self.is_full())
        if not events.get("oom_kill") or events.get("oom", 0) > own:
            return ""
        return "own" if own else "total" if self.total_was_full() else "machine"

    def is_full(self) -> bool:
        """Return whether memory was at its limit recently, in cgroup v1.

        Recently means since the call before the last one. Cached files count as memory here.
        """
        peak, limit = (self.read_numbers(name).get("", 0) for name in _PEAK_AND_LIMIT)
        self.was_full = [self.was_full[-1], peak > limit - _CHARGE_BATCH]
        for folder in self.cgroups:
            cgroup_files.write(f"{folder}/memory.max_usage_in_bytes", "0")
        return any(self.was_full)

    def total_was_full(self) -> bool:
        """Return whether all attempts together were at their memory limit."""
        homes = [os.path.dirname(folder) for folder in self.cgroups]
        # Before Linux 5.2, memory.events was local.
        events = _read_numbers(homes, "memory.events.local", "memory.events")
        peak, limit = (_read_numbers(homes, name).get("", 0) for name in _PEAK_AND_LIMIT)
        return events.get("oom", 0) > 0 or 0 < limit - _CHARGE_BATCH < peak

    @property
    def refused_forks(self) -> int:
        return self.read_numbers("pids.events").get("max", 0)

    @property
    def peak_processes(self) -> int:
        """Return the largest number of processes at a time.

        Return 0 if the kernel is too old to report it (before 6.1).
        """
        return self.read_numbers("pids.peak").get("", 0)

    def read_numbers(self, *names: str) -> dict[str, int]:
        return _read_numbers(self.cgroups, *names)


def _read_numbers(folders: Sequence[str], *names: str) -> dict[str, int]:
    """Return the numbers in the first of these files that exists.

    The keys are the words before the numbers. In a file with only one number, the key is "". Without such a file the
    dict is empty.
    """
    for file in (f"{folder}/{name}" for name in names for folder in folders):
        if lines := [line.split() for line in cgroup_files.read(file).splitlines()]:
            return {"".join(words[:-1]): int(words[-1]) for words in lines}
    return {}


def measure_tree(shim: int, mark: str) -> ResourceUsage:
    """Measure all descendants of a shim, and the CPU time of its ended children.

    The shim's own usage does not count.

    Args:
        shim: The shim's pid.
        mark: The attempt's mark.
    """
    anonymous = shared = mapped = count = ticks = 0
    for pid, fields in _walk_tree(shim, mark):
        ticks += sum(map(int, fields[13 if pid == shim else 11 : 15]))
        if pid != shim:
            resident = _read_resident_kb(pid)
            anonymous += resident.get("RssAnon", 0)
            shared, mapped = max(shared, resident.get("RssShmem", 0)), max(mapped, resident.get("RssFile", 0))
            count += int(fields[17])
    return ResourceUsage((anonymous + shared) * 1024, count, ticks / _TICKS, mapped * 1024)


def _read_resident_kb(pid: int) -> dict[str, int]:
    """Return the resident memory of a process in KB, by kind, e.g. "RssAnon".

    The dict is empty if the process has ended. See proc_pid_status(5).
    """
    lines = (line.split() for line in cgroup_files.read(f"/proc/{pid}/status").splitlines() if line.startswith("Rss"))
    return {name.rstrip(":"): int(size) for name, size, _ in lines}


def _walk_tree(shim: int, mark: str) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the pid and the stat fields of a shim and of each descendant.

    Supervisors below the shim, and their descendants, are left out.
    """
    pending = [shim]
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError):
            _, fields = process_table.read_stat(pid)
            # Each supervisor leads a session. This check is cheaper than the one of its environment and locks.
            leads_session = int(fields[3]) == pid
            if pid == shim or not leads_session or not attempt_processes.is_supervisor(pid, mark):
                yield pid, fields
                pending += process_table.list_children(pid, int(fields[17]))
