"""A place where attempts run, and an executor for it; at the end nothing of it may be left."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forkjoin.process.executor import Executor
from forkjoin.process.local_executor import LocalExecutor
from support.attempt_fixtures import folder, local, place
from support.attempts import Place, change_shims

__all__ = ["folder", "local", "place"]  # pytest finds fixtures by name


@pytest.fixture(params=["local"])
def reopen(request: pytest.FixtureRequest, local: LocalExecutor, place: Place) -> Callable[[], Executor]:
    """How a daemon that takes over opens the executor that is under test. Another executor is another parameter."""
    return place.open


@pytest.fixture
def executor(reopen: Callable[[], Executor]) -> Executor:
    return reopen()


@pytest.fixture
def sibling() -> Iterator[int]:
    """The pid of a process of the same user that has nothing to do with any attempt."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shims whose minute and whose grace are a moment."""
    change_shims(monkeypatch, tmp_path, "shim._DAEMON_CHECK_S = shim._LOG_CHECK_S = shim._GRACE_S = 0.05")
