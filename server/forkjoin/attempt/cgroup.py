"""A cgroup of the attempt's own, where one can be made: a process leaves it only by writing to it, whatever it forks.

Standard library only, since the shim uses it too. Without the right to make one (which root has, and whoever is given
a part of the hierarchy, as systemd does for a user's services) there is none, and an attempt's processes are found by
mark, shim and session alone. No limits are set here.
"""

import contextlib
import functools
import os

_PREFIX = "forkjoin-"
#: Where no cgroup of version 2 can be made, one of these hierarchies of version 1 will do.
_HIERARCHIES = ("pids", "freezer")


@functools.cache
def find_base() -> str | None:
    """The folder in which this process may make cgroups, if there is one."""
    folders = [folder for folder in map(_strip, _own_folders()) if os.access(folder, os.W_OK)]
    return folders[0] if folders else None


def _strip(folder: str) -> str:
    """Without the cgroup of an attempt that we happen to be in: one is not made within another."""
    return folder.partition(f"/{_PREFIX}")[0]


def _own_folders() -> list[str]:
    """The folders of the cgroups that this process is in, best first (cgroups(7), proc_pid_mountinfo(5))."""
    mounts = _mounts()
    found: dict[str, str] = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name in mounts:
                root, point = mounts[name]
                found[name] = point + path.removeprefix(root.rstrip("/")).rstrip("/")
    return [found[name] for name in ("", *_HIERARCHIES) if name in found]


def _mounts() -> dict[str, tuple[str, str]]:
    """Root and mount point of the hierarchies, by what /proc/self/cgroup calls them: '' is version 2."""
    found: dict[str, tuple[str, str]] = {}
    for line in _read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        where = (before.split()[3], before.split()[4])
        if kind == "cgroup2":
            found.setdefault("", where)
        elif kind == "cgroup":
            found |= {name: where for name in _HIERARCHIES if name in options.split(",")}
    return found


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as opened:
            return opened.read()
    except OSError:
        return ""


def place(name: str) -> str | None:
    """Where the cgroup of that name would be; none where there can be none."""
    base = find_base()
    return base and f"{base}/{_PREFIX}{name}"


def join(folder: str | None) -> None:
    """Be a member of this cgroup, which is made first; or be none, where that is refused."""
    if folder:
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            _enter(folder)


def leave() -> None:
    """Leave the cgroup of the attempt in whose tree this process was started, if it was."""
    for folder in _own_folders():
        if _strip(folder) != folder:
            with contextlib.suppress(OSError):
                _enter(_strip(folder))


def _enter(folder: str) -> None:
    with open(f"{folder}/cgroup.procs", "w") as file:
        file.write("0")


def members(folder: str | None) -> set[int]:
    """The pids of those in a cgroup, or in one within it."""
    if not folder:
        return set()
    files = [f"{at}/cgroup.procs" for at, _, _ in os.walk(folder)]
    return {int(pid) for file in files for pid in _read(file).split()}


def remove(folder: str | None) -> None:
    """Remove a cgroup that nobody is in any more."""
    for at, _, _ in os.walk(folder or "", topdown=False):
        with contextlib.suppress(OSError):  # a daemon that was started there is still on its way out
            os.rmdir(at)
