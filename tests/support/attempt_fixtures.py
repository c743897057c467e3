"""Fixtures for tests that run attempts: their folder, a place for them, and the local executor."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from conftest import processes_of
from forkjoin.core import file_lock
from forkjoin.process.executor import Executor
from support.attempts import Place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder that contains the attempts' folders."""
    folder = tmp_path / "attempts"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
async def place(folder: Path, tmp_path: Path) -> AsyncIterator[Place]:
    """Yield a place for attempts. End the processes that a test left running.

    Check afterwards that no process is left.
    """
    place = Place(folder, tmp_path / "daemon.lock", tmp_path / "wake", tmp_path / "woken")
    place.wake.write_text(f"#!/bin/sh\necho woken >> '{place.woken}'\n")
    place.wake.chmod(0o700)
    yield place
    if processes_of(tmp_path):
        async with anyio.create_task_group() as tasks:
            for attempt in folder.iterdir():
                tasks.start_soon(place.open().cancel, attempt.name, 0)
    left = processes_of(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.fixture
def local(place: Place) -> Iterator[Executor]:
    """Yield an executor. This process holds the lock of the daemon.

    So no shim starts a daemon.
    """
    held = file_lock.take(place.daemon_lock)
    assert held is not None
    yield place.open()
    os.close(held)
