"""Reading and writing of the cgroup file system: creating, joining, and removing cgroups.

Standard library only, since the shim imports this module. A process can leave a cgroup only by writing to the cgroup
file system, however often it forks. Root may create cgroups, and so may a user to whom systemd has delegated a part of
the hierarchy. Without that right an attempt has no cgroup: `attempt_processes` finds its processes by other means, and
`resource_limits` measures them. `cgroup_root` finds the folders in which cgroups can be created.
"""

import contextlib
import os
from collections.abc import Generator, Iterable, Sequence

#: Prefix of the name of each cgroup that forkjoin creates.
PREFIX = "forkjoin-"
#: Files with a cgroup's share of the CPUs, for cgroup v1 and v2, with default and largest value.
_CPU_WEIGHTS = (("cpu.shares", 1024, 262_144), ("cpu.weight", 100, 10_000))


def read(file: str) -> str:
    """Return the content of a file, or an empty string if it can't be read."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as opened:
            return opened.read()
    except OSError:
        return ""


def write(file: str, value: str) -> bool:
    """Write to a file of the kernel. Return whether the kernel accepted the value."""
    try:
        with open(file, "w") as opened:
            opened.write(value)
    except OSError:
        return False
    return True


def create(folders: Sequence[str], settings: Iterable[Sequence[str]]) -> set[str]:
    """Create cgroups and write settings, which are pairs of file and value.

    Returns:
        The files of the settings that the kernel accepted.
    """
    for folder in folders:  # all are created first: a parent with children can't be removed as unused
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
    applied = {file for file, value in settings if write(file, value)}
    for folder in folders:
        _set_cpu_weight(os.path.dirname(folder))
    return applied


def _set_cpu_weight(home: str) -> None:
    """Set the CPU weight of the cgroup around all attempts.

    The weight is the sum that its child cgroups would have outside it.
    """
    for file, default, largest in _CPU_WEIGHTS:
        if os.path.exists(f"{home}/{file}"):
            count = sum(os.path.dirname(folder) == home for folder, _, _ in os.walk(home))
            write(f"{home}/{file}", str(min(largest, default * max(1, count))))


def join_or_remove(folders: Iterable[str]) -> None:
    """Move this process to these cgroups, and remove each cgroup that it can't join.

    A removed cgroup shows the shim that the cgroup enforces no limit.
    """
    for folder in folders:
        try:
            join(folder)
        except OSError:
            remove([folder])


def join(folder: str) -> None:
    """Move this process to a cgroup.

    Raises:
        OSError: The kernel does not permit it.
    """
    with open(f"{folder}/cgroup.procs", "w") as file:
        file.write("0")


def members(folder: str | None) -> set[int]:
    """Return the pids of the processes in a cgroup and its descendant cgroups."""
    if not folder:
        return set()
    files = [f"{each}/cgroup.procs" for each, _, _ in os.walk(folder)]
    return {int(pid) for file in files for pid in read(file).split()}


@contextlib.contextmanager
def without_forks(folder: str | None) -> Generator[None]:
    """Keep processes in a cgroup from forking.

    A cgroup of version 2 is frozen. In version 1, pids.max is set to 0. Nothing is done if the cgroup is empty or
    contains the calling process.
    """
    if os.getpid() in (inside := members(folder)) or not inside:
        yield
        return
    files = {"cgroup.freeze": ("1", "0"), "pids.max": ("0", read(f"{folder}/pids.max"))}
    name = next((name for name in files if os.path.exists(f"{folder}/{name}")), None)
    if name:
        write(f"{folder}/{name}", files[name][0])
    try:
        yield
    finally:
        if name:
            write(f"{folder}/{name}", files[name][1])


def remove(folders: Iterable[str]) -> None:
    """Remove cgroups that contain no process.

    The cgroup around all attempts is removed together with the last of them.
    """
    for folder in folders:
        for each, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):  # a daemon that was started in the cgroup is still leaving it
                os.rmdir(each)
        home = os.path.dirname(folder)
        if os.path.basename(home).startswith(PREFIX):
            with contextlib.suppress(OSError):
                os.rmdir(home)
            _set_cpu_weight(home)
