"""Processes: which are ours, and how to end them all.

Standard library only, since the shim uses it too. A process is known by boot id, pid and start ticks, so that a reused
pid is never taken for it. An attempt's processes are those whose environment holds its mark (descendants inherit it),
those below its shim (it is their subreaper) and those in a session that one of these leads. What cleared its
environment, forked twice *and* outlived the shim escapes all three.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

#: How long killed processes have to vanish before they are called survivors.
KILL_WAIT_S = 5.0
_PAUSE_S = 0.01
#: In the environment of daemons and shims: they keep agents, and belong to none, whoever happened to start them.
KEEPER = b"\0FORKJOIN_KEEPER=1\0"


class Identity(NamedTuple):
    boot_id: str
    pid: int
    start_ticks: int


class Entry(NamedTuple):
    """A line of the process table, of a process that still runs."""

    identity: Identity
    parent: int
    session: int
    name: str


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_entry(pid: int, boot: str | None = None) -> Entry | None:
    """The process with this pid, unless it has ended; a zombie has (proc_pid_stat(5))."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name stands in parentheses and may hold any byte, these included.
    name, _, rest = line.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    if fields[0] in (b"Z", b"X"):
        return None
    identity = Identity(boot or boot_id(), pid, int(fields[19]))
    return Entry(identity, int(fields[1]), int(fields[3]), name.decode(errors="replace"))


def identify(pid: int) -> Identity | None:
    """Who has this pid now; none if it has ended."""
    entry = read_entry(pid)
    return entry.identity if entry else None


def is_alive(identity: Identity) -> bool:
    return identity.boot_id == boot_id() and identify(identity.pid) == identity


def table() -> list[Entry]:
    """Every process that runs."""
    boot = boot_id()
    entries = (read_entry(int(name), boot) for name in os.listdir("/proc") if name.isdigit())
    return [entry for entry in entries if entry]


def tree(mark: str, root: int | None) -> list[Entry]:
    """The processes of the attempt with this mark and, if `root` is given, below its shim (which is not among them).

    A daemon or another shim below it, started by a relay in that tree, is nobody's: neither it nor what is below it.
    """
    entries = table()
    environments = {entry.identity.pid: _environment(entry.identity.pid) for entry in entries}
    needle = b"\0FORKJOIN_MARK=" + mark.encode() + b"\0"
    found = {pid for pid, environment in environments.items() if needle in environment}
    keepers = {pid for pid, environment in environments.items() if KEEPER in environment}
    roots = found if root is None else {*found, root}
    found |= _below(roots, [entry for entry in entries if entry.identity.pid not in keepers])
    sessions = found & {entry.session for entry in entries}
    members = {e.identity.pid for e in entries if e.session in sessions and e.identity.pid not in keepers}
    ours = {1, os.getpid(), root}
    return [entry for entry in entries if entry.identity.pid in (found | members) - ours]


def _environment(pid: int) -> bytes:
    """What a process was started with, between NULs; empty for those that are not ours to read."""
    try:
        return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _below(roots: set[int], entries: Iterable[Entry]) -> set[int]:
    """The descendants of these, through these entries alone."""
    children: dict[int, list[int]] = {}
    for entry in entries:
        children.setdefault(entry.parent, []).append(entry.identity.pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        new = [child for child in children.get(todo.pop(), ()) if child not in found]
        found.update(new)
        todo.extend(new)
    return found


def send(identity: Identity, signum: signal.Signals) -> None:
    """Signal this very process, and none that has come to its pid since (pidfd_open(2))."""
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return
    try:
        if identify(identity.pid) == identity:
            signal.pidfd_send_signal(handle, signum)
    except OSError:
        pass  # it ended meanwhile, or may not be signalled: whoever looks again will see it
    finally:
        os.close(handle)


def end(find: Callable[[], list[Entry]], grace: float) -> list[Entry]:
    """End all that `find` finds: TERM, `grace` seconds, then KILL until none is left. Blocks.

    Returns:
        What could not be ended within `KILL_WAIT_S`.
    """
    give_up = time.monotonic() + grace
    signalled: set[Identity] = set()
    while (left := find()) and time.monotonic() < give_up:
        for entry in left:
            if entry.identity not in signalled:
                signalled.add(entry.identity)
                send(entry.identity, signal.SIGTERM)
                send(entry.identity, signal.SIGCONT)  # a stopped process takes no TERM
        time.sleep(_PAUSE_S)
    give_up = time.monotonic() + KILL_WAIT_S
    while left:
        for signum in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none forks while others are killed
            for entry in left:
                send(entry.identity, signum)
        time.sleep(_PAUSE_S)
        left = find()
        if time.monotonic() > give_up:
            break
    return left
