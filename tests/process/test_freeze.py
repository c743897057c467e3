"""Freezing: an attempt's process tree and time limits stop, and continue after thawing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import processes_of
from forkjoin.process.executor import Executor
from support.attempts import Place, change_shims, ended, lines, pids, printed, run, shell
from support.harness import until

#: Prints three pids: a child, a grandchild in another session, and the shell itself.
TREE = "sleep 1000 & echo $!; setsid sh -c 'sleep 1000 & echo $!'; echo $$; read line; echo $line"


def states(found: Sequence[int]) -> set[str]:
    """Return the states of these processes as letters (proc_pid_stat(5))."""
    return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in found}


async def test_a_whole_process_tree_is_frozen_and_thawed(executor: Executor, reopen: Callable[[], Executor]) -> None:
    await executor.submit(shell("a1-1", TREE, stdin=None))
    tree = await pids(executor, "a1-1", 3)
    for one in (executor, reopen()):  # the next daemon may freeze again
        await one.freeze("a1-1")
        await until(lambda: states(tree) == {"T"})
    await executor.send("a1-1", b"heard\n")
    await reopen().thaw("a1-1")
    await executor.thaw("a1-1")
    assert (await lines(executor, "a1-1", 4))[3] == "heard"
    assert (await executor.outcome("a1-1")).ok


async def test_an_attempt_that_was_just_submitted_can_be_frozen(executor: Executor, place: Place) -> None:
    await executor.submit(shell("a1-1", "read line; echo $line", stdin=None))
    await executor.freeze("a1-1")
    marked = f"FORKJOIN_MARK={place.folder / 'a1-1'}".encode()
    programs = [pid for pid in processes_of(place.folder) if marked in Path(f"/proc/{pid}/environ").read_bytes()]
    assert programs
    await until(lambda: states(programs) == {"T"})
    await executor.send("a1-1", b"heard\n")
    await executor.thaw("a1-1")
    assert await lines(executor, "a1-1", 1) == ["heard"]


async def test_freezing_an_ended_or_unknown_attempt_does_nothing(executor: Executor) -> None:
    assert await run(executor, shell("a1-1", "echo done")) == b"done\n"
    for handle in ("a1-1", "a2-1"):
        await executor.freeze(handle)
        await executor.thaw(handle)


async def test_a_frozen_attempt_is_ended_by_a_total_limit(executor: Executor, place: Place) -> None:
    await executor.submit(shell("a1-1", "echo up; exec sleep 1000"))
    await lines(executor, "a1-1", 1)
    await executor.freeze("a1-1")
    (place.folder / "a1-1" / "over").write_text("by the limit of all agents together")
    assert str(await ended(executor, "a1-1")) == "ended by the limit of all agents together"


async def test_a_frozen_program_can_handle_sigterm(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done"))
    await lines(executor, "a1-1", 1)
    await executor.freeze("a1-1")
    assert await executor.cancel("a1-1", 1000) == []
    assert await printed(executor, "a1-1") == b"up\nbye\n"


@pytest.mark.parametrize("limit", ["timeout_s", "silence_s"])
async def test_time_limits_stop_while_an_attempt_is_frozen(
    local: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Let two hours pass while the attempt is frozen.

    The shim creates the file `held` after it has seen the jump of the clock.
    """
    change_shims(
        monkeypatch,
        tmp_path,
        "import os, time\n"
        "really, hold, passed = time.monotonic, shim.Shim.stop_clocks, [0]\n"
        "time.monotonic = lambda: really() + passed[0]\n"
        "def note(self):\n"
        f"    jumps = not passed[0] and os.path.exists({str(tmp_path / 'jump')!r})\n"
        "    passed[0] = passed[0] or 7200 * jumps\n"
        "    hold(self)\n"
        f"    if jumps: open({str(tmp_path / 'held')!r}, 'w').close()\n"
        f"    if self.frozen: open({str(tmp_path / 'frozen')!r}, 'w').close()\n"
        "shim.Shim.stop_clocks = note; shim._LOG_CHECK_S = 0.02",
    )
    an_hour: dict[str, Any] = {limit: 3600.0}
    await local.submit(replace(shell("a1-1", "echo up; read line; echo $line", stdin=None), **an_hour))
    await lines(local, "a1-1", 1)
    await local.freeze("a1-1")
    await until((tmp_path / "frozen").exists)
    (tmp_path / "jump").touch()
    await until((tmp_path / "held").exists)
    await local.thaw("a1-1")
    await local.send("a1-1", b"on time\n")
    assert (await printed(local, "a1-1")).endswith(b"on time\n")
    outcome = await local.outcome("a1-1")
    assert outcome.ok
    assert outcome.duration_s < 7000


async def test_the_silence_limit_is_paused_until_the_attempt_is_thawed(
    executor: Executor, reopen: Callable[[], Executor]
) -> None:
    await executor.submit(replace(shell("a1-1", "echo up; exec sleep 1000"), silence_s=0.5))
    await executor.pause_silence_limit("a1-1")
    await reopen().pause_silence_limit("a1-1")
    with anyio.move_on_after(1.5) as patience:
        await executor.outcome("a1-1")
    assert patience.cancelled_caught
    await executor.thaw("a1-1")
    assert str(await ended(executor, "a1-1")) == "ended after 0.5 s of silence"
    await executor.pause_silence_limit("a2-1")
