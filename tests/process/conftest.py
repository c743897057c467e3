"""Fixtures: a place where attempts run, and executors for it. No process may be left at the end."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forkjoin.process.executor import Executor
from support.attempt_fixtures import folder, local, place
from support.attempts import Place, change_shims

__all__ = ["folder", "local", "place"]  # pytest finds fixtures by name


@pytest.fixture(params=["local"])
def reopen(request: pytest.FixtureRequest, local: Executor, place: Place) -> Callable[[], Executor]:
    """Return a function that opens the tested executor as the next daemon does.

    Another executor is another parameter of this fixture.
    """
    return place.open


@pytest.fixture
def executor(reopen: Callable[[], Executor]) -> Executor:
    return reopen()


@pytest.fixture
def sibling() -> Iterator[int]:
    """Yield the pid of a process of the same user that belongs to no attempt."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the intervals and the grace period of shims to 0.05 seconds."""
    change_shims(monkeypatch, tmp_path, "shim._DAEMON_CHECK_S = shim._LOG_CHECK_S = shim._GRACE_S = 0.05")
