"""Processes: which are ours, and how to end them all.

Standard library only, since the shim uses it too. A process is known by boot id, pid and start ticks, so that a reused
pid is never taken for it. An attempt's processes are those whose environment holds its mark (descendants inherit it),
those below its shim (it is their subreaper), those in its cgroup, where it has one, those in a session that one of
these leads, and what is below any of them; owner.py asks the same of one process. Without a cgroup, what cleared its
environment, forked twice *and* outlived the shim escapes them all; so does, in any case, what has taken a
lock of this home's and poses as a daemon.
"""

import contextlib
import functools
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from forkjoin.process import cgroup_files

#: The variable that holds an attempt's mark, in the environment of its program.
MARK = "FORKJOIN_MARK"
#: The variable that daemons and shims have instead: they keep agents, and belong to none, whoever happened to start
#: them, be it a relay in an agent's tree or that agent's shim.
KEEPER = "FORKJOIN_KEEPER"
#: How long killed processes have to vanish before they are called survivors.
KILL_WAIT_S = 5.0
#: How soon processes are looked for again; each look reads the whole process table.
_SOONEST_S, _LATEST_S = 0.01, 0.2
#: How often a process that is becoming another program is looked at, a millisecond apart; and a tree that grows.
_TRIES = 50
_PF_EXITING, _PF_KTHREAD = 0x4, 0x200000


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

    def __str__(self) -> str:
        return f"{self.name} (pid {self.identity.pid})"


@functools.cache
def _boot_id() -> str:
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()


def read_entry(pid: int) -> Entry | None:
    """The process with this pid, unless it has ended; a zombie has, if no thread of it goes on."""
    try:
        name, fields = read_stat(pid)
    except OSError:
        return None
    state, threads = fields[0], int(fields[17])
    if state in (b"Z", b"X") and threads <= 1:
        return None
    identity = Identity(_boot_id(), pid, int(fields[19]))
    return Entry(identity, int(fields[1]), int(fields[3]), name.decode(errors="replace"))


def identify(pid: int) -> Identity | None:
    """Who has this pid now; none if it has ended."""
    entry = read_entry(pid)
    return entry.identity if entry else None


def is_alive(identity: Identity) -> bool:
    return identify(identity.pid) == identity


def table() -> list[Entry]:
    """Every process that runs."""
    return [entry for name in os.listdir("/proc") if name.isdigit() and (entry := read_entry(int(name)))]


def tree(mark: str, shim: Identity | None, group: str | None = None) -> list[Entry]:
    """The processes of the attempt with this mark, in its cgroup's folder and, where it lives, below its shim.

    The shim itself is not among them, nor a daemon or another shim below it, nor what is below these.
    """
    marked: set[int] = set()
    posing: set[int] = set()
    above: set[int] = set()
    entries: list[Entry] = []
    for entry in table():
        if entry.identity == shim:
            above.add(entry.identity.pid)
            continue
        entries.append(entry)
        started_with = environment(entry.identity.pid)
        if _variable(MARK, mark) in started_with:
            marked.add(entry.identity.pid)
        elif _variable(KEEPER, "1") in started_with:
            posing.add(entry.identity.pid)
    # Asked after the table was read: who has a member's pid by now, and had it then, was a member or is gone.
    roots = marked | cgroup_files.members(group)
    found = _reach(roots, above, entries)
    if keepers := {pid for pid in found & posing if is_keeper(pid, mark)}:
        found = _reach(roots, above, [entry for entry in entries if entry.identity.pid not in keepers])
    never = {1, os.getpid()}
    return [entry for entry in entries if entry.identity.pid in found - never]


def _reach(roots: set[int], above: set[int], entries: Sequence[Entry]) -> set[int]:
    """Return the pids of the roots, of their descendants, of the sessions these lead, and what is below those."""
    found = roots & {entry.identity.pid for entry in entries}
    found |= _below(found | above, entries)
    sessions = found & {entry.session for entry in entries}
    found |= {entry.identity.pid for entry in entries if entry.session in sessions}
    return found | _below(found, entries)


def is_keeper(pid: int, mark: str) -> bool:
    """Return whether a process is a daemon or a shim of this home, which belong to no attempt.

    It says so in its environment, as any process could, and holds a lock: the daemon's, or an attempt's.
    """
    started_with = environment(pid)
    return (
        _variable(KEEPER, "1") in started_with
        and _variable(MARK, mark) not in started_with
        and _holds_lock(pid, os.path.dirname(mark))
    )


def _holds_lock(pid: int, attempts: str) -> bool:
    """Return whether a process holds the lock of the daemon or of an attempt (the fdinfo of proc(5))."""
    own = f"{os.path.dirname(attempts)}/daemon.lock"
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                file = os.readlink(f"/proc/{pid}/fd/{name}")
                is_lock = file == own or (file.startswith(f"{attempts}/") and file.endswith("/lock"))
                if is_lock and re.search(rb"^lock:.* FLOCK .* WRITE ", _read(f"/proc/{pid}/fdinfo/{name}"), re.M):
                    return True
    return False


def _variable(name: str, value: str) -> bytes:
    return b"\0" + os.fsencode(f"{name}={value}") + b"\0"


def environment(pid: int) -> bytes:
    """Return a process's initial environment, NUL-separated. Empty if unreadable."""
    with contextlib.suppress(OSError):
        for _ in range(_TRIES):  # one that is just becoming another program has none for a moment
            data = _read(f"/proc/{pid}/environ")
            if data or _has_none(pid):
                return b"\0" + data
            time.sleep(0.001)
    return b""


def _has_none(pid: int) -> bool:
    """Whether it has no environment, and is not about to get one: the kernel's own, what ends, what was cleared."""
    _, fields = read_stat(pid)
    flags, begin, end = int(fields[6]), fields[47], fields[48]
    return bool(flags & (_PF_EXITING | _PF_KTHREAD)) or begin == end != b"0"


def read_stat(pid: int) -> tuple[bytes, list[bytes]]:
    """A process's name, and the fields that follow it (proc_pid_stat(5)); OSError for one that is not there."""
    line = _read(f"/proc/{pid}/stat")
    # The name stands in parentheses and may hold any byte, these included.
    name, _, rest = line.partition(b"(")[2].rpartition(b")")
    return name, rest.split()


def children(pid: int, threads: int = 1) -> Iterator[int]:
    """Yield the pids of a process's children, zombies too, of all its threads (proc_pid_task(5))."""
    for task in os.listdir(f"/proc/{pid}/task") if threads > 1 else (pid,):
        yield from map(int, cgroup_files.read(f"/proc/{pid}/task/{task}/children").split())


def _read(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read()


def _below(roots: set[int], entries: Iterable[Entry]) -> set[int]:
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


def open_handle(identity: Identity) -> int | None:
    """A descriptor of this very process, and of none that has come to its pid since; none once it has ended.

    It takes signals, and is readable once the process has ended (pidfd_open(2)).
    """
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return None
    if is_alive(identity):
        return handle
    os.close(handle)
    return None


def send(identity: Identity, signum: signal.Signals) -> None:
    """Signal this very process, if it is still there."""
    handle = open_handle(identity)
    if handle is None:
        return
    with contextlib.suppress(OSError):  # it ended meanwhile, or may not be signalled: whoever looks again will see it
        signal.pidfd_send_signal(handle, signum)
    os.close(handle)


def wake(identity: Identity) -> bool:
    """Let it go on where it is stopped; whether it was. One that a debugger looks at (`t`) is that one's to let go."""
    try:
        stopped = read_stat(identity.pid)[1][0] == b"T"
    except OSError:
        return False
    if stopped:
        send(identity, signal.SIGCONT)
    return stopped


def stop(find: Callable[[], list[Entry]]) -> bool:
    """Stop all that `find` finds, and what these have started meanwhile, until nothing is new; whether that was any."""
    stopped: set[Identity] = set()
    for _ in range(_TRIES):
        new = [entry for entry in _look(find) if entry.identity not in stopped]
        if not new:
            break
        for entry in new:
            send(entry.identity, signal.SIGSTOP)
        stopped.update(entry.identity for entry in new)
    return bool(stopped)


def end(
    find: Callable[[], list[Entry]],
    grace: float,
    kill_below: Callable[[], list[Entry]] = list,
    group: str | None = None,
) -> list[Entry]:
    """End all that `find` finds: TERM, `grace` seconds, then KILL until none is left. Blocks.

    What those that were told to end start then, to put things in order, is not told as long as they live. What forks
    and ends without pause is in no table by the time that this was read: `kill_below` ends it where a shim is above it
    (see `kill_children`), and it can't fork in the cgroup that is `group`.

    Returns:
        What could not be ended within `KILL_WAIT_S`.
    """
    told: set[Identity] = set()
    give_up = time.monotonic() + grace
    pause = _SOONEST_S
    while (left := _look(find)) and (remaining := give_up - time.monotonic()) > 0:
        theirs = _below({entry.identity.pid for entry in left if entry.identity in told}, left)
        for entry in left:
            if entry.identity not in told and entry.identity.pid not in theirs:
                told.add(entry.identity)
                send(entry.identity, signal.SIGTERM)
                send(entry.identity, signal.SIGCONT)  # a stopped process takes no TERM
        time.sleep(min(pause, remaining))
        pause = min(pause * 1.5, _LATEST_S)
    with cgroup_files.without_forks(group):
        return _kill(find, left or (_look(find) if cgroup_files.members(group) else []), kill_below)


def _kill(find: Callable[[], list[Entry]], left: list[Entry], kill_below: Callable[[], list[Entry]]) -> list[Entry]:
    give_up = time.monotonic() + KILL_WAIT_S
    while True:
        for signum in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none forks while others are killed
            for entry in left:
                send(entry.identity, signum)
        below = kill_below()
        if not left:
            return below
        time.sleep(_SOONEST_S)
        left = _look(find)
        if time.monotonic() >= give_up:
            return [*dict.fromkeys([*left, *below])]


def kill_children(parent: int, mark: str, reap: Callable[[], object] = list) -> list[Entry]:
    """Kill all below a shim until it has no child left, keepers apart. Return what is left after `KILL_WAIT_S`.

    The shim is a subreaper: in the moment in which a process ends, whatever it has started becomes the shim's child,
    so nothing gets past a look at these. A child that is hit while it forks starts nothing; one that has forked before
    is followed by the next look, which takes no longer than some forks. The shim must be this process, or be stopped:
    then no pid passes to another process before the signal is sent.
    """
    give_up = time.monotonic() + KILL_WAIT_S
    apart = {os.getpid()}  #: ourselves, where an agent's relay has started us; keepers, and zombies nobody waits for
    last: list[int] = []
    left: list[Entry] = []
    while True:
        reap()
        pids = [*children(parent)]
        # Only a look after all were seen to have ended tells that none of them had started another before.
        if not pids or (pids == last and not left):
            return []
        if time.monotonic() >= give_up:
            return left or [Entry(Identity(_boot_id(), pids[-1], 0), parent, 0, "a process that forks without pause")]
        if pids == last:  # they take their time to end
            time.sleep(_SOONEST_S)
        theirs = [pid for pid in reversed(pids) if pid not in apart and _kill_child(pid, mark)]
        left = [entry for pid in theirs if (entry := read_entry(pid))]
        apart = {*pids} - {entry.identity.pid for entry in left}
        last = pids


def _kill_child(pid: int, mark: str) -> bool:
    """Kill a process and return True, unless it is a daemon or another shim.

    It is stopped first, so that it stays the same while we look.
    """
    with contextlib.suppress(OSError):  # it may not be signalled: whoever looks again will see it
        os.kill(pid, signal.SIGSTOP)
        is_ours = not is_keeper(pid, mark)
        os.kill(pid, signal.SIGKILL if is_ours else signal.SIGCONT)
        return is_ours
    return True


def _look(find: Callable[[], list[Entry]]) -> list[Entry]:
    """What is found; where that is nothing, in a second look.

    The first may have missed a process that was started after the table was listed, by one that ended before it was
    read.
    """
    return find() or find()
