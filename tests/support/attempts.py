"""Attempts in tests: specs of small programs, their output, and their processes."""

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
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.process.executor import Executor
from support.harness import GIVE_UP_S


@dataclass(frozen=True)
class Place:
    """The folder and the files of attempts on this machine. Executors of one place share its attempts."""

    folder: Path
    daemon_lock: Path
    wake: Path  #: the program that a shim runs to start a daemon; it writes `woken`
    woken: Path

    def open(self) -> Executor:
        return Executor(self.folder, self.daemon_lock, [str(self.wake)])


#: The environment of small programs, without variables of the user who runs the tests.
ENVIRONMENT = {"PATH": os.environ["PATH"]}


#: A process tree that ignores signals: a grandchild in another session, a stopped child, and the shell itself. Prints
#: their three pids.
HOSTILE = """
trap '' HUP INT TERM
setsid sh -c 'sleep 1000 & echo $!'
sleep 1000 & kill -STOP $!; echo $!
echo $$
while :; do sleep 1; done
"""


def change_shims(monkeypatch: pytest.MonkeyPatch, folder: Path, change: str) -> None:
    """Make shims execute these lines of Python before they start.

    The name `shim` refers to the shim's module.
    """
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
    """Return a spec. Its input stays open if `stdin` is `None`."""
    return AttemptSpec(handle, argv, cwd, environment, stdin or b"", stdin is not None, timeout_s, together)


def shell(
    handle: str, script: str, *words: str, stdin: bytes | None = b"", timeout_s: float | None = None
) -> AttemptSpec:
    """Return a spec of a shell script with `words` as its arguments $1, $2, etc."""
    return program(handle, "sh", "-c", script, "sh", *words, stdin=stdin, timeout_s=timeout_s)


def python(handle: str, script: str, *words: str, stdin: bytes | None = b"") -> AttemptSpec:
    """Return a spec of a Python script with `words` as its arguments."""
    return program(handle, sys.executable, "-S", "-E", "-c", script, *words, stdin=stdin)


def limited(spec: AttemptSpec, **limits: float) -> AttemptSpec:
    """Return the spec with these limits."""
    return replace(spec, limits=TreeLimits(**limits))  # type: ignore[arg-type]


async def run(executor: Executor, spec: AttemptSpec) -> bytes:
    """Run a program. Return its output after it has ended."""
    await executor.submit(spec)
    return await printed(executor, spec.handle)


async def printed(executor: Executor, handle: str, after: int = 0) -> bytes:
    """Return a program's output from offset `after` on, after it has ended."""
    with anyio.fail_after(GIVE_UP_S):
        return b"".join([chunk async for chunk in executor.output(handle, after)])


async def ended(executor: Executor, handle: str) -> Outcome:
    """Return the outcome of an attempt after it has ended."""
    with anyio.fail_after(GIVE_UP_S):
        return await executor.outcome(handle)


async def lines(executor: Executor, handle: str, count: int) -> list[str]:
    """Return a program's output as lines as soon as it has `count` lines."""
    with anyio.fail_after(GIVE_UP_S):
        while True:
            data = (await executor.read_output(handle, 0, 1024 * 1024)).data
            if data.count(b"\n") >= count:
                return data.decode().splitlines()
            await anyio.sleep(0.005)


async def pids(executor: Executor, handle: str, count: int) -> list[int]:
    """Return the pids that a program prints, one a line."""
    return [int(line) for line in await lines(executor, handle, count)]


def shim_of(place: Place, handle: str) -> int:
    """Return the pid of an attempt's shim."""
    return int(json.loads((place.folder / handle / "started.json").read_text())[1])


def is_held(place: Place, handle: str) -> bool:
    """Return whether a shim, or a process that starts a shim, holds the lock."""
    return file_lock.is_held(place.folder / handle / "lock")


def is_running(pid: int) -> bool:
    """Return whether a process with this pid exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def is_sleep(pid: int) -> bool:
    """Return whether a forked process has executed sleep already."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")


def supervisor_command(attempts: Path) -> str:
    """Return a prefix that makes a shell command a supervisor of this home.

    The command gets the variable of supervisors, and the lock of another attempt.
    """
    folder = attempts / "a9-9"
    folder.mkdir(parents=True, exist_ok=True)
    return f'env -i {attempt_processes.SUPERVISOR}=1 "PATH=$PATH" setsid flock -F {folder}/lock'


@contextlib.contextmanager
def start(*argv: str, mark: str = "", **environment: str) -> Generator["subprocess.Popen[bytes]"]:
    """Start a program in a new session. Kill the session at the end."""
    variables = {"PATH": os.environ["PATH"], **environment, **({attempt_processes.MARK: mark} if mark else {})}
    with subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, start_new_session=True) as started:
        try:
            yield started
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def read_line(started: "subprocess.Popen[bytes]") -> str:
    """Return the next line that a program prints."""
    assert started.stdout
    return started.stdout.readline().decode().strip()


def read_sleeper(started: "subprocess.Popen[bytes]") -> int:
    """Return the pid that a program prints, after that process has executed sleep."""
    pid = int(read_line(started))
    wait_for_sleep(pid)
    return pid


def wait_for_sleep(pid: int) -> None:
    """Return as soon as a forked process has executed sleep."""
    give_up = time.monotonic() + GIVE_UP_S
    while not is_sleep(pid):
        assert time.monotonic() < give_up
        time.sleep(0.005)
