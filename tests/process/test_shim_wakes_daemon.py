"""Shims start a daemon if none runs: at their end, and once a minute before."""

import os
import signal

import pytest
from conftest import processes_of
from forkjoin.process.executor import Executor
from support.attempts import Place, is_held, is_running, printed, run, shell
from support.harness import until


async def test_a_shim_starts_a_daemon_at_its_end(place: Place) -> None:
    await run(place.open(), shell("a1-1", "true"))
    await until(place.woken.exists)
    assert place.woken.read_text() == "woken\n"


async def test_a_shim_starts_no_daemon_if_a_daemon_runs(local: Executor, place: Place) -> None:
    await run(local, shell("a1-1", "true"))
    await local.outcome("a1-1")
    await until(lambda: not processes_of(place.folder))
    assert not place.woken.exists()


@pytest.mark.usefixtures("hurried")
async def test_a_shim_starts_a_daemon_while_its_program_runs(place: Place) -> None:
    executor = place.open()
    await executor.submit(shell("a1-1", "read go", stdin=None))
    await until(place.woken.exists)
    assert is_held(place, "a1-1")
    await executor.close_input("a1-1")
    assert (await executor.outcome("a1-1")).kind == "exited"


@pytest.mark.usefixtures("hurried")
async def test_a_daemon_started_by_a_shim_outlives_the_attempt(place: Place) -> None:
    place.wake.write_text(
        f"#!/bin/sh\nexec 9>>'{place.daemon_lock}'; flock -xn 9 || exit; echo $$ > '{place.woken}'; exec sleep 1000"
    )
    executor = place.open()
    await executor.submit(shell("a1-1", "read go", stdin=None))
    await until(lambda: place.woken.exists() and place.woken.read_text())
    daemon = int(place.woken.read_text())
    assert await executor.cancel("a1-1", 1) == []
    assert is_running(daemon)
    os.kill(daemon, signal.SIGKILL)
    await until(lambda: not is_running(daemon))


@pytest.mark.usefixtures("hurried")
async def test_an_attempt_goes_on_though_its_shim_can_not_start_a_daemon(place: Place) -> None:
    place.wake.unlink()
    executor = place.open()
    await executor.submit(shell("a1-1", "read -r line; echo $line", stdin=None))
    log = place.folder / "a1-1" / "shim.log"
    await until(lambda: log.exists() and b"can't start a daemon" in log.read_bytes())
    await executor.send("a1-1", b"done\n")
    assert await printed(executor, "a1-1") == b"done\n"
    assert (await executor.outcome("a1-1")).ok
