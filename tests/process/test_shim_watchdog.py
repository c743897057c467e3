"""The watchdog: it enforces limits if a shim is stopped, or does not react to the file `over`."""

import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from forkjoin.core.tree_limits import TreeLimits
from forkjoin.process import attempt_cgroups, shim_control, shim_watchdog
from forkjoin.process.executor import Executor
from support.attempts import Place, change_shims, ended, is_held, is_running, limited, lines, pids, shell, shim_of
from support.harness import until

TAKES_MEMORY = "python3 -S -c 'taken = bytearray(300_000_000); import time; time.sleep(1000)'"
STOPPED = "ended after its supervisor, which enforces its limits, was stopped again and again"


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture
def inert_shims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make shims enforce no limits."""
    change_shims(
        monkeypatch, tmp_path, "def find(*_): return ''\nshim.resource_limits.LimitMonitor.find_exceeded = find"
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use no cgroups, and shorten the intervals of the watchdog."""
    monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", list)
    monkeypatch.setattr(shim_watchdog, "CHECK_EVERY_S", 0.05)
    monkeypatch.setattr(shim_control, "WAIT_S", 0.3)


@pytest.fixture
async def watched(local: Executor, impatient: None) -> AsyncIterator[Executor]:
    """Yield an executor whose watchdog runs."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local.enforce_limits)
        yield local
        tasks.cancel_scope.cancel()


async def test_a_program_that_stops_its_shim_is_ended_by_its_limit(watched: Executor) -> None:
    await watched.submit(limited(shell("a1-1", f"kill -STOP $PPID; {TAKES_MEMORY}"), memory=100_000_000))
    assert str(await ended(watched, "a1-1")).startswith("ended by its memory limit of 100 MB")


async def test_a_program_that_stops_its_shim_repeatedly_is_ended(
    watched: Executor,
) -> None:
    await watched.submit(shell("a1-1", "(while :; do kill -STOP $PPID; done) & echo $!; echo $$; exec sleep 1000"))
    tree = await pids(watched, "a1-1", 2)
    outcome = await ended(watched, "a1-1")
    assert (outcome.kind, str(outcome)) == ("limited", STOPPED)
    assert not any(is_running(pid) for pid in tree)


@pytest.mark.parametrize(("within", "is_over"), [(60.0, True), (0.0, False)])
async def test_only_recent_stops_of_a_shim_end_its_attempt(
    local: Executor, place: Place, monkeypatch: pytest.MonkeyPatch, within: float, is_over: bool
) -> None:
    monkeypatch.setattr(shim_watchdog, "_STOPS_WINDOW_S", within)
    await local.submit(shell("a1-1", "exec sleep 1000"))
    await until((place.folder / "a1-1" / "started.json").exists)
    watchdog = shim_watchdog.ShimWatchdog(TreeLimits())
    for _ in range(3):
        os.kill(shim_of(place, "a1-1"), signal.SIGSTOP)
        await until(lambda: is_stopped(shim_of(place, "a1-1")))
        watchdog.check([place.folder / "a1-1"])
    assert (place.folder / "a1-1" / "over").exists() == is_over


@pytest.mark.usefixtures("impatient")
async def test_the_watchdog_goes_on_though_no_thread_could_be_started(
    local: Executor, caplog: pytest.LogCaptureFixture
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


@pytest.mark.usefixtures("inert_shims")
@pytest.mark.parametrize(
    ("content", "outcome_text"),
    [
        (b"by the limit of all agents together", "ended by the limit of all agents together"),
        (b"by \xff", "ended by \ufffd"),
    ],
    ids=["whole", "damaged"],
)
async def test_an_attempt_whose_shim_ignores_the_file_over_is_ended_without_it(
    watched: Executor, place: Place, content: bytes, outcome_text: str
) -> None:
    await watched.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(watched, "a1-1", 1)
    (place.folder / "a1-1" / "over").write_bytes(content)
    outcome = await ended(watched, "a1-1")
    assert (outcome.kind, str(outcome)) == ("limited", outcome_text)
    assert not is_running(pid)
    assert not is_held(place, "a1-1")


@pytest.mark.usefixtures("inert_shims")
async def test_total_limits_apply_to_others_though_one_attempt_does_not_end(local: Executor, place: Place) -> None:
    folders = {handle: place.folder / handle for handle in ("a1-1", "a2-1")}
    for handle in folders:
        await local.submit(shell(handle, "sleep 1000 & sleep 1000 & sleep 1000 & echo up; wait"))
        await lines(local, handle, 1)
    (folders["a1-1"] / "over").touch()
    shim_watchdog.ShimWatchdog(TreeLimits(processes=3)).check(folders.values())
    assert "by the limit of 3 processes and threads of all agents together" in (folders["a2-1"] / "over").read_text()
