"""A full disk under the attempts' folders: no record is torn, and no failure counts as a success."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core.outcome import Outcome
from forkjoin.core.tree_limits import TreeLimits
from forkjoin.process import shim_control, shim_watchdog
from forkjoin.process.executor import Executor
from support.attempts import ended, is_running, lines, pids, printed, run, shell
from support.small_disk import fill, small_disk


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Yield the attempts' folder: a disk of one megabyte."""
    with small_disk(tmp_path / "attempts", 1) as folder:
        yield folder


async def test_a_program_whose_output_was_cut_is_lost(local: Executor) -> None:
    await local.submit(shell("a1-1", "head -c 2000000 /dev/zero; exit 0"))
    outcome = await local.outcome("a1-1")
    assert outcome == Outcome("lost", error="the disk was full when it ended")
    assert len(await printed(local, "a1-1")) < 2_000_000


async def test_a_disk_that_was_full_for_a_while_does_not_change_the_outcome(local: Executor, folder: Path) -> None:
    await local.submit(shell("a1-1", "echo up; read -r line; exit 3", stdin=None))
    await lines(local, "a1-1", 1)
    fill(folder).unlink()
    await local.close_input("a1-1")
    outcome = await local.outcome("a1-1")
    assert (outcome.kind, outcome.code) == ("exited", 3)


async def test_no_part_of_a_message_without_room_arrives(local: Executor, folder: Path) -> None:
    await local.submit(shell("a1-1", "cat", stdin=None))
    await local.send("a1-1", b"first\n")
    await lines(local, "a1-1", 1)
    filler = fill(folder)
    os.truncate(filler, filler.stat().st_size - 10_000)
    with pytest.raises(OSError, match="No space left"):
        await local.send("a1-1", b"second\n" * 10_000)
    filler.unlink()
    await local.send("a1-1", b"third\n")
    await local.close_input("a1-1")
    assert await printed(local, "a1-1") == b"first\nthird\n"


async def test_an_attempt_can_be_ended_on_a_full_disk(local: Executor, folder: Path) -> None:
    await local.submit(shell("a1-1", "setsid sh -c 'sleep 1000 & echo $!'; echo $$; exec sleep 1000"))
    tree = await pids(local, "a1-1", 2)
    fill(folder)
    assert await local.cancel("a1-1", 1) == []
    assert not any(is_running(pid) for pid in tree)
    assert (await local.outcome("a1-1")).kind == "lost"


async def test_an_attempt_without_room_for_its_records_is_not_started(
    local: Executor, folder: Path, tmp_path: Path
) -> None:
    filler = fill(folder)
    spec = shell("a1-1", 'echo started >> "$1"', str(tmp_path / "log"))
    with pytest.raises(OSError, match="No space left"):
        await local.submit(spec)
    assert (await local.outcome("a1-1")).kind == "not_started"
    filler.unlink()
    await run(local, spec)
    assert (await local.outcome("a1-1")).ok
    assert (tmp_path / "log").read_text() == "started\n"


async def test_the_file_over_is_never_half_written(local: Executor, folder: Path) -> None:
    await local.submit(shell("a1-1", "sleep 1000 & echo up; wait"))
    await lines(local, "a1-1", 1)
    watchdog, filler = shim_watchdog.ShimWatchdog(TreeLimits(processes=1)), fill(folder)
    with pytest.raises(OSError, match="No space left"):
        watchdog.check([folder / "a1-1"])
    filler.unlink()
    assert not (folder / "a1-1" / "over").exists()
    watchdog.check([folder / "a1-1"])
    assert str(await ended(local, "a1-1")).startswith("ended by the limit of 1 processes and threads of all agents")


async def test_an_attempt_ended_without_its_shim_has_an_outcome_on_a_full_disk(local: Executor, folder: Path) -> None:
    await local.submit(shell("a1-1", "echo $$; kill -STOP $PPID; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    (folder / "a1-1" / "over").write_text("by a limit")
    fill(folder)
    shim_control.end_without_shim(folder / "a1-1")
    assert not is_running(pid)
    assert await local.outcome("a1-1") == Outcome("lost", error="the disk was full when it ended")
