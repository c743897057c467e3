"""Limits hold although a program stops its shim, and in all although one does not heed the word to end."""

import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from forkjoin.core.tree_limits import TreeLimits
from forkjoin.process import attempt_cgroups, shim_control, shim_watchdog
from forkjoin.process.local_executor import LocalExecutor
from support.attempts import Place, change_shims, ended, is_held, is_running, limited, lines, pids, shell, shim_of
from support.harness import until

TAKES_MEMORY = "python3 -S -c 'taken = bytearray(300_000_000); import time; time.sleep(1000)'"
STOPPED = "ended after its supervisor, which enforces its limits, was stopped again and again"


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture
def deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shims that keep no limit."""
    change_shims(
        monkeypatch, tmp_path, "def find(*_): return ''\nshim.resource_limits.LimitMonitor.find_exceeded = find"
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cgroup, and a guard without much patience."""
    monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", list)
    monkeypatch.setattr(shim_watchdog, "CHECK_EVERY_S", 0.05)
    monkeypatch.setattr(shim_control, "WAIT_S", 0.3)


@pytest.fixture
async def guarded(local: LocalExecutor, impatient: None) -> AsyncIterator[LocalExecutor]:
    """An executor that is watched."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local.enforce_limits)
        yield local
        tasks.cancel_scope.cancel()


async def test_a_program_that_stops_its_shim_is_held_to_its_limits_all_the_same(guarded: LocalExecutor) -> None:
    await guarded.submit(limited(shell("a1-1", f"kill -STOP $PPID; {TAKES_MEMORY}"), memory=100_000_000))
    assert str(await ended(guarded, "a1-1")).startswith("ended by its memory limit of 100 MB")


async def test_a_program_that_stops_its_shim_time_and_again_is_ended_with_all_of_its_tree(
    guarded: LocalExecutor,
) -> None:
    await guarded.submit(shell("a1-1", "(while :; do kill -STOP $PPID; done) & echo $!; echo $$; exec sleep 1000"))
    tree = await pids(guarded, "a1-1", 2)
    outcome = await ended(guarded, "a1-1")
    assert (outcome.kind, str(outcome)) == ("limited", STOPPED)
    assert not any(is_running(pid) for pid in tree)


@pytest.mark.parametrize(("within", "is_told"), [(60.0, True), (0.0, False)])
async def test_what_was_stopped_long_ago_is_not_held_against_a_program(
    local: LocalExecutor, place: Place, monkeypatch: pytest.MonkeyPatch, within: float, is_told: bool
) -> None:
    monkeypatch.setattr(shim_watchdog, "_STOPS_WINDOW_S", within)
    await local.submit(shell("a1-1", "exec sleep 1000"))
    await until((place.folder / "a1-1" / "started.json").exists)
    watchman = shim_watchdog.ShimWatchdog(TreeLimits())
    for _ in range(3):
        os.kill(shim_of(place, "a1-1"), signal.SIGSTOP)
        await until(lambda: is_stopped(shim_of(place, "a1-1")))
        watchman.check([place.folder / "a1-1"])
    assert (place.folder / "a1-1" / "over").exists() == is_told


@pytest.mark.usefixtures("impatient")
async def test_a_guard_goes_on_that_no_thread_could_be_started_for(
    local: LocalExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as tasks:
        former = threading.stack_size(1 << 46)  # more than there is address space for
        try:
            tasks.start_soon(local.enforce_limits)
            await until(lambda: "can't start new thread" in caplog.text)
        finally:
            threading.stack_size(former)
        await local.submit(shell("a1-1", "while :; do kill -STOP $PPID; done"))
        assert str(await ended(local, "a1-1")) == STOPPED
        tasks.cancel_scope.cancel()


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize(
    ("word", "told"),
    [
        (b"by the limit of all agents together", "ended by the limit of all agents together"),
        (b"by \xff", "ended by \ufffd"),
        (b"", "ended by a limit of all agents together"),
    ],
    ids=["whole", "damaged", "empty"],
)
async def test_what_does_not_heed_that_it_is_to_end_is_ended_without_its_shim(
    guarded: LocalExecutor, place: Place, word: bytes, told: str
) -> None:
    await guarded.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(guarded, "a1-1", 1)
    (place.folder / "a1-1" / "over").write_bytes(word)
    outcome = await ended(guarded, "a1-1")
    assert (outcome.kind, str(outcome)) == ("limited", told)
    assert not is_running(pid)
    assert not is_held(place, "a1-1")


@pytest.mark.usefixtures("deaf")
async def test_one_that_does_not_heed_keeps_the_others_no_less_to_the_limits_of_all(
    local: LocalExecutor, place: Place
) -> None:
    folders = {handle: place.folder / handle for handle in ("a1-1", "a2-1")}
    for handle in folders:
        await local.submit(shell(handle, "sleep 1000 & sleep 1000 & sleep 1000 & echo up; wait"))
        await lines(local, handle, 1)
    (folders["a1-1"] / "over").touch()
    shim_watchdog.ShimWatchdog(TreeLimits(processes=3)).check(folders.values())
    assert "by the limit of 3 processes and threads of all agents together" in (folders["a2-1"] / "over").read_text()
