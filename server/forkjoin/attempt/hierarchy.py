"""Where on this machine cgroups can be made for attempts, of either version, and which limits they can hold there.

Version 1 has a hierarchy for each controller, and a cgroup may hold processes and have cgroups within. In version 2
one that hands controllers on to those within must hold none itself, the root apart (cgroups(7)): so the daemon needs
one that is its own. It has that where it is alone in its cgroup; elsewhere systemd is asked for a scope that is
delegated (https://systemd.io/CGROUP_DELEGATION), which is also the only way that systemd allows where it rules.
"""

import contextlib
import os
import pwd
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from forkjoin.attempt import cgroup
from forkjoin.model import TreeLimits

#: The controllers of each version that limit or measure, as far as we use them.
_LIMITING = {1: ("pids", "memory", "cpu", "cpuacct"), 2: ("pids", "memory", "cpu")}
#: Where none can be made, this hierarchy will do to find an attempt's processes.
_FINDING = "freezer"
#: Where in its own cgroup of version 2 the daemon goes, so that this holds no process itself.
_LEAF = f"{cgroup.PREFIX}daemon"
_SYSTEMD = "/run/systemd/system"
_LINGER = "/var/lib/systemd/linger"
#: How long systemd may take to make a scope.
_SCOPE_S = 5.0
_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True)
class Base:
    """A folder in which cgroups can be made.

    Attributes:
        controllers: Those that limit what is made there; none where it serves to find processes alone.
        is_own: Whether the daemon must not stay in it itself.
    """

    folder: str
    version: Literal[1, 2]
    controllers: tuple[str, ...]
    is_own: bool = False

    @property
    def only_measures(self) -> bool:
        return self.controllers == ("cpuacct",)

    def __str__(self) -> str:
        return f"cgroup v{self.version} ({', '.join(self.controllers) or 'no controllers'}) in {self.folder}"


def find_bases(process: str = "self") -> list[Base]:
    """The folders in which that process may make cgroups; the first serves to find an attempt's processes."""
    folders = {name: _strip(folder) for name, folder in folders_of(process).items()}
    limiting = {name: folder for name, folder in folders.items() if name in _LIMITING[1]}
    bases = [Base(at, 1, tuple(_names_of(at, limiting))) for at in dict.fromkeys(limiting.values())]
    if "" in folders:
        bases.append(_unified(folders[""], process))
    if _FINDING in folders:
        bases.append(Base(folders[_FINDING], 1, ()))
    usable = [base for base in bases if os.access(base.folder, os.W_OK)]
    return [base for base in usable if base.controllers] or usable[:1]  # to join another takes milliseconds


def _names_of(folder: str, folders: Mapping[str, str]) -> Iterator[str]:
    return (name for name, other in folders.items() if other == folder)


def _unified(own: str, process: str) -> Base:
    """The cgroup of version 2 to make others in: the nearest that may hand controllers on, else its own."""
    for folder in (own, *(() if os.path.exists(_SYSTEMD) else above(own))):
        there = cgroup.read(f"{folder}/cgroup.controllers").split()
        controllers = [name for name in _LIMITING[2] if name in there]
        if controllers and _may_hand_on(folder, process):
            return Base(folder, 2, tuple(controllers), is_own=not _is_root(folder))
    return Base(own, 2, ())


def _may_hand_on(folder: str, process: str) -> bool:
    files = (folder, f"{folder}/cgroup.procs", f"{folder}/cgroup.subtree_control")
    alone = {str(os.getpid()) if process == "self" else process}
    return all(os.access(file, os.W_OK) for file in files) and (
        _is_root(folder) or alone.issuperset(cgroup.read(f"{folder}/cgroup.procs").split())
    )


def _is_root(folder: str) -> bool:
    return not os.path.exists(f"{folder}/cgroup.type")


def above(folder: str) -> Iterator[str]:
    """The cgroups around one, nearest first."""
    while os.path.exists(f"{(folder := os.path.dirname(folder))}/cgroup.procs"):
        yield folder


def _strip(folder: str) -> str:
    """Without what is ours of it: an attempt's cgroup is not made within another's, nor in the daemon's leaf."""
    return folder.partition(f"/{cgroup.PREFIX}")[0]


def folders_of(process: str) -> dict[str, str]:
    """The folders of the cgroups that a process is in, by controller, '' for version 2 (proc_pid_mountinfo(5))."""
    mounts = _mounts(process)
    paths: dict[str, str] = {}
    for line in cgroup.read(f"/proc/{process}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    wanted = [name for name in ("", *_LIMITING[1], _FINDING) if name in mounts and name in paths]
    return {
        name: mounts[name][1] + paths[name].removeprefix(mounts[name][0].rstrip("/")).rstrip("/") for name in wanted
    }


def _mounts(process: str) -> dict[str, tuple[str, str]]:
    """Root and mount point of the hierarchies, by controller."""
    found: dict[str, tuple[str, str]] = {}
    for line in cgroup.read(f"/proc/{process}/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        names = {"cgroup2": [""], "cgroup": options.split(",")}.get(kind, ())
        for name in names:
            found.setdefault(name, (before.split()[3], before.split()[4]))
    return found


# -- an attempt's


def place(bases: Iterable[Base], home: str, attempt: str) -> list[str]:
    """Where the cgroups of that attempt would be: one in each base, beside those of its home's other attempts."""
    return [f"{base.folder}/{cgroup.PREFIX}{home}/{cgroup.PREFIX}{attempt}" for base in bases]


def settings(bases: Iterable[Base], folders: Iterable[str], own: TreeLimits, in_all: TreeLimits) -> list[list[str]]:
    """What is to be written so that attempts' cgroups, which are there, hold these limits: file and value, in order."""
    found: list[list[str]] = []
    for base, folder in zip(bases, folders, strict=True):
        home = os.path.dirname(folder)
        if base.version == 2:
            above = (base.folder, home)
            found += [[f"{at}/cgroup.subtree_control", f"+{name}"] for at in above for name in base.controllers]
        # all together are ended one by one before they are refused what they ask for (in_all.py)
        most = replace(in_all, processes=2 * in_all.processes if in_all.processes else None)
        for at, limits in ((home, most), (folder, own)):
            found += [[f"{at}/{file}", value] for name in base.controllers for file, value in _set(base, name, limits)]
        if base.version == 2 and "memory" in base.controllers:
            found.append([f"{folder}/memory.oom.group", "1"])
    return found


def _set(base: Base, controller: str, limits: TreeLimits) -> list[tuple[str, str]]:
    quota = str(int(limits.cpus * _PERIOD_US)) if limits.cpus else None
    match controller, base.version:
        case "memory", 2:  # without swap: it would get more than its limit, slowly, and the disk would be everybody's
            return [
                ("memory.max", str(limits.memory or "max")),
                ("memory.swap.max", "max" if limits.memory is None else "0"),
            ]
        case "memory", _:  # the limit with swap is never below that without, so one of the two first fails, to rise
            first, second = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
            return [(file, str(limits.memory or -1)) for file in (first, second, first)]
        case "pids", _:
            return [("pids.max", str(limits.processes or "max"))]
        case "cpu", 2:
            return [("cpu.max", f"{quota or 'max'} {_PERIOD_US}")]
        case "cpu", _:
            return [("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", quota or "-1")]
        case _:
            return []


# -- the daemon's own


def settle() -> None:
    """Be where a daemon should: in no attempt's cgroup, though started in one, and in a leaf of what is its own."""
    if _lacks_limits() and _asks_well():
        _ask_for_scope()
    own = folders_of("self").values()
    for base in find_bases():
        wanted = f"{base.folder}/{_LEAF}" if base.is_own else base.folder
        if wanted not in own:
            with contextlib.suppress(OSError):
                os.makedirs(wanted, exist_ok=True)
                cgroup.enter(wanted)


def _lacks_limits() -> bool:
    """Whether there is a version 2 with controllers of which we may use none."""
    _, point = _mounts("self").get("", ("", ""))
    return (
        bool(point)
        and "memory" in cgroup.read(f"{point}/cgroup.controllers").split()
        and not any("memory" in base.controllers for base in find_bases())
    )


def _asks_well() -> bool:
    """Whether what lives in a scope of systemd's lives as long as where it is now: a user's end with the last login."""
    user = os.getuid()
    return os.path.exists(_SYSTEMD) and (
        user == 0 or f"/user@{user}.service/" in cgroup.read("/proc/self/cgroup") or _lingers(user)
    )


def _lingers(user: int) -> bool:
    try:
        return os.path.exists(f"{_LINGER}/{pwd.getpwuid(user).pw_name}")
    except KeyError:
        return False


def _ask_for_scope() -> None:
    """Have systemd put this process into a scope that is delegated to it, if it does so within some seconds.

    As `systemd-run --scope` does, but of a process that is there: it comes up whatever systemd answers.
    """
    name = f"app-forkjoin-{os.getpid()}.scope"
    bus = "--system" if os.getuid() == 0 else "--user"
    manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
    properties = ("2", "PIDs", "au", "1", str(os.getpid()), "Delegate", "b", "true")
    call = ("StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", *properties, "0")
    give_up = time.monotonic() + _SCOPE_S
    try:
        subprocess.run(["busctl", bus, "--quiet", "call", *manager, *call], check=True, timeout=_SCOPE_S)
    except (OSError, subprocess.SubprocessError):
        return  # what it says is in the daemon's log
    while name not in cgroup.read("/proc/self/cgroup") and time.monotonic() < give_up:
        time.sleep(0.01)
