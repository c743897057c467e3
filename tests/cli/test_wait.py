"""What a wait at the command line tells where it does not end with all agents."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from forkjoin.paths import Home
from harness import GIVE_UP_S, forkjoin, running, until


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
