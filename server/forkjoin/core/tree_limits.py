"""Limits for a tree of processes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """Limits for the processes of one attempt together, or of all attempts; None for no limit."""

    memory: int | None = None  #: bytes
    cpus: float | None = None  #: at once
    cpu_s: float | None = None  #: seconds of CPU time in all
    processes: int | None = None  #: threads count as such
    file_size: int | None = None  #: bytes of each file that one writes, what it prints among them
    open_files: int | None = None  #: of each process


UNLIMITED = TreeLimits()
