"""The processes that belong to an attempt.

Standard library only, since the shim imports this module. An attempt owns

- processes whose environment contains the attempt's mark, which descendants inherit;
- descendants of its shim, which is their subreaper (PR_SET_CHILD_SUBREAPER);
- processes in its cgroup, if it has one;
- processes in a session whose leader is one of the above, and descendants of all of these.

`process_owner` applies the same rules to find the owner of one process. Without a cgroup, a process escapes these rules
if it clears its environment, forks twice and outlives the shim. In any case a process escapes them if it takes one of
this home's locks and claims to be a daemon.

A *supervisor* is a daemon or a shim. A supervisor runs attempts and belongs to none, even if a process of an attempt
started it: an agent's relay may start a daemon, and a daemon that a shim started starts other shims.
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
    read_environment,
)

#: The environment variable that contains an attempt's mark, which is the path of the attempt's folder.
MARK = "FORKJOIN_MARK"
#: The environment variable that daemons and shims have instead of a mark, with the value 1.
SUPERVISOR = "FORKJOIN_KEEPER"


def find_processes(mark: str, shim: ProcessIdentity | None, cgroup: str | None = None) -> list[Process]:
    """Return the running processes of the attempt with this mark.

    The shim, other supervisors, their descendants and the calling process are left out.

    Args:
        shim: The attempt's shim, if it is alive.
        cgroup: The folder of the attempt's cgroup, if it has one.
    """
    # A process that starts after /proc was listed is missed. If its parent ended before it was read, so is the parent.
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
        environment = read_environment(process.pid)
        if has_variable(environment, MARK, mark):
            marked.add(process.pid)
        elif has_variable(environment, SUPERVISOR, "1"):
            possible_supervisors.add(process.pid)
    # The cgroup is read after the process table: a pid in both belongs to a member, or to a process that has ended.
    roots = marked | cgroup_files.members(cgroup)
    found = _include_related(roots, shim_pids, processes)
    if supervisors := {pid for pid in found & possible_supervisors if is_supervisor(pid, mark)}:
        found = _include_related(roots, shim_pids, [each for each in processes if each.pid not in supervisors])
    never = {1, os.getpid()}
    return [process for process in processes if process.pid in found - never]


def _include_related(roots: set[int], shim_pids: set[int], processes: Sequence[Process]) -> set[int]:
    """Return the pids of the roots and of all processes related to them.

    Related are their descendants, the sessions that these lead, and the descendants of the sessions' members.
    """
    found = roots & {process.pid for process in processes}
    found |= find_descendants(found | shim_pids, processes)
    sessions = found & {process.session for process in processes}
    found |= {process.pid for process in processes if process.session in sessions}
    return found | find_descendants(found, processes)


def is_supervisor(pid: int, mark: str) -> bool:
    """Return whether a process is a supervisor: a daemon or a shim of this home.

    The processes of this attempt are no supervisors. An environment variable is not enough, since any process can set
    it. The process must also hold the lock of the daemon or of an attempt.
    """
    environment = read_environment(pid)
    return (
        has_variable(environment, SUPERVISOR, "1")
        and not has_variable(environment, MARK, mark)
        and _holds_lock(pid, os.path.dirname(mark))
    )


def _holds_lock(pid: int, attempts: str) -> bool:
    """Return whether a process holds the lock of the daemon or of an attempt.

    See proc_pid_fdinfo(5).
    """
    daemon_lock = f"{os.path.dirname(attempts)}/daemon.lock"
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # the descriptor was closed meanwhile
                file = os.readlink(f"/proc/{pid}/fd/{name}")
                is_lock = file == daemon_lock or (file.startswith(f"{attempts}/") and file.endswith("/lock"))
                if is_lock and re.search(
                    r"(?m)^lock:.* FLOCK .* WRITE ", cgroup_files.read(f"/proc/{pid}/fdinfo/{name}")
                ):
                    return True
    return False
