"""What a wait at the command line tells where it does not end with all agents."""

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from forkjoin.paths import Home
from harness import GIVE_UP_S, forkjoin, running, until


async def test_it_is_for_those_that_there_are_and_tells_of_each_though_another_wait_was_told_before(
    repository: Path, home: Home
) -> None:
    forkjoin(repository, "spawn", f"until test -e {home.state}/go; do sleep 0.02; done; exit 3", "--name", "first")
    forkjoin(repository, "spawn", "true", "--name", "quick")
    with running(repository, "wait") as waiting:
        await until(lambda: _told(home) == 1)  # so that it knows for whom it is
        forkjoin(repository, "spawn", "exec sleep 1000", "--name", "later")
        os.kill(waiting.pid, signal.SIGSTOP)
        (home.state / "go").touch()
        forkjoin(repository, "wait", "first", check=False)
        os.kill(waiting.pid, signal.SIGCONT)
        printed, _ = waiting.communicate(timeout=GIVE_UP_S)
    assert (waiting.returncode, printed.split()[:6]) == (1, ["a2", "quick", "succeeded", "a1", "first", "failed"])


async def test_who_has_ended_is_told_by_one_that_is_interrupted_since_nobody_is_told_again(
    repository: Path, home: Home
) -> None:
    forkjoin(repository, "spawn", "echo the first", "--name", "first")
    forkjoin(repository, "spawn", f"until test -e {home.state}/go; do sleep 0.02; done", "--name", "second")
    forkjoin(repository, "spawn", "exec sleep 1000", "--name", "third")
    with running(repository, "wait") as waiting:
        await until(lambda: _told(home) == 1)
        (home.state / "go").touch()
        await until(lambda: _told(home) == 2)  # so that what it was told before has been heard
        waiting.send_signal(signal.SIGINT)
        printed, _ = waiting.communicate(timeout=GIVE_UP_S)
    assert "a1  first  succeeded  the first" in printed
    assert waiting.returncode == 130


def test_whom_it_gives_up_is_told(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "exec sleep 1000")
    done = forkjoin(repository, "wait", "--timeout", "0.2", check=False)
    assert (done.returncode, done.stderr.strip()) == (1, "time is over, and these go on: a1")


def _told(home: Home) -> int:
    with closing(sqlite3.connect(home.records)) as records:
        (told,) = records.execute("SELECT count(*) FROM told WHERE lead = 'cli'").fetchone()
        return int(told)
