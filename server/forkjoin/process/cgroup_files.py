"""The cgroups of an attempt, where they can be made: a process leaves one only by writing to it, whatever it forks.

Standard library only, since the shim uses it too. Without the right to make one (which root has, and whoever is given
a part of the hierarchy, as systemd does for a user's services) there is none: an attempt's processes are found by
mark, shim and session alone, and its limits are kept by looking (see limit.py). Where they are made is told in
hierarchy.py.
"""

import contextlib
import os
from collections.abc import Generator, Iterable, Sequence

#: How whatever we make in a hierarchy is called.
PREFIX = "forkjoin-"
#: What says how much of the processors a cgroup gets beside others: of version 1 and 2, by default and at most.
_WEIGHTS = (("cpu.shares", 1024, 262_144), ("cpu.weight", 100, 10_000))


def read(file: str) -> str:
    """What stands in a file; nothing where that is missing."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as opened:
            return opened.read()
    except OSError:
        return ""


def write(file: str, value: str) -> bool:
    """Write to a file of the kernel's; whether it took that."""
    try:
        with open(file, "w") as opened:
            opened.write(value)
    except OSError:
        return False
    return True


def make(folders: Sequence[str], settings: Iterable[Sequence[str]]) -> set[str]:
    """Make cgroups and then write these settings, file and value; the files of those that hold."""
    for folder in folders:  # all first: so nobody can remove, as empty, those that they are in
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
    held = {file for file, value in settings if write(file, value)}
    for folder in folders:
        _weigh(os.path.dirname(folder))
    return held


def _weigh(home: str) -> None:
    """Let those in a home's cgroup get as much of the processors as they would side by side with all others."""
    for file, each, most in _WEIGHTS:
        if os.path.exists(f"{home}/{file}"):
            count = sum(os.path.dirname(at) == home for at, _, _ in os.walk(home))
            write(f"{home}/{file}", str(min(most, each * max(1, count))))


def join(folders: Iterable[str]) -> None:
    """Be a member of these cgroups. One that refuses is removed: it holds no limit, and that can be seen."""
    for folder in folders:
        try:
            enter(folder)
        except OSError:
            remove([folder])


def enter(folder: str) -> None:
    """Be a member of this cgroup, or raise the OSError with which it refuses."""
    with open(f"{folder}/cgroup.procs", "w") as file:
        file.write("0")


def members(folder: str | None) -> set[int]:
    """The pids of those in a cgroup, or in one within it."""
    if not folder:
        return set()
    files = [f"{at}/cgroup.procs" for at, _, _ in os.walk(folder)]
    return {int(pid) for file in files for pid in read(file).split()}


@contextlib.contextmanager
def without_forks(folder: str | None) -> Generator[None]:
    """Keep processes in a cgroup from forking: freeze it in version 2, else set its pids.max to 0."""
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
    """Remove cgroups that nobody is in any more, and their home's with the last of them."""
    for folder in folders:
        for at, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):  # a daemon that was started there is still on its way out
                os.rmdir(at)
        home = os.path.dirname(folder)
        if os.path.basename(home).startswith(PREFIX):
            with contextlib.suppress(OSError):
                os.rmdir(home)
            _weigh(home)
