"""Operations on the files of the cgroup file system: creating, joining, and removing cgroups.

Standard library only, since the shim imports this module. A process can leave a cgroup only by writing to the cgroup
file system, however often it forks. Root may create cgroups, and so may a user to whom systemd has delegated a part of
the hierarchy. For other users an attempt has no cgroup. Then `attempt_processes` finds its processes by other means,
and `resource_limits` measures them. `cgroup_root` finds the folders in which cgroups can be created.
"""

import contextlib
import os
from collections.abc import Generator, Iterable, Sequence

#: The beginning of the name of each cgroup that forkjoin creates.
PREFIX = "forkjoin-"
#: For cgroup v1 and v2: the file with a cgroup's share of the CPUs, its default value, and the largest value.
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
    """Create the cgroups with these folders, then write the settings.

    Args:
        settings: Pairs of a file and the value to write to it.

    Returns:
        The files whose values the kernel accepted.
    """
    # All are created before the first setting is written, so that no other shim removes the cgroup around all attempts
    # as empty.
    for folder in folders:
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
    applied = {file for file, value in settings if write(file, value)}
    for folder in folders:
        _set_cpu_weight(os.path.dirname(folder))
    return applied


def _set_cpu_weight(home: str) -> None:
    """Set the CPU weight of the cgroup around all attempts, whose folder is `home`.

    The weight is the default weight times the number of attempts. So each attempt gets as much CPU time as a process
    outside of this cgroup.
    """
    for file, default, largest in _CPU_WEIGHTS:
        if os.path.exists(f"{home}/{file}"):
            count = sum(os.path.dirname(folder) == home for folder, _, _ in os.walk(home))
            write(f"{home}/{file}", str(min(largest, default * max(1, count))))


def join_or_remove(folders: Iterable[str]) -> None:
    """Move this process to these cgroups, and remove each cgroup that it can't join.

    From a missing cgroup the shim concludes that it must measure the program itself.
    """
    for folder in folders:
        try:
            join(folder)
        except OSError:
            remove_empty([folder])


def join(folder: str) -> None:
    """Move this process to a cgroup.

    Raises:
        OSError: The kernel does not permit it.
    """
    with open(f"{folder}/cgroup.procs", "w") as file:
        file.write("0")


def members(folder: str | None) -> set[int]:
    """Return the pids of the processes in a cgroup and in the cgroups below it.

    The set is empty if `folder` is `None` or doesn't exist.
    """
    if not folder:
        return set()
    files = [f"{each}/cgroup.procs" for each, _, _ in os.walk(folder)]
    return {int(pid) for file in files for pid in read(file).split()}


@contextlib.contextmanager
def without_forks(folder: str | None) -> Generator[None]:
    """Keep the processes of a cgroup from forking while the context is open.

    A cgroup of version 2 is frozen. In version 1, pids.max is set to 0. A cgroup that contains no process, or the
    calling process, is left alone.
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


def remove_empty(folders: Iterable[str]) -> None:
    """Remove the cgroups with these folders, except for those that contain processes.

    The cgroup around all attempts is removed too if none of their cgroups remains.
    """
    for folder in folders:
        for each, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):  # EBUSY: the cgroup contains processes, e.g. a daemon that is leaving it
                os.rmdir(each)
        home = os.path.dirname(folder)
        if os.path.basename(home).startswith(PREFIX):
            with contextlib.suppress(OSError):
                os.rmdir(home)
            _set_cpu_weight(home)
