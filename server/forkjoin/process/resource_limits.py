"""The limits of an attempt other than time, and the detection of which limit was exceeded.

Standard library only, since the shim imports this module. Each limit is enforced in one of two ways. If a cgroup has
the limit, the kernel enforces it, and the shim asks the kernel whether the limit was reached. Otherwise the shim
measures the process tree every second, and more often if it grows fast. Without a cgroup that shares out the CPUs, the
program gets a higher nice value.

rlimits do not serve for memory and processes. RLIMIT_AS counts memory that Node and Bun reserve and never use.
RLIMIT_NPROC counts all processes of the user, and does not apply to root.
"""

import contextlib
import errno
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from forkjoin.process import cgroup_files
from forkjoin.process.usage import Meter, ResourceUsage

#: The longest and the shortest time between two measurements.
CHECK_EVERY_S, _SHORTEST_PAUSE_S = 1.0, 0.05
#: Seconds from SIGTERM to SIGKILL at the limit of CPU time. At other limits there is no grace period, since the program
#: would go on growing.
_GRACE_S = 5.0
#: Names of the cgroup files that limit CPU use, for version 2 and 1. A cgroup with one of them shares out the CPUs
#: fairly.
CPU_LIMIT_FILES = ("/cpu.max", "/cpu.cfs_quota_us")
_RLIMITS = {"file_size": resource.RLIMIT_FSIZE, "open_files": resource.RLIMIT_NOFILE}
#: The soft and hard limit of open files with which this process was started. The daemon raises its own limit, but
#: starts programs with these limits, since some programs loop over all possible descriptors or use select(2).
INHERITED_OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)
_OOM_SCORE = "/proc/self/oom_score_adj"
#: The kernel adds half of the machine's memory to the size of a process with this score, and kills the largest process
#: if memory runs out. So an agent is killed before the lead or the daemon, but after a process that is far larger.
_AGENT_OOM_SCORE = "500"
_NICENESS = 5
#: Bytes at the end of a program's output that are searched for the error message of a failed write.
_OUTPUT_TAIL = 4096


def apply_to_this_process(limits: Mapping[str, Any], *, nice: bool) -> None:
    """Set rlimits, OOM score and nice value of this process.

    The shim's child calls this before it becomes the program.

    Args:
        limits: The fields of `TreeLimits`.
        nice: Whether to raise the nice value.
    """
    for name, number in _RLIMITS.items():
        if limits.get(name) is not None:
            _, hard = resource.getrlimit(number)
            soft = limits[name] if hard == resource.RLIM_INFINITY else min(limits[name], hard)
            # The hard limit of open files is set too, since Node raises its soft limit to it. That of file sizes is
            # left alone: an agent's relay may start a daemon, which must be able to write larger files.
            resource.setrlimit(number, (soft, soft if name == "open_files" else hard))
    with contextlib.suppress(OSError):
        if int(cgroup_files.read(_OOM_SCORE) or 0) < int(_AGENT_OOM_SCORE):
            cgroup_files.write(_OOM_SCORE, _AGENT_OOM_SCORE)
    if nice:
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
        # If autogroups are enabled, nice values are compared only within a session. Between sessions the values of the
        # autogroups are compared (sched(7)).
        cgroup_files.write("/proc/self/autogroup", str(_NICENESS))


def reset_in_daemon() -> None:
    """Lift an agent's limits from the daemon, this process.

    The relay of an agent may have started the daemon. The soft limits of file size and open files are raised to the
    hard limits. An agent's OOM score is reset. A raised nice value remains, since only root can lower it.
    """
    with contextlib.suppress(ValueError, OSError):  # some systems refuse the hard limit that they report
        resource.setrlimit(resource.RLIMIT_NOFILE, (INHERITED_OPEN_FILES[1], INHERITED_OPEN_FILES[1]))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    if cgroup_files.read(_OOM_SCORE).strip() == _AGENT_OOM_SCORE:
        cgroup_files.write(_OOM_SCORE, "0")


class LimitMonitor:
    """Finds out whether the shim's attempt has exceeded a limit.

    Args:
        limits: The fields of `TreeLimits` for this attempt.
        total_limits: The fields of `TreeLimits` for all attempts together.
    """

    def __init__(self, limits: Mapping[str, Any], total_limits: Mapping[str, Any], meter: Meter) -> None:
        self.limits = limits
        self.total_limits = total_limits
        self.meter = meter
        self.exceeded = ""  #: a message about the limit that was exceeded; empty if none was
        self.grace = 0.0  #: seconds from SIGTERM to SIGKILL if the attempt is ended for `exceeded`
        self.peak_memory = 0  #: the most bytes of memory in a measurement
        self.peak_mapped = 0  #: the most bytes of mapped files in a measurement
        self.last_usage = ResourceUsage()
        self.last_check = time.monotonic()
        self.next_check = self.last_check + _SHORTEST_PAUSE_S

    def check(self) -> None:
        """Measure the attempt if that is due, and set `exceeded` if it is over a limit."""
        now = time.monotonic()
        if now >= self.next_check and not self.exceeded:
            usage = self.meter.read()
            self.peak_memory = max(self.peak_memory, usage.memory)
            self.peak_mapped = max(self.peak_mapped, usage.mapped)
            self.exceeded = self.find_exceeded(usage)
            self.next_check = now + self.pause(usage, now - self.last_check)
            self.last_usage, self.last_check = usage, now

    def pause(self, usage: ResourceUsage, elapsed: float) -> float:
        """Return the seconds until the next measurement.

        That is half of the time that the attempt needs to reach a limit, if it goes on growing as fast as since the
        last measurement. The two constants bound the result.

        Args:
            elapsed: Seconds since the last measurement.
        """
        half = CHECK_EVERY_S
        measured = (("memory", self.meter.kernel_limits_memory), ("processes", self.meter.kernel_limits_processes))
        for name, is_enforced in measured:
            value, before = getattr(usage, name), getattr(self.last_usage, name)
            if value > before and not is_enforced:
                half = min(half, ((self.limits.get(name) or math.inf) - value) / (value - before) * elapsed / 2)
        return max(_SHORTEST_PAUSE_S, half)

    def find_exceeded(self, usage: ResourceUsage) -> str:
        """Return a message about the limit that is exceeded, or an empty string."""
        return (
            cgroup_files.read("over")  # the daemon's message, if this attempt must end for a limit of all attempts
            or self.exceeds_memory(usage.memory)
            or self.exceeds_processes(usage.processes)
            or self.exceeds_cpu_time(usage.cpu_s)
        )

    def exceeds_memory(self, used: int) -> str:
        limit: int = self.limits.get("memory") or sys.maxsize
        if self.meter.kernel_limits_memory:
            exceeded = self.meter.find_exceeded_memory_limit()
        else:
            exceeded = "own" if used > limit else ""
        if not exceeded:
            return ""
        if exceeded == "own":
            # Measurements may have missed the peak. It was the limit, since the kernel kills only if memory is full.
            self.peak_memory = max(self.peak_memory, limit)
            subject = f"its memory limit of {format_bytes(limit)}"
        elif exceeded == "total" and (total := self.total_limits.get("memory")):
            subject = f"the memory limit of {format_bytes(total)} of all agents together"
        else:
            subject = "the kernel, since the machine had no memory left"
        return f"by {subject} (peak {format_bytes(self.peak_memory)})"

    def exceeds_processes(self, count: int) -> str:
        limit: int | None = self.limits.get("processes")
        if limit is None:
            return ""
        if self.meter.kernel_limits_processes:
            count = max(count, self.last_usage.processes, self.meter.peak_processes)
            # If the attempt has few processes, fork(2) failed for the limit of a cgroup around the attempt's.
            is_exceeded = self.meter.refused_forks and count > limit / 2
        else:
            is_exceeded = count > limit
        return f"by its limit of {limit} processes and threads (peak {count})" if is_exceeded else ""

    def exceeds_cpu_time(self, used_s: float) -> str:
        limit: float | None = self.limits.get("cpu_s")
        if limit is None or used_s < limit:
            return ""
        self.grace = _GRACE_S
        return f"by its limit of {format_seconds(limit)} of CPU time"

    def check_last(self, code: int, largest: int) -> None:
        """Find out whether a limit was the reason for the program's end.

        Args:
            code: The program's exit code, or the negative number of the signal that killed it.
            largest: The peak resident set size, in bytes, of the largest process that the program has waited for.
        """
        if code and not self.exceeded:
            self.next_check = 0
            self.check()
            self.exceeded = self.exceeded or self.exceeds_file_size(code)
        self.peak_memory = max(self.peak_memory, largest - self.peak_mapped)

    def exceeds_file_size(self, code: int) -> str:
        """Return a message if the program failed because of the file size limit, else "".

        At the limit the kernel sends SIGXFSZ, which kills the program. If the program ignores the signal, write(2)
        fails with EFBIG. So the message of that error is searched in the program's output.
        """
        limit: int | None = self.limits.get("file_size")
        is_killed = code in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ)
        message = os.strerror(errno.EFBIG)
        is_exceeded = limit and (is_killed or any(message in _read_tail(name) for name in ("errors", "output")))
        return f"by its limit of {format_bytes(limit or 0)} for a file" if is_exceeded else ""


def _read_tail(name: str) -> str:
    try:
        with open(name, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _OUTPUT_TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def format_seconds(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


def format_bytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
