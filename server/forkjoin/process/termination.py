"""Termination of process trees: SIGTERM, a grace period, then SIGKILL until all processes have ended.

Standard library only, since the shim imports this module.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable

from forkjoin.process import cgroup_files
from forkjoin.process.attempt_processes import is_supervisor
from forkjoin.process.process_signals import send_signal
from forkjoin.process.process_table import (
    Process,
    ProcessIdentity,
    find_descendants,
    list_children,
    read_boot_id,
    read_process,
)

#: Seconds after SIGKILL at which a process that has not ended counts as a survivor.
KILL_WAIT_S = 5.0
#: The shortest and the longest pause between two searches for processes. Each reads the whole process table.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.2


def terminate(
    find: Callable[[], list[Process]],
    grace: float,
    kill_below: Callable[[], list[Process]] = list,
    cgroup: str | None = None,
) -> list[Process]:
    """Send SIGTERM to processes, and SIGKILL after `grace` seconds. Blocks.

    A process that got SIGTERM may start others to clean up. These get no SIGTERM while it is
    alive.

    A process that forks and exits without pause has another pid by the time a process table was read. The last two
    arguments are for such processes.

    Args:
        find: Searches for the processes that must end.
        grace: Seconds from SIGTERM to SIGKILL.
        kill_below: Kills the descendants of the shim, see `kill_children`. Returns the survivors.
        cgroup: The folder of the processes' cgroup, in which fork(2) is prevented before SIGKILL is sent.

    Returns:
        The processes that are still alive `KILL_WAIT_S` after SIGKILL.
    """
    signalled: set[ProcessIdentity] = set()
    deadline = time.monotonic() + grace
    pause = _SHORTEST_PAUSE_S
    while (alive := find()) and (remaining := deadline - time.monotonic()) > 0:
        helpers = find_descendants({process.pid for process in alive if process.identity in signalled}, alive)
        for process in alive:
            if process.identity not in signalled and process.pid not in helpers:
                signalled.add(process.identity)
                send_signal(process.identity, signal.SIGTERM)
                send_signal(process.identity, signal.SIGCONT)  # a stopped process does not handle SIGTERM
        time.sleep(min(pause, remaining))
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
    with cgroup_files.without_forks(cgroup):
        return _kill(find, alive or (find() if cgroup_files.members(cgroup) else []), kill_below)


def _kill(
    find: Callable[[], list[Process]], alive: list[Process], kill_below: Callable[[], list[Process]]
) -> list[Process]:
    """Send SIGKILL until `find` returns no process, for `KILL_WAIT_S` at most.

    Return the survivors.

    Args:
        alive: The processes that `find` has returned last.
    """
    deadline = time.monotonic() + KILL_WAIT_S
    while True:
        for signum in (
            signal.SIGSTOP,
            signal.SIGKILL,
        ):  # all are stopped before the first is killed, so that none can fork
            for process in alive:
                send_signal(process.identity, signum)
        survivors = kill_below()
        if not alive:
            return survivors
        time.sleep(_SHORTEST_PAUSE_S)
        alive = find()
        if time.monotonic() >= deadline:
            return [*dict.fromkeys([*alive, *survivors])]


def kill_children(shim: int, mark: str, reap: Callable[[], object] = list) -> list[Process]:
    """Kill all descendants of a shim until the shim has no child left.

    Supervisors are spared. The shim is a subreaper: when a process ends, its children become the shim's children at
    once. So it is enough to kill the shim's children until there are none. A search for children is fast enough to keep
    up with processes that fork without pause.

    Args:
        shim: The pid of the shim, which must be the calling process or be stopped. Otherwise it could reap a zombie
            between the search and the signal, and another process could get the zombie's pid.
        mark: The attempt's mark.
        reap: Called before each search. It waits for zombies if the shim is the calling process.

    Returns:
        The processes that are still alive after `KILL_WAIT_S`.
    """
    deadline = time.monotonic() + KILL_WAIT_S
    # Pids that get no signal: zombies, supervisors, and this process, which may be a daemon that the agent has started.
    excluded = {os.getpid()}
    previous: list[int] = []
    survivors: list[Process] = []
    while True:
        reap()
        pids = [*list_children(shim)]
        # Only zombies and supervisors are left if two searches find the same pids and no survivor.
        if not pids or (pids == previous and not survivors):
            return []
        if time.monotonic() >= deadline:
            return survivors or [_unnamed_process(pids[-1], shim)]
        if pids == previous:  # the killed processes have not ended yet, so the next search would find the same
            time.sleep(_SHORTEST_PAUSE_S)
        killed = [pid for pid in reversed(pids) if pid not in excluded and _kill_unless_supervisor(pid, mark)]
        survivors = [process for pid in killed if (process := read_process(pid))]
        excluded = {*pids} - {process.pid for process in survivors}
        previous = pids


def _kill_unless_supervisor(pid: int, mark: str) -> bool:
    """Kill a child process, unless it is a supervisor.

    Return `False` if it is a supervisor, and `True` otherwise. The process is stopped first, so that it does
    not execute another program while it is examined.
    """
    with contextlib.suppress(OSError):  # EPERM: the process is another user's, and survives
        os.kill(pid, signal.SIGSTOP)
        is_ours = not is_supervisor(pid, mark)
        os.kill(pid, signal.SIGKILL if is_ours else signal.SIGCONT)
        return is_ours
    return True


def _unnamed_process(pid: int, parent: int) -> Process:
    identity = ProcessIdentity(read_boot_id(), pid, 0)
    return Process(identity, parent, 0, "a process that forks without pause")
