"""How tests drive attempts: specs of small programs, what these print, and what the process table says of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import pytest
from forkjoin.core import file_lock
from forkjoin.core.outcome import Outcome
from forkjoin.core.tree_limits import TreeLimits
from forkjoin.process import attempt_processes, shim
from forkjoin.process.executor import AttemptSpec, Executor
from forkjoin.process.local_executor import LocalExecutor
from support.harness import GIVE_UP_S


@dataclass(frozen=True)
class Place:
    """Where attempts run on this machine. Executors that are opened on one place know the same attempts."""

    folder: Path
    daemon_lock: Path
    wake: Path  #: what a shim executes to start a daemon: it writes `woken`
    woken: Path

    def open(self) -> LocalExecutor:
        return LocalExecutor(self.folder, self.daemon_lock, [str(self.wake)])


#: What a small program needs, and nothing of whoever runs the tests.
ENVIRONMENT = {"PATH": os.environ["PATH"]}


#: A tree that ignores what asks it to end: a grandchild, forked twice, in a session of its own; a child that is
#: stopped; itself. Prints their three pids.
HOSTILE = """
trap '' HUP INT TERM
setsid sh -c 'sleep 1000 & echo $!'
sleep 1000 & kill -STOP $!; echo $!
echo $$
while :; do sleep 1; done
"""


def change_shims(monkeypatch: pytest.MonkeyPatch, folder: Path, change: str) -> None:
    """Have shims execute these lines of Python before they begin; `shim` is their module."""
    script = folder / "shim.py"
    where = f"import sys; sys.path.append({str(Path(shim.__file__).parents[2])!r})"
    script.write_text(f"{where}\nfrom forkjoin.process import shim\n{change}\nshim.main()\n")
    monkeypatch.setattr(shim, "__file__", str(script))


def program(
    handle: str,
    *argv: str,
    cwd: str = "/",
    environment: Mapping[str, str] = ENVIRONMENT,
    stdin: bytes | None = b"",
    timeout_s: float | None = None,
    together: bool = False,
) -> AttemptSpec:
    """A spec; with `stdin` None its input stays open."""
    return AttemptSpec(handle, argv, cwd, environment, stdin or b"", stdin is not None, timeout_s, together)


def shell(
    handle: str, script: str, *words: str, stdin: bytes | None = b"", timeout_s: float | None = None
) -> AttemptSpec:
    """A spec of a shell script; the words are its $1, $2 …"""
    return program(handle, "sh", "-c", script, "sh", *words, stdin=stdin, timeout_s=timeout_s)


def python(handle: str, script: str, *words: str, stdin: bytes | None = b"") -> AttemptSpec:
    """A spec of a Python script."""
    return program(handle, sys.executable, "-S", "-E", "-c", script, *words, stdin=stdin)


def limited(spec: AttemptSpec, **limits: float) -> AttemptSpec:
    """The spec, with these limits."""
    return replace(spec, limits=TreeLimits(**limits))  # type: ignore[arg-type]


async def run(executor: Executor, spec: AttemptSpec) -> bytes:
    """All that a program prints, once it has ended."""
    await executor.submit(spec)
    return await printed(executor, spec.handle)


async def printed(executor: Executor, handle: str, after: int = 0) -> bytes:
    """All that it prints from a byte on, once it has ended."""
    with anyio.fail_after(GIVE_UP_S):
        return b"".join([chunk async for chunk in executor.output(handle, after)])


async def ended(executor: Executor, handle: str) -> Outcome:
    """How it ended, once it has."""
    with anyio.fail_after(GIVE_UP_S):
        return await executor.outcome(handle)


async def lines(executor: Executor, handle: str, count: int) -> list[str]:
    """Its first lines, once so many are there, while it runs."""
    with anyio.fail_after(GIVE_UP_S):
        while True:
            data = (await executor.read_output(handle, 0, 1024 * 1024)).data
            if data.count(b"\n") >= count:
                return data.decode().splitlines()
            await anyio.sleep(0.005)


async def pids(executor: Executor, handle: str, count: int) -> list[int]:
    """The pids that it has printed, a line each."""
    return [int(line) for line in await lines(executor, handle, count)]


def shim_of(place: Place, handle: str) -> int:
    """The pid of its shim."""
    return int(json.loads((place.folder / handle / "started.json").read_text())[1])


def is_held(place: Place, handle: str) -> bool:
    """Whether a shim, or whoever starts one, has the attempt."""
    return file_lock.is_held(place.folder / handle / "lock")


def is_running(pid: int) -> bool:
    """Whether a process has this pid that is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def is_sleep(pid: int) -> bool:
    """Whether it has become the sleep that it was forked for, with the environment that this was given."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")


def keeper(attempts: Path) -> str:
    """What makes a shell's command a keeper of this home: it calls itself one, and has the lock of another attempt."""
    folder = attempts / "a9-9"
    folder.mkdir(parents=True, exist_ok=True)
    return f'env -i {attempt_processes.SUPERVISOR}=1 "PATH=$PATH" setsid flock -F {folder}/lock'


@contextlib.contextmanager
def start(*argv: str, mark: str = "", **environment: str) -> Generator["subprocess.Popen[bytes]"]:
    """A program, in a session of its own; killed at the end."""
    variables = {"PATH": os.environ["PATH"], **environment, **({attempt_processes.MARK: mark} if mark else {})}
    with subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, start_new_session=True) as started:
        try:
            yield started
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def read_line(started: "subprocess.Popen[bytes]") -> str:
    """The next line that it prints."""
    assert started.stdout
    return started.stdout.readline().decode().strip()


def read_sleeper(started: "subprocess.Popen[bytes]") -> int:
    """The pid of a sleep that it prints, once it is one."""
    pid = int(read_line(started))
    wait_for_sleep(pid)
    return pid


def wait_for_sleep(pid: int) -> None:
    """Return once it is a sleep: before, it is a fork of whoever starts it."""
    give_up = time.monotonic() + GIVE_UP_S
    while not is_sleep(pid):
        assert time.monotonic() < give_up
        time.sleep(0.005)
