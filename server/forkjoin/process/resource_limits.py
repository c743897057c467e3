"""An attempt's limits, time apart: which is reached, in words, and the most memory that it had.

Standard library only, since the shim uses it too. There are two tiers, for each limit by itself. Where a cgroup holds
it, the kernel lets nobody past, and it is asked whether it had to keep somebody from it. Elsewhere a watchdog looks
over the tree once a second, and sooner the faster that grows; the program is nice there. Memory and processes
are no rlimits: RLIMIT_AS counts what Node and Bun reserve and never use, RLIMIT_NPROC whatever else the user runs, and
of root nothing.
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
from forkjoin.process.usage import Meter, Usage

#: How often it is looked what the attempt takes: no more seldom, and no sooner.
LOOK_EVERY_S, _SOONEST_S = 1.0, 0.05
#: From TERM to KILL for one that takes too much; what grows must not go on growing meanwhile.
_GRACE_S = 5.0
#: What holds how much of the processors a cgroup gets, of either version: where one does, shares are fair.
FAIR = ("/cpu.max", "/cpu.cfs_quota_us")
_FILE_LIMITS = {"file_size": resource.RLIMIT_FSIZE, "open_files": resource.RLIMIT_NOFILE}
#: How many files this process was started to have open, soft and hard: its programs, which may count or close all that
#: they could have (select(2)), get that again, whatever the daemon has raised it to.
OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)
_OOM_SCORE = "/proc/self/oom_score_adj"
#: As if it had half of the machine's memory more than it has: so an agent is killed before its lead, or a daemon, when
#: the machine has none left, but not before what is far larger than that.
_GOES_FIRST = "500"
_NICENESS = 5
#: Of the end of what is printed, where a program says why it failed.
_WORDS = 4096


def impose(limits: Mapping[str, Any], *, nice: bool) -> None:
    """Be under those limits that the kernel holds for each process alone, and go first when the machine is in need."""
    for name, number in _FILE_LIMITS.items():
        if limits.get(name) is not None:
            _, hard = resource.getrlimit(number)
            soft = limits[name] if hard == resource.RLIM_INFINITY else min(limits[name], hard)
            # a Node raises how many files it may have open to the hard limit; a daemon must be able to write more
            resource.setrlimit(number, (soft, soft if name == "open_files" else hard))
    with contextlib.suppress(OSError):
        if int(cgroup_files.read(_OOM_SCORE) or 0) < int(_GOES_FIRST):
            cgroup_files.write(_OOM_SCORE, _GOES_FIRST)
    if nice:
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
        cgroup_files.write(
            "/proc/self/autogroup", str(_NICENESS)
        )  # where there are such groups, theirs counts (sched(7))


def lift() -> None:
    """Be under none, in a daemon: an agent's relay may have started it. Niceness stays, which only root can lower.

    It may have open as many files as it is allowed.
    """
    with contextlib.suppress(ValueError, OSError):  # some systems let nobody have what they call the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES[1], OPEN_FILES[1]))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    if cgroup_files.read(_OOM_SCORE).strip() == _GOES_FIRST:
        cgroup_files.write(_OOM_SCORE, "0")


class Watch:
    """Looks what the attempt of this shim takes. `in_all` are the limits of all attempts together."""

    def __init__(self, limits: Mapping[str, Any], in_all: Mapping[str, Any], meter: Meter) -> None:
        self.limits = limits
        self.in_all = in_all
        self.meter = meter
        self.reached = ""  #: the limit that it is past, in words
        self.grace = 0.0  #: within which it is to end then
        self.peak = self.mapped = 0  #: the most that was seen, of memory and of mapped files
        self.last = Usage()
        self.looked = time.monotonic()
        self.next_look = self.looked + _SOONEST_S

    def look(self) -> None:
        """See what it takes, if it is time to."""
        now = time.monotonic()
        if now >= self.next_look and not self.reached:
            usage = self.meter.read()
            self.peak, self.mapped = max(self.peak, usage.memory), max(self.mapped, usage.mapped)
            self.reached = self.find(usage)
            self.next_look = now + self.pause(usage, now - self.looked)
            self.last, self.looked = usage, now

    def pause(self, usage: Usage, since: float) -> float:
        """Until the next look: half of what it takes, at the pace since the last, to be past a limit."""
        half = LOOK_EVERY_S
        for name, held in (("memory", self.meter.memory_is_held), ("processes", self.meter.processes_are_held)):
            value, before = getattr(usage, name), getattr(self.last, name)
            if value > before and not held:
                half = min(half, ((self.limits.get(name) or math.inf) - value) / (value - before) * since / 2)
        return max(_SOONEST_S, half)

    def find(self, usage: Usage) -> str:
        """The limit that it is past, in words; '' where it is past none."""
        return (
            cgroup_files.read("over")
            or self.past_memory(usage.memory)
            or self.past_processes(usage.processes)
            or self.past_cpu(usage.cpu_s)
        )

    def past_memory(self, used: int) -> str:
        limit: int = self.limits.get("memory") or sys.maxsize
        killer = self.meter.find_killer() if self.meter.memory_is_held else "own" if used > limit else ""
        if not killer:
            return ""
        if killer == "own":
            self.peak = max(self.peak, limit)  # all of it: before that, cached files go
            whose = f"its memory limit of {spell_bytes(limit)}"
        elif killer == "together" and (all_of_it := self.in_all.get("memory")):
            whose = f"the memory limit of {spell_bytes(all_of_it)} of all agents together"
        else:
            whose = "the kernel, since the machine had no memory left"
        return f"by {whose} (peak {spell_bytes(self.peak)})"

    def past_processes(self, count: int) -> str:
        limit: int | None = self.limits.get("processes")
        if limit is None:
            return ""
        if self.meter.processes_are_held:
            count = max(count, self.last.processes, self.meter.processes_peak)
            past = self.meter.refused_processes and count > limit / 2  # else for the sake of a limit around it
        else:
            past = count > limit
        return f"by its limit of {limit} processes and threads (peak {count})" if past else ""

    def past_cpu(self, used_s: float) -> str:
        limit: float | None = self.limits.get("cpu_s")
        if limit is None or used_s < limit:
            return ""
        self.grace = _GRACE_S
        return f"by its limit of {spell(limit)} of CPU time"

    def look_last(self, code: int, largest: int) -> None:
        """See whether it was a limit that has made the program end so; `largest` is what one process of it had."""
        if code and not self.reached:
            self.next_look = 0
            self.look()
            self.reached = self.reached or self.past_file_size(code)
        self.peak = max(self.peak, largest - self.mapped)

    def past_file_size(self, code: int) -> str:
        """What is past it is killed, or, where it does not care for that signal, told so; and says so, as a rule."""
        limit: int | None = self.limits.get("file_size")
        killed = code in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ)
        past = limit and (killed or any(os.strerror(errno.EFBIG) in _end_of(name) for name in ("errors", "output")))
        return f"by its limit of {spell_bytes(limit or 0)} for a file" if past else ""


def _end_of(name: str) -> str:
    try:
        with open(name, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _WORDS))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def spell(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"


def spell_bytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
