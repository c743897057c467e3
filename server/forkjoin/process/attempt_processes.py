"""The processes that belong to an attempt.

Standard library only, since the shim imports this module. An attempt owns

- processes whose environment contains the attempt's mark, which descendants inherit;
- descendants of its shim, which is their subreaper (PR_SET_CHILD_SUBREAPER);
- processes in its cgroup, if it has one;
- processes in a session whose leader is one of the above, and descendants of all of these.

`process_owner` applies the same rules to find the owner of one process. A process without a cgroup escapes these rules
if it clears its environment, leaves its session and outlives the shim. With or without a cgroup, a process escapes them
if it takes a lock of this home and claims to be a daemon.

A *supervisor* is a daemon or a shim. It belongs to no attempt, even if a process of an attempt started it. This happens
if an agent's relay starts a daemon, which then starts the shims of other attempts.
"""

import contextlib
import os
import re
from collections.abc import Sequence

from forkjoin.process import cgroup_files
from forkjoin.process.process_table import (
    Process,
    ProcessIdentity,
    find_descendants,
    has_variable,
    list_processes,
    read_environment_of,
)

#: The environment variable by which a process is known to belong to an attempt. Its value, the attempt's mark, is the
#: path of the attempt's folder.
MARK = "FORKJOIN_MARK"
#: The environment variable with the value 1 that each daemon and each shim has instead of a mark.
SUPERVISOR = "FORKJOIN_KEEPER"


def find_processes(mark: str, shim: ProcessIdentity | None, cgroup: str | None = None) -> list[Process]:
    """Return the running processes of the attempt with this mark.

    The shim, supervisors that the attempt started, their descendants, and the calling process are left out.

    Args:
        shim: The identity of the attempt's shim, or `None` if none has come up.
        cgroup: The folder of the attempt's cgroup, or `None` if it has none.
    """
    # A search can miss a process that starts after /proc was listed, and also its parent, if that one ends before its
    # entry is read. So a search without a result is repeated.
    return _find_once(mark, shim, cgroup) or _find_once(mark, shim, cgroup)


def _find_once(mark: str, shim: ProcessIdentity | None, cgroup: str | None) -> list[Process]:
    marked: set[int] = set()
    possible_supervisors: set[int] = set()
    shim_pids: set[int] = set()
    processes: list[Process] = []
    for process in list_processes():
        if process.identity == shim:
            shim_pids.add(process.pid)
            continue
        processes.append(process)
        environment = read_environment_of(process.pid)
        if has_variable(environment, MARK, mark):
            marked.add(process.pid)
        elif has_variable(environment, SUPERVISOR, "1"):
            possible_supervisors.add(process.pid)
    # The cgroup is read after the process table. So a pid in both is a member's, or that of a process that has ended.
    roots = marked | cgroup_files.members(cgroup)
    found = _include_related(roots, shim_pids, processes)
    if supervisors := {pid for pid in found & possible_supervisors if is_supervisor(pid, mark)}:
        found = _include_related(roots, shim_pids, [each for each in processes if each.pid not in supervisors])
    never = {1, os.getpid()}
    return [process for process in processes if process.pid in found - never]


def _include_related(roots: set[int], shim_pids: set[int], processes: Sequence[Process]) -> set[int]:
    """Return the pids of an attempt's processes that are among the given processes.

    These are the roots, the descendants of roots and shims, the members of all sessions that one of these leads, and
    the descendants of the members.

    Args:
        roots: Pids of processes with the attempt's mark or in its cgroup. Those that have ended are ignored.
        shim_pids: The pid of the attempt's shim, or an empty set. It is not returned itself.
    """
    found = roots & {process.pid for process in processes}
    found |= find_descendants(found | shim_pids, processes)
    sessions = found & {process.session for process in processes}
    found |= {process.pid for process in processes if process.session in sessions}
    return found | find_descendants(found, processes)


def is_supervisor(pid: int, mark: str) -> bool:
    """Return whether a process is a daemon or a shim of this home.

    Its environment must have `SUPERVISOR` and lack this mark. Since any process can set variables, it must also hold
    the lock of the daemon or of an attempt.

    Args:
        mark: The mark of the attempt below which the process was found. The mark's path tells the home.
    """
    environment = read_environment_of(pid)
    return (
        has_variable(environment, SUPERVISOR, "1")
        and not has_variable(environment, MARK, mark)
        and _holds_lock(pid, os.path.dirname(mark))
    )


def _holds_lock(pid: int, attempts: str) -> bool:
    """Return whether a process holds the lock of the daemon or of an attempt.

    See proc_pid_fdinfo(5).

    Args:
        attempts: The folder with the folders of all attempts of the home.
    """
    daemon_lock = f"{os.path.dirname(attempts)}/daemon.lock"
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # the process may close the descriptor while it is examined
                file = os.readlink(f"/proc/{pid}/fd/{name}")
                is_lock = file == daemon_lock or (file.startswith(f"{attempts}/") and file.endswith("/lock"))
                if is_lock and re.search(
                    r"(?m)^lock:.* FLOCK .* WRITE ", cgroup_files.read(f"/proc/{pid}/fdinfo/{name}")
                ):
                    return True
    return False
