"""Lookup of the attempt to which a process belongs.

The rules are those of `attempt_processes`: an ancestor that is a live shim, a cgroup, a mark, or a session whose leader
belongs to the attempt. Here each ancestor is examined too, and supervisors are no exception. If the rules name
different attempts, a shim counts more than a cgroup, and a cgroup more than a mark, since any process can set a mark.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from forkjoin.core.error import CallerError
from forkjoin.process import attempt_cgroups, attempt_processes, cgroup_files, process_table, shim_control
from forkjoin.process.process_table import Process

#: How often the ancestors of a process are read at most. They are read again if one of them ended during the read.
_MAX_READS = 20
_HANDLE = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")


def find_owner(attempts: Path, pid: int) -> str | None:
    """Return the handle of the attempt to which a process belongs. Blocks.

    Return `None` if the process belongs to no attempt.

    Args:
        attempts: The folder with the folders of all attempts.

    Raises:
        CallerError: The process has ended, is not visible from here, or was started by this daemon itself.
    """
    chain, found = _read_chain(attempts, pid)
    if found:
        return found
    pids = {process.pid for process in chain}
    for leader in dict.fromkeys(process.session for process in chain if process.session not in pids):
        if process_table.read_process(leader) and (found := _read_chain(attempts, leader)[1]):
            return found
    if len(chain) > 1 and chain[-1].pid == os.getpid():
        raise CallerError(
            "Processes that the forkjoin daemon started itself can't call it. Call from a process of your own."
        )
    return None


def _read_chain(attempts: Path, pid: int) -> tuple[list[Process], str | None]:
    """Return a process with its ancestors, nearest first, and their attempt's handle.

    The handle is `None` if by shim, cgroup and mark none of these processes belongs to an attempt.

    Raises:
        CallerError: The process has ended or is not visible from here.
    """
    for _ in range(_MAX_READS):
        chain = list(_read_ancestors(pid))
        found = _find_handle(attempts, chain)
        # If each process still exists with the same parent, no pid was reused while the handle was searched.
        if chain and all(process_table.read_process(process.pid) == process for process in chain):
            return chain, found
    raise CallerError(
        f"forkjoin can't tell which process is calling: process {pid} has ended or is not visible. Call again."
    )


def _read_ancestors(pid: int) -> Iterator[Process]:
    """Yield a process and its ancestors, nearest first.

    The last is this process if it is among the ancestors.
    """
    current = pid
    while current and (process := process_table.read_process(current)):
        yield process
        current = process.parent if current == pid or current != os.getpid() else 0


def _find_handle(attempts: Path, chain: Sequence[Process]) -> str | None:
    rules: tuple[Callable[[Path, Process], str | None], ...] = (_by_shim, _by_cgroup, _by_mark)
    return next((found for rule in rules for process in chain if (found := rule(attempts, process))), None)


def _by_shim(attempts: Path, process: Process) -> str | None:
    """Return the handle of the attempt whose shim this process is, or `None`.

    A shim's command line names the attempt's folder, and started.json in that folder identifies the shim.
    """
    words = cgroup_files.read(f"/proc/{process.pid}/cmdline").split("\0")
    folders = (Path(word) for word in words if word.startswith(f"{attempts}/"))
    return next(
        (
            folder.name
            for folder in folders
            if folder.parent == attempts and shim_control.read_shim(folder) == process.identity
        ),
        None,
    )


def _by_cgroup(attempts: Path, process: Process) -> str | None:
    lines = cgroup_files.read(f"/proc/{process.pid}/cgroup").splitlines()
    return next((found for line in lines if (found := attempt_cgroups.find_attempt(attempts, line))), None)


def _by_mark(attempts: Path, process: Process) -> str | None:
    mark = os.fsencode(f"\0{attempt_processes.MARK}={attempts}/")
    _, _, rest = process_table.read_environment_of(process.pid).partition(mark)
    handle = rest.partition(b"\0")[0].decode(errors="replace")
    return handle if _HANDLE.fullmatch(handle) else None
