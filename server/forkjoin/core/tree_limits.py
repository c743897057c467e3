"""Limits for a tree of processes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """Limits for the processes of one attempt together, or of all attempts. None means no limit."""

    memory: int | None = None  #: bytes
    cpus: float | None = None  #: CPUs used at the same time
    cpu_s: float | None = None  #: total CPU time in seconds
    processes: int | None = None  #: processes and threads
    file_size: int | None = None  #: bytes of each file that a process writes, including files that hold its output
    open_files: int | None = None  #: open files of each process


UNLIMITED = TreeLimits()
