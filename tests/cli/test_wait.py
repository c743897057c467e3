"""forkjoin wait that ends before all agents have ended."""

import math
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from forkjoin.cli.mcp_client import Client
from forkjoin.cli.wait import Waiting
from forkjoin.core.paths import Home
from rich.progress import Progress
from support.harness import GIVE_UP_S, forkjoin, running, until


class Answers:
    """A client with scripted answers, which records the ids that it is asked for."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)
        self.asked: list[list[str] | None] = []

    def call(self, _: str, *, ids: list[str] | None, until: str, timeout_s: float) -> dict[str, Any]:
        self.asked.append(ids)
        return self._answers.pop(0)


def row(number: int, state: str) -> dict[str, Any]:
    return {"id": f"a{number}", "name": "one", "state": state, "summary": ""}


def test_a_wait_without_ids_is_for_the_agents_that_the_first_complete_result_names() -> None:
    many = {"finished": [row(1, "succeeded")], "pending": [row(2, "running")], "timed_out": False, "more": 1}
    all_ = {"finished": [], "pending": [row(2, "running"), row(3, "running")], "timed_out": True}
    last = {"finished": [row(3, "failed"), row(2, "succeeded")], "pending": [], "timed_out": False}
    client = Answers(many, all_, all_, last)
    waiting = Waiting(cast("Client", client), None, math.inf, first=False)
    waiting.wait(Progress(disable=True))
    assert client.asked == [None, None, ["a2", "a3"], ["a2", "a3"]]
    assert (waiting.is_over, [*waiting.ended]) == (True, ["a1", "a3", "a2"])


async def test_an_interrupted_wait_prints_the_agents_that_have_ended(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "echo the first", "--name", "first")
    forkjoin(repository, "spawn", f"until test -e {home.state}/go; do sleep 0.02; done", "--name", "second")
    forkjoin(repository, "spawn", "exec sleep 1000", "--name", "third")
    with running(repository, "wait") as waiting:
        await until(lambda: _count_reported(home) == 1)
        (home.state / "go").touch()
        await until(lambda: _count_reported(home) == 2)  # the first report has arrived by then
        waiting.send_signal(signal.SIGINT)
        printed, _ = waiting.communicate(timeout=GIVE_UP_S)
    assert "a1  first  succeeded  the first" in printed
    assert waiting.returncode == 130


def test_a_wait_that_times_out_names_the_agents_still_under_way(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "exec sleep 1000")
    done = forkjoin(repository, "wait", "--timeout", "0.2", check=False)
    assert (done.returncode, done.stderr.strip()) == (1, "the time is up; still under way: a1")


def _count_reported(home: Home) -> int:
    with closing(sqlite3.connect(home.records)) as records:
        (count,) = records.execute("SELECT count(*) FROM told WHERE lead = 'cli'").fetchone()
        return int(count)
