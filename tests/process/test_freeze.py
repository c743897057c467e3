"""Freezing: an attempt's whole tree stops in midst, its limits of time with it, and goes on as if nothing had been."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import processes_of
from forkjoin.process.executor import Executor
from forkjoin.process.local_executor import LocalExecutor
from support.attempts import Place, change_shims, ended, lines, pids, printed, run, shell
from support.harness import until

#: A child, one in a session of its own, forked twice, and itself: three pids.
TREE = "sleep 1000 & echo $!; setsid sh -c 'sleep 1000 & echo $!'; echo $$; read line; echo $line"


def states(found: Sequence[int]) -> set[str]:
    """How these processes stand, each a letter (proc_pid_stat(5))."""
    return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in found}


async def test_a_whole_tree_stops_and_goes_on(executor: Executor, reopen: Callable[[], Executor]) -> None:
    await executor.submit(shell("a1-1", TREE, stdin=None))
    tree = await pids(executor, "a1-1", 3)
    for one in (executor, reopen()):  # a daemon that takes over may do it once more
        await one.freeze("a1-1")
        await until(lambda: states(tree) == {"T"})
    await executor.send("a1-1", b"heard\n")
    await reopen().thaw("a1-1")
    await executor.thaw("a1-1")
    assert (await lines(executor, "a1-1", 4))[3] == "heard"
    assert (await executor.outcome("a1-1")).ok


async def test_what_was_only_just_submitted_is_frozen_once_it_is_there(executor: Executor, place: Place) -> None:
    await executor.submit(shell("a1-1", "read line; echo $line", stdin=None))
    await executor.freeze("a1-1")
    marked = f"FORKJOIN_MARK={place.folder / 'a1-1'}".encode()
    programs = [pid for pid in processes_of(place.folder) if marked in Path(f"/proc/{pid}/environ").read_bytes()]
    assert programs
    await until(lambda: states(programs) == {"T"})
    await executor.send("a1-1", b"heard\n")
    await executor.thaw("a1-1")
    assert await lines(executor, "a1-1", 1) == ["heard"]


async def test_what_has_ended_or_never_was_is_let_be(executor: Executor) -> None:
    assert await run(executor, shell("a1-1", "echo done")) == b"done\n"
    for handle in ("a1-1", "a2-1"):
        await executor.freeze(handle)
        await executor.thaw(handle)


async def test_what_is_frozen_is_ended_where_all_together_take_too_much(executor: Executor, place: Place) -> None:
    await executor.submit(shell("a1-1", "echo up; exec sleep 1000"))
    await lines(executor, "a1-1", 1)
    await executor.freeze("a1-1")
    (place.folder / "a1-1" / "over").write_text("by the limit of all agents together")
    assert str(await ended(executor, "a1-1")) == "ended by the limit of all agents together"


async def test_what_is_frozen_may_obey_when_it_is_to_end(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done"))
    await lines(executor, "a1-1", 1)
    await executor.freeze("a1-1")
    assert await executor.cancel("a1-1", 1000) == []
    assert await printed(executor, "a1-1") == b"up\nbye\n"


@pytest.mark.parametrize("limit", ["timeout_s", "silence_s"])
async def test_no_time_passes_for_what_is_frozen(
    local: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Two hours pass while it is frozen, of which its shim leaves `held` once it has seen that."""
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


async def test_what_waits_for_somebody_is_silent_for_as_long_as_it_takes_until_it_is_thawed(
    executor: Executor, reopen: Callable[[], Executor]
) -> None:
    await executor.submit(replace(shell("a1-1", "echo up; exec sleep 1000"), silence_s=1.0))
    await executor.pause_silence_limit("a1-1")
    await reopen().pause_silence_limit("a1-1")
    with anyio.move_on_after(3) as patience:
        await executor.outcome("a1-1")
    assert patience.cancelled_caught
    await executor.thaw("a1-1")
    assert str(await ended(executor, "a1-1")) == "ended after 1 s of silence"
    await executor.pause_silence_limit("a2-1")
