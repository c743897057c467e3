"""What is killed, by SIGKILL all of it: the daemon, relays, shims and agents' programs.

What is looked for by its command line and environment is killed by a handle of that very process.
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
#: The steps that a daemon falls at, by the store's names for them, and at most so many of each later.
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
#: How long something to be killed is waited for.
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
        """Of the attempt that it is the shim of, or belongs to; '' where it is of none."""
        folder = self.argv[-2] if self.is_shim else self.environment.get(attempt_processes.MARK, "")
        return Path(folder).name

    def __str__(self) -> str:
        return f"{self.entry} {' '.join(self.argv)[:120]} {self.handle}"

    def kill(self) -> None:
        process_signals.send_signal(self.entry.identity, signal.SIGKILL)


def running(world: World) -> list[Running]:
    """Whatever runs with the world's home in its command line or environment, the leads' relays apart."""
    relays = {lead.process.pid for lead in world.leads}
    return [one for one in _find(str(world.home)) if one.entry.identity.pid not in relays]


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
    daemons = [one for one in running(world) if one.is_daemon]
    pids = {one.entry.identity.pid for one in daemons}
    for one in daemons:
        if one.entry.parent not in pids:  # else it is about to become a shim, or a git
            _kill(world, "daemon", one)
            world.until(lambda: not process_table.is_alive(one.entry.identity), "a killed daemon was gone")  # noqa: B023


def let_daemon_fall(world: World) -> str:
    """Kill the daemon, and start one in its place that will kill itself at a step; the step's name."""
    when, step = world.random.choice(("before", "within", "after")), world.random.choice(list(_STEPS))
    number = world.random.randint(1, _STEPS[step])
    lock = os.open(world.home / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # no relay starts one meanwhile
        kill_daemon(world)
        argv = [sys.executable, "-P", "-E", str(_FAIL_POINTS), when, str(number), step, str(world.fell)]
        environment = {**world.environment, attempt_processes.SUPERVISOR: "1"}
        with (world.home / "daemon.log").open("ab") as log:
            daemon = subprocess.Popen(
                argv, cwd=world.home, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        world.note(f"a daemon that falls {when} step {number} of {step}: pid {daemon.pid}")
        world.until(lambda: daemon.poll() is not None or world.answers(), "a daemon answered")
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
    _kill_one(world, "shim", lambda one: one.is_shim)


def kill_program(world: World) -> None:
    _kill_one(world, "program", lambda one: bool(one.handle) and not one.is_shim)


def _kill_one(world: World, what: str, is_one: Callable[[Running], bool]) -> None:
    """Kill one of these, as soon as there is one: after a daemon was killed that takes its time."""
    give_up = time.monotonic() + _PATIENCE_S
    while not (found := [one for one in running(world) if is_one(one)]):
        if time.monotonic() > give_up:
            return
        time.sleep(0.01)
    one = world.random.choice(sorted(found, key=lambda one: one.entry.identity.pid))
    _note_hurt(world, what, one.handle)
    _kill(world, what, one)


def _kill(world: World, what: str, one: Running) -> None:
    world.note(f"kill the {what}: {one}")
    one.kill()
    world.counts[f"{what}s"] += 1


def _note_hurt(world: World, what: str, handle: str) -> None:
    """Remember whose process it was: it may end as it would not have else. A landing's verify may fail for it, too."""
    agent, _, rest = handle.partition("-")
    if number_of(agent):
        world.hurt.setdefault(agent, set()).add(f"{what} {rest}")
