"""The process table: the processes that run, and the identity of each.

Standard library only, since the shim imports this module. A process is identified by boot id, pid and start time. So
another process that gets the same pid later is never mistaken for it.
"""

import contextlib
import functools
import os
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from forkjoin.process import cgroup_files

#: How often an empty environment is read again, one millisecond apart, since execve(2) may be in progress.
_ENVIRONMENT_READS = 50
_PF_EXITING, _PF_KTHREAD = 0x4, 0x200000


class ProcessIdentity(NamedTuple):
    """What identifies a process, even after its pid has been reused or the machine has been rebooted."""

    boot_id: str
    pid: int
    start_ticks: int  #: clock ticks from boot to the start of the process


class Process(NamedTuple):
    """A running process, as one row of the process table."""

    identity: ProcessIdentity
    parent: int  #: pid of the parent
    session: int  #: pid of the session leader
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"

    @property
    def pid(self) -> int:
        return self.identity.pid


@functools.cache
def read_boot_id() -> str:
    """Return the kernel's boot id, which changes with each boot."""
    return _read_proc("/proc/sys/kernel/random/boot_id").decode().strip()


def read_process(pid: int) -> Process | None:
    """Return the process with this pid, or `None` if there is none.

    A zombie counts as ended, unless some of its threads still run.
    """
    try:
        name, fields = read_stat(pid)
    except OSError:
        return None
    state, threads = fields[0], int(fields[17])
    if state in (b"Z", b"X") and threads <= 1:
        return None
    identity = ProcessIdentity(read_boot_id(), pid, int(fields[19]))
    return Process(identity, int(fields[1]), int(fields[3]), name.decode(errors="replace"))


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of the process that has this pid now.

    Return `None` if there is no such process.
    """
    process = read_process(pid)
    return process.identity if process else None


def is_alive(identity: ProcessIdentity) -> bool:
    return identify(identity.pid) == identity


def list_processes() -> list[Process]:
    """Return all running processes of the machine."""
    return [process for name in os.listdir("/proc") if name.isdigit() and (process := read_process(int(name)))]


def read_stat(pid: int) -> tuple[bytes, list[bytes]]:
    """Return the name of a process, and the fields of its stat file after the name.

    The first of these fields is the state, field 3 of proc_pid_stat(5).

    Raises:
        OSError: There is no such process.
    """
    line = _read_proc(f"/proc/{pid}/stat")
    # The name is in parentheses and may contain any byte, even parentheses.
    name, _, rest = line.partition(b"(")[2].rpartition(b")")
    return name, rest.split()


def read_environment_of(pid: int) -> bytes:
    """Return the environment with which a process was started.

    Each variable is between two NULs, for `has_variable`. Without a readable environment the result has no variable.
    """
    with contextlib.suppress(OSError):
        for _ in range(_ENVIRONMENT_READS):
            data = _read_proc(f"/proc/{pid}/environ")
            if data or _stays_without_environment(pid):
                return b"\0" + data
            time.sleep(0.001)
    return b""


def has_variable(environment: bytes, name: str, value: str) -> bool:
    """Return whether a result of `read_environment_of` has this variable and value."""
    return b"\0" + os.fsencode(f"{name}={value}") + b"\0" in environment


def _stays_without_environment(pid: int) -> bool:
    """Return whether a process whose environment is empty will not get another.

    This is so if it is a kernel thread, is exiting, or was started without variables.
    """
    _, fields = read_stat(pid)
    flags, begin, end = int(fields[6]), fields[47], fields[48]
    return bool(flags & (_PF_EXITING | _PF_KTHREAD)) or begin == end != b"0"


def list_children(pid: int, threads: int = 1) -> Iterator[int]:
    """Yield the pids of a process's children, zombies included (proc_pid_task(5)).

    Args:
        threads: Number of threads of the process. With more than one, the children of each thread are read. By default
            only those of the main thread are.
    """
    for task in os.listdir(f"/proc/{pid}/task") if threads > 1 else (pid,):
        yield from map(int, cgroup_files.read(f"/proc/{pid}/task/{task}/children").split())


def find_descendants(roots: Iterable[int], processes: Iterable[Process]) -> set[int]:
    """Return the pids of all descendants of the roots.

    Args:
        roots: Pids. A root is returned only if it is a descendant of another root.
        processes: The processes among which descendants are searched.
    """
    children: dict[int, list[int]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    pending = list(roots)
    while pending:
        new = [child for child in children.get(pending.pop(), ()) if child not in found]
        found.update(new)
        pending.extend(new)
    return found


def _read_proc(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read()
