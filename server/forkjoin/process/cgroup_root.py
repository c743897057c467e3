"""Discovery of the folders in which cgroups for attempts can be created, and of the limits that these can enforce.

cgroup v1 has one hierarchy per controller, and a cgroup may contain both processes and other cgroups. In cgroup v2 a
cgroup that passes controllers on to its children must contain no processes itself, except for the root (cgroups(7)). So
the daemon needs a cgroup that contains no other process. If it has none, `daemon_cgroup` asks systemd for a delegated
scope, the only way that systemd permits (https://systemd.io/CGROUP_DELEGATION).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from forkjoin.process import cgroup_files

#: For cgroup v1 and v2: the controllers with which forkjoin limits or measures attempts.
_CONTROLLERS = {1: ("pids", "memory", "cpu", "cpuacct"), 2: ("pids", "memory", "cpu")}
#: A controller of cgroup v1. Its hierarchy serves to find an attempt's processes if no controller above can be used.
_FINDING = "freezer"
#: This folder exists if systemd manages the machine.
SYSTEMD = "/run/systemd/system"


@dataclass(frozen=True, slots=True)
class CgroupRoot:
    """A folder in which forkjoin can create cgroups."""

    folder: str
    version: Literal[1, 2]
    #: The controllers of the cgroups that are created there. Without any, the cgroups only tell which processes belong
    #: to an attempt.
    controllers: tuple[str, ...]
    must_be_empty: bool = False  #: whether the daemon must leave this cgroup before it can pass controllers on

    @property
    def only_measures(self) -> bool:
        return self.controllers == ("cpuacct",)

    def __str__(self) -> str:
        return f"cgroup v{self.version} ({', '.join(self.controllers) or 'no controllers'}) in {self.folder}"


def find_cgroup_roots(process: str = "self") -> list[CgroupRoot]:
    """Return the folders in which a process can create cgroups for attempts.

    Args:
        process: The pid, or "self".
    """
    # If the process is in a cgroup that forkjoin has created, the cgroup around that one is meant: the part of the path
    # from forkjoin's prefix on is cut off.
    folders = {name: folder.partition(f"/{cgroup_files.PREFIX}")[0] for name, folder in cgroups_of(process).items()}
    version_1 = {name: folder for name, folder in folders.items() if name in _CONTROLLERS[1]}
    roots = [
        CgroupRoot(folder, 1, tuple(name for name, other in version_1.items() if other == folder))
        for folder in dict.fromkeys(version_1.values())
    ]
    if "" in folders:
        roots.append(_find_version_2(folders[""], process))
    if _FINDING in folders:
        roots.append(CgroupRoot(folders[_FINDING], 1, ()))
    usable = [root for root in roots if os.access(root.folder, os.W_OK)]
    # Without controllers, cgroups only serve to find processes. One is enough for that, and joining one takes time.
    return [root for root in usable if root.controllers] or usable[:1]


def _find_version_2(own: str, process: str) -> CgroupRoot:
    """Return the nearest cgroup, from `own` upwards, that can pass controllers on.

    Under systemd only `own` is considered, since systemd manages the others. If no cgroup can pass controllers on,
    return `own` without controllers.

    Args:
        own: The folder of the process's own cgroup of version 2.
    """
    for folder in (own, *(() if os.path.exists(SYSTEMD) else ancestors(own))):
        available = cgroup_files.read(f"{folder}/cgroup.controllers").split()
        controllers = [name for name in _CONTROLLERS[2] if name in available]
        if controllers and _can_pass_controllers_on(folder, process):
            return CgroupRoot(folder, 2, tuple(controllers), must_be_empty=not _is_hierarchy_root(folder))
    return CgroupRoot(own, 2, ())


def _can_pass_controllers_on(folder: str, process: str) -> bool:
    """Return whether a process may let a cgroup pass controllers on.

    It must be able to write to the cgroup, which must contain no other process unless it is the hierarchy's root.
    """
    files = (folder, f"{folder}/cgroup.procs", f"{folder}/cgroup.subtree_control")
    alone = {str(os.getpid()) if process == "self" else process}
    return all(os.access(file, os.W_OK) for file in files) and (
        _is_hierarchy_root(folder) or alone.issuperset(cgroup_files.read(f"{folder}/cgroup.procs").split())
    )


def _is_hierarchy_root(folder: str) -> bool:
    return not os.path.exists(f"{folder}/cgroup.type")


def ancestors(folder: str) -> Iterator[str]:
    """Yield the folders of the cgroups around a cgroup, nearest first."""
    while os.path.exists(f"{(folder := os.path.dirname(folder))}/cgroup.procs"):
        yield folder


def cgroups_of(process: str) -> dict[str, str]:
    """Return the folder of a process's cgroup for each controller that forkjoin uses.

    The key of cgroup v2, which has one folder for all controllers, is "". See proc_pid_cgroup(5).

    Args:
        process: The pid, or "self".
    """
    mounted = mounts(process)
    paths: dict[str, str] = {}
    for line in cgroup_files.read(f"/proc/{process}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    wanted = [name for name in ("", *_CONTROLLERS[1], _FINDING) if name in mounted and name in paths]
    return {
        name: mounted[name][1] + paths[name].removeprefix(mounted[name][0].rstrip("/")).rstrip("/") for name in wanted
    }


def mounts(process: str) -> dict[str, tuple[str, str]]:
    """Return the mounted folder and the mount point of each cgroup hierarchy.

    The keys are controllers, and "" for cgroup v2. In a container the mounted folder may be below the hierarchy's root.
    See proc_pid_mountinfo(5).
    """
    found: dict[str, tuple[str, str]] = {}
    for line in cgroup_files.read(f"/proc/{process}/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        names = {"cgroup2": [""], "cgroup": options.split(",")}.get(kind, ())
        for name in names:
            found.setdefault(name, (before.split()[3], before.split()[4]))
    return found
