"""Killing the daemon, relays, shims and agents' programs with SIGKILL.

Processes are found by their command lines and environments, and killed by identity, so a reused pid is never hit.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from forkjoin.core.agent_spec import number_of
from forkjoin.process import attempt_processes, process_signals, process_table

from crash.world import World

_FAIL_POINTS = Path(__file__).with_name("with_fail_points.py")
#: The recorded steps at which a daemon kills itself, and the largest N for its Nth step of that name.
_STEPS = {
    "any": 8,
    "Lifecycle.spawn": 1,
    "Lifecycle.move": 6,
    "set_prepared": 2,
    "Lifecycle.end_attempt": 4,
    "Lifecycle.queue_again": 1,
    "Lifecycle.finish": 2,
    "set_landing": 2,
    "ScratchWorktrees.take": 1,
    "set_verdict": 1,
    "Lifecycle.begin_removal": 1,
    "set_removed": 2,
    "Messages.add": 1,
}
#: Seconds to wait until a process exists that can be killed.
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Running:
    """A process of this world's home."""

    entry: process_table.Process
    argv: list[str]
    environment: dict[str, str]

    @property
    def is_daemon(self) -> bool:
        return self.argv[-2:] == ["daemon", "run"] or any(word.endswith(_FAIL_POINTS.name) for word in self.argv)

    @property
    def is_shim(self) -> bool:
        return any(word.endswith("/shim.py") for word in self.argv)

    @property
    def handle(self) -> str:
        """The handle of the attempt that this process belongs to, or '' if there is none."""
        folder = self.argv[-2] if self.is_shim else self.environment.get(attempt_processes.MARK, "")
        return Path(folder).name

    def __str__(self) -> str:
        return f"{self.entry} {' '.join(self.argv)[:120]} {self.handle}"

    def kill(self) -> None:
        process_signals.send_signal(self.entry.identity, signal.SIGKILL)


def running(world: World) -> list[Running]:
    """Return the processes of the world's home, except the leads' relays.

    A process belongs to the home if its command line or environment names the folder.
    """
    relays = {lead.process.pid for lead in world.leads}
    return [process for process in _find(str(world.home)) if process.entry.identity.pid not in relays]


def _find(home: str) -> Iterator[Running]:
    for entry in process_table.list_processes():
        try:
            folder = Path(f"/proc/{entry.identity.pid}")
            argv, environment = (_words(folder / name) for name in ("cmdline", "environ"))
        except OSError:
            continue
        if any(home in word for word in (*argv, *environment)):
            pairs = (word.partition("=") for word in environment)
            yield Running(entry, argv, {name: value for name, _, value in pairs})


def _words(file: Path) -> list[str]:
    return os.fsdecode(file.read_bytes()).removesuffix("\0").split("\0")


def kill_daemon(world: World) -> None:
    daemons = [process for process in running(world) if process.is_daemon]
    pids = {daemon.entry.identity.pid for daemon in daemons}
    for daemon in daemons:
        if daemon.entry.parent in pids:
            continue  # a fork of the daemon that has not executed its shim or git yet
        _kill(world, "daemon", daemon)
        world.until(lambda: not process_table.is_alive(daemon.entry.identity), "the killed daemon to end")  # noqa: B023


def let_daemon_fall(world: World) -> str:
    """Kill the daemon, and start one that will kill itself at a random step.

    Return the step's name.
    """
    when, step = world.random.choice(("before", "within", "after")), world.random.choice(list(_STEPS))
    number = world.random.randint(1, _STEPS[step])
    lock = os.open(world.home / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # keeps relays from starting a daemon
        kill_daemon(world)
        argv = [sys.executable, "-P", "-E", str(_FAIL_POINTS), when, str(number), step, str(world.fell)]
        environment = {**world.environment, attempt_processes.SUPERVISOR: "1"}
        with (world.home / "daemon.log").open("ab") as log:
            daemon = subprocess.Popen(
                argv, cwd=world.home, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        world.note(f"a daemon that kills itself {when} step {number} of {step}: pid {daemon.pid}")
        world.until(lambda: daemon.poll() is not None or world.answers(), "a daemon to answer")
    finally:
        os.close(lock)
    world.daemons.append(daemon)
    return step


def kill_relay(world: World) -> None:
    lead = world.random.choice(world.leads)
    if not lead.killed:
        world.note(f"kill the relay of {lead.name}, which awaits {', '.join(map(str, lead.unanswered)) or 'nothing'}")
        lead.kill()
        world.counts["relays"] += 1


def kill_shim(world: World) -> None:
    _kill_one(world, "shim", lambda process: process.is_shim)


def kill_program(world: World) -> None:
    _kill_one(world, "program", lambda process: bool(process.handle) and not process.is_shim)


def _kill_one(world: World, kind: str, matches: Callable[[Running], bool]) -> None:
    """Kill one of the matching processes.

    Wait briefly for one: a daemon that has just started may start it soon.
    """
    give_up = time.monotonic() + _PATIENCE_S
    while not (found := [process for process in running(world) if matches(process)]):
        if time.monotonic() > give_up:
            return
        time.sleep(0.01)
    chosen = world.random.choice(sorted(found, key=lambda process: process.entry.identity.pid))
    _note_hurt(world, kind, chosen.handle)
    _kill(world, kind, chosen)


def _kill(world: World, kind: str, process: Running) -> None:
    world.note(f"kill the {kind}: {process}")
    process.kill()
    world.counts[f"{kind}s"] += 1


def _note_hurt(world: World, kind: str, handle: str) -> None:
    """Record that a process of this agent was killed, so that it may end differently.

    A handle that names no agent belongs to the verify of a merge, and is not recorded.
    """
    agent, _, rest = handle.partition("-")
    if number_of(agent):
        world.hurt.setdefault(agent, set()).add(f"{kind} {rest}")
