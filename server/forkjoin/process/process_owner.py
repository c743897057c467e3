"""Lookup of the attempt that a process belongs to.

The rules are those by which `process.tree` finds an attempt's processes: a live shim above the process, a cgroup, a
mark, or a session that a process of the attempt leads. Here they hold for each ancestor, too, and no process gets out
of them by calling itself a keeper. A shim says most, then a cgroup: a mark can be set by any process.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from forkjoin.core.error import CallerError
from forkjoin.process import attempt_cgroups, cgroup_files, process_tree, shim_control

#: How often the ancestors of a process are read again because one of them has ended meanwhile.
_TRIES = 20
_HANDLE = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")


def find_owner(attempts: Path, pid: int) -> str | None:
    """Return the handle of the attempt that a process belongs to, or `None`. Blocks.

    Raises:
        CallerError: The process has ended, can't be seen from here, or was started by this daemon itself.
    """
    chain, found = _look(attempts, pid)
    if found:
        return found
    above = {entry.identity.pid for entry in chain}
    for leader in dict.fromkeys(entry.session for entry in chain if entry.session not in above):
        if process_tree.read_entry(leader) and (found := _look(attempts, leader)[1]):
            return found
    if len(chain) > 1 and chain[-1].identity.pid == os.getpid():
        raise CallerError(
            "Processes that the forkjoin daemon started itself can't call it. Call from a process of your own."
        )
    return None


def _look(attempts: Path, pid: int) -> tuple[list[process_tree.Entry], str | None]:
    """Return a process with its ancestors, nearest first, and the attempt that these tell of."""
    for _ in range(_TRIES):
        chain = list(_ancestors(pid))
        found = _find(attempts, chain)
        # As long as each is still the child of the next, no pid among them was reused while it was read.
        if chain and all(process_tree.read_entry(entry.identity.pid) == entry for entry in chain):
            return chain, found
    raise CallerError(
        f"forkjoin can't tell which process is calling: process {pid} has ended or is not visible. Call again."
    )


def _ancestors(pid: int) -> Iterator[process_tree.Entry]:
    """Yield a process and its ancestors, up to this process."""
    at = pid
    while at and (entry := process_tree.read_entry(at)):
        yield entry
        at = entry.parent if at == pid or at != os.getpid() else 0


def _find(attempts: Path, chain: Sequence[process_tree.Entry]) -> str | None:
    rules: tuple[Callable[[Path, process_tree.Entry], str | None], ...] = (_by_shim, _by_cgroup, _by_mark)
    return next((found for rule in rules for entry in chain if (found := rule(attempts, entry))), None)


def _by_shim(attempts: Path, entry: process_tree.Entry) -> str | None:
    """The attempt whose shim this process is: its command line names the folder, where the shim has signed."""
    words = cgroup_files.read(f"/proc/{entry.identity.pid}/cmdline").split("\0")
    folders = (Path(word) for word in words if word.startswith(f"{attempts}/"))
    return next((at.name for at in folders if at.parent == attempts and shim_control.read(at) == entry.identity), None)


def _by_cgroup(attempts: Path, entry: process_tree.Entry) -> str | None:
    lines = cgroup_files.read(f"/proc/{entry.identity.pid}/cgroup").splitlines()
    return next((found for line in lines if (found := attempt_cgroups.find_attempt(attempts, line))), None)


def _by_mark(attempts: Path, entry: process_tree.Entry) -> str | None:
    mark = os.fsencode(f"\0{process_tree.MARK}={attempts}/")
    _, _, rest = process_tree.environment(entry.identity.pid).partition(mark)
    handle = rest.partition(b"\0")[0].decode(errors="replace")
    return handle if _HANDLE.fullmatch(handle) else None
