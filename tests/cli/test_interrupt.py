"""^C in any command, wrong command lines, and commands whose daemon ends."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from functools import partial
from pathlib import Path
from typing import IO

import anyio
import pytest
from forkjoin.core.paths import Home
from forkjoin.transport import daemon_connection
from support.harness import GIVE_UP_S, forkjoin, running, until

COMMANDS = [
    ("spawn", "true"),
    ("ps",),
    ("ps", "--watch"),
    ("logs", "-f", "a1"),
    ("wait",),
    ("result", "a1"),
    ("diff", "a1"),
    ("stop", "a1"),
    ("rm", "a1"),
    ("merge", "a1"),
    ("status",),
    ("doctor",),
    ("daemon", "start"),
    ("daemon", "status"),
    ("daemon", "stop"),
]


def _daemon_pid(home: Home) -> int:
    connection = daemon_connection.try_connect(home)
    assert connection
    with connection:
        return daemon_connection.peer_of(connection)[0]


def _until_it_asks(process: "subprocess.Popen[str]") -> None:
    """Wait until the command is connected and waits for an answer."""

    def asks() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        links = Path(f"/proc/{process.pid}/fd").iterdir()
        try:
            return any(os.readlink(link).startswith("socket:") for link in links)
        except FileNotFoundError:  # the descriptor was closed meanwhile
            return False

    anyio.run(until, asks)


def _interrupt(process: "subprocess.Popen[str]") -> str:
    """Send ^C, and return what the command prints to stderr."""
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 130, words
    assert "Traceback" not in words
    return words


def test_an_interrupt_ends_any_command_and_nothing_else(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "sleep 1000", "--name", "goes-on")
    daemon = _daemon_pid(home)
    for command in COMMANDS:
        os.kill(daemon, signal.SIGSTOP)  # each command keeps waiting for its answer
        try:
            with running(repository, *command) as process:
                _until_it_asks(process)
                _interrupt(process)
        finally:
            os.kill(daemon, signal.SIGCONT)
    assert _daemon_pid(home) == daemon
    states = {row["name"]: row["state"] for row in json.loads(forkjoin(repository, "ps", "--json").stdout)["agents"]}
    assert states["goes-on"] in ("preparing", "running")


def test_an_interrupted_merge_is_carried_out_all_the_same_and_says_so(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "echo x > x.txt", "--name", "lands")
    forkjoin(repository, "wait")
    verify = f"touch {home.state}/verifying; until test -e {home.state}/go; do sleep 0.02; done"
    with running(repository, "merge", "lands", "--verify", verify) as process:
        anyio.run(until, (home.state / "verifying").exists)
        assert "the merge goes on if it has begun" in _interrupt(process)
    (home.state / "go").touch()
    anyio.run(until, (repository / "x.txt").exists)


def test_an_interrupt_while_tasks_are_typed_spawns_nothing(repository: Path, home: Home) -> None:
    forkjoin(repository, "daemon", "start")
    with running(repository, "spawn") as process:
        assert process.stdin
        process.stdin.write("true\n")
        process.stdin.flush()
        anyio.run(until, partial(_nothing_unread, process.stdin))
        _interrupt(process)
    assert json.loads(forkjoin(repository, "ps", "--json").stdout)["agents"] == []


def _nothing_unread(pipe: IO[str]) -> bool:
    """Return whether a pipe is empty."""
    return not int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)


@pytest.mark.parametrize("command", [("wait",), ("logs", "-f", "a1"), ("stop", "a1")])
def test_a_command_goes_on_with_the_next_daemon(repository: Path, home: Home, command: tuple[str, ...]) -> None:
    forkjoin(repository, "spawn", f"echo up; until test -e {home.state}/go; do sleep 0.02; done; echo done")
    daemon = _daemon_pid(home)
    os.kill(daemon, signal.SIGSTOP)
    with running(repository, *command) as process:
        _until_it_asks(process)
        os.kill(daemon, signal.SIGKILL)
        (home.state / "go").touch()
        shown, words = process.communicate(timeout=2 * GIVE_UP_S)
    assert process.returncode == 0, words
    assert "a1" in shown or "done" in shown


def test_two_terminals_see_the_same(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", f"until test -e {home.state}/go; do sleep 0.02; done", "--name", "shared")
    with running(repository, "wait", "shared") as first, running(repository, "wait", "shared") as second:
        assert "shared" in forkjoin(repository, "ps").stdout
        (home.state / "go").touch()
        for process in (first, second):
            shown, _ = process.communicate(timeout=GIVE_UP_S)
            assert (process.returncode, "succeeded" in shown) == (0, True)


WRONG = [
    (("nonsense",), 2, "No such command"),
    (("spawn", "--nonsense", "x"), 2, "No such option"),
    (("spawn", ""), 1, "must not be empty"),
    (("logs", "a99"), 1, "No agent 'a99'"),
    (("wait", "--timeout", "soon"), 2, "valid number"),
    (("daemon", "logs", "-n", "0"), 2, "-n"),
    (("mcp", "now"), 2, "unexpected extra argument"),
    (("wait", "--timeout", "nan"), 1, "--timeout nan is not valid. Give seconds"),
    (("spawn", "caf\udce9"), 1, "is not valid UTF-8"),
    (("ps", "--watch"), 1, "needs a terminal"),
    *[((command, ""), 1, "No agent ''") for command in ("wait", "stop", "logs", "result", "diff", "rm", "merge")],
]


@pytest.mark.parametrize(("command", "code", "says"), WRONG, ids=lambda value: str(value)[:20])
def test_wrong_input_gets_an_error_message(
    repository: Path, home: Home, command: tuple[str, ...], code: int, says: str
) -> None:
    done = forkjoin(repository, *command, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert says in done.stderr
