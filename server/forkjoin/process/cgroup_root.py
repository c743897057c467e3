"""Where on this machine cgroups can be made for attempts, of either version, and which limits they can hold there.

Version 1 has a hierarchy for each controller, and a cgroup may hold processes and have cgroups within. In version 2
one that hands controllers on to those within must hold none itself, the root apart (cgroups(7)): so the daemon needs
one that is its own. It has that where it is alone in its cgroup; elsewhere systemd is asked for a scope that is
delegated (https://systemd.io/CGROUP_DELEGATION), which is also the only way that systemd allows where it rules.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from forkjoin.process import cgroup_files

#: The controllers of each version that limit or measure, as far as we use them.
_LIMITING = {1: ("pids", "memory", "cpu", "cpuacct"), 2: ("pids", "memory", "cpu")}
#: Where none can be made, this hierarchy will do to find an attempt's processes.
_FINDING = "freezer"
#: It is there where systemd rules.
SYSTEMD = "/run/systemd/system"


@dataclass(frozen=True, slots=True)
class Base:
    """A folder in which cgroups can be made."""

    folder: str
    version: Literal[1, 2]
    controllers: tuple[str, ...]  #: those that limit what is made there; none where it serves to find processes alone
    is_own: bool = False  #: whether the daemon must not stay in it itself

    @property
    def only_measures(self) -> bool:
        return self.controllers == ("cpuacct",)

    def __str__(self) -> str:
        return f"cgroup v{self.version} ({', '.join(self.controllers) or 'no controllers'}) in {self.folder}"


def find_bases(process: str = "self") -> list[Base]:
    """The folders in which that process may make cgroups; the first serves to find an attempt's processes."""
    # without what is ours of it: an attempt's cgroup is not made within another's, nor in the daemon's leaf
    folders = {name: folder.partition(f"/{cgroup_files.PREFIX}")[0] for name, folder in folders_of(process).items()}
    limiting = {name: folder for name, folder in folders.items() if name in _LIMITING[1]}
    bases = [
        Base(at, 1, tuple(name for name, folder in limiting.items() if folder == at))
        for at in dict.fromkeys(limiting.values())
    ]
    if "" in folders:
        bases.append(_unified(folders[""], process))
    if _FINDING in folders:
        bases.append(Base(folders[_FINDING], 1, ()))
    usable = [base for base in bases if os.access(base.folder, os.W_OK)]
    return [base for base in usable if base.controllers] or usable[:1]  # to join another takes milliseconds


def _unified(own: str, process: str) -> Base:
    """The cgroup of version 2 to make others in: the nearest that may hand controllers on, else its own."""
    for folder in (own, *(() if os.path.exists(SYSTEMD) else above(own))):
        there = cgroup_files.read(f"{folder}/cgroup.controllers").split()
        controllers = [name for name in _LIMITING[2] if name in there]
        if controllers and _may_hand_on(folder, process):
            return Base(folder, 2, tuple(controllers), is_own=not _is_root(folder))
    return Base(own, 2, ())


def _may_hand_on(folder: str, process: str) -> bool:
    files = (folder, f"{folder}/cgroup.procs", f"{folder}/cgroup.subtree_control")
    alone = {str(os.getpid()) if process == "self" else process}
    return all(os.access(file, os.W_OK) for file in files) and (
        _is_root(folder) or alone.issuperset(cgroup_files.read(f"{folder}/cgroup.procs").split())
    )


def _is_root(folder: str) -> bool:
    return not os.path.exists(f"{folder}/cgroup.type")


def above(folder: str) -> Iterator[str]:
    """The cgroups around one, nearest first."""
    while os.path.exists(f"{(folder := os.path.dirname(folder))}/cgroup.procs"):
        yield folder


def folders_of(process: str) -> dict[str, str]:
    """The folders of the cgroups that a process is in, by controller, '' for version 2 (proc_pid_mountinfo(5))."""
    roots = mounts(process)
    paths: dict[str, str] = {}
    for line in cgroup_files.read(f"/proc/{process}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    wanted = [name for name in ("", *_LIMITING[1], _FINDING) if name in roots and name in paths]
    return {name: roots[name][1] + paths[name].removeprefix(roots[name][0].rstrip("/")).rstrip("/") for name in wanted}


def mounts(process: str) -> dict[str, tuple[str, str]]:
    """Root and mount point of the hierarchies, by controller."""
    found: dict[str, tuple[str, str]] = {}
    for line in cgroup_files.read(f"/proc/{process}/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        names = {"cgroup2": [""], "cgroup": options.split(",")}.get(kind, ())
        for name in names:
            found.setdefault(name, (before.split()[3], before.split()[4]))
    return found
