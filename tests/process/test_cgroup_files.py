"""An attempt's own cgroup: fault 7, where mark, shim and session find nothing any more, and fault 25 in its pids."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.process import (
    attempt_cgroups,
    attempt_processes,
    cgroup_files,
    cgroup_root,
    process_signals,
)
from forkjoin.process.local_executor import LocalExecutor
from forkjoin.process.usage import Meter
from support.attempts import Place, is_running, is_sleep, keeper, lines, pids, shell, shim_of
from support.harness import until

#: Clears its environment and forks twice into a session of its own: only its cgroup still tells whose it is.
ESCAPED = "setsid sh -c 'env -i setsid sleep 1000 & echo $!'; exec sleep 1000"


@pytest.fixture
def base() -> str:
    """Where cgroups can be made by which processes are found."""
    found = next((base.folder for base in cgroup_root.find_cgroup_roots()), "")
    probe = f"{found}/forkjoin-probe-{os.getpid()}"
    try:
        os.mkdir(probe)
    except OSError as error:
        pytest.skip(f"no cgroup can be made here ({error}): mark, shim and session alone find an attempt's processes")
    os.rmdir(probe)
    return found


@pytest.fixture
def no_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", list)


def group_of(place: Place, handle: str) -> Path:
    """The folder of the cgroup that its processes are found by."""
    return Path(attempt_cgroups.find(place.folder / handle)[0])


@pytest.mark.usefixtures("base")
async def test_what_left_its_shim_its_session_and_its_mark_is_ended_by_its_cgroup(
    local: LocalExecutor, place: Place
) -> None:
    """Fault 7: `env -i setsid`, forked twice, outlives a shim that was killed, and is found all the same."""
    await local.submit(shell("a1-1", ESCAPED))
    [pid] = await pids(local, "a1-1", 1)
    await until(lambda: is_sleep(pid))
    group = group_of(place, "a1-1")
    os.kill(shim_of(place, "a1-1"), signal.SIGKILL)
    assert (await local.outcome("a1-1")).kind == "lost"
    assert await place.open().cancel("a1-1", 1) == []
    assert not is_running(pid)
    assert not group.exists()


@pytest.mark.usefixtures("base")
async def test_a_cgroup_goes_with_its_attempt(local: LocalExecutor, place: Place) -> None:
    await local.submit(shell("a1-1", "echo up; read go", stdin=None))
    await lines(local, "a1-1", 1)
    group = group_of(place, "a1-1")
    assert group.is_dir()
    await local.close_input("a1-1")
    await local.outcome("a1-1")
    assert not group.exists()
    assert not group.parent.exists()


@pytest.mark.usefixtures("base")
async def test_agents_get_as_much_of_the_processors_as_if_each_stood_beside_all_others(
    local: LocalExecutor, place: Place
) -> None:
    """Though they are in one cgroup, so that their limits in all can be held."""
    at = [index for index, base in enumerate(cgroup_root.find_cgroup_roots()) if "cpu" in base.controllers]
    if not at:
        pytest.skip("no cgroup that shares out the processors can be made here")
    for handle in ("a1-1", "a2-1"):
        await local.submit(shell(handle, "echo up; read go", stdin=None))
        await lines(local, handle, 1)
    home = Path(attempt_cgroups.find(place.folder / "a1-1")[at[0]]).parent
    [weight] = [file for name in ("cpu.shares", "cpu.weight") if (file := home / name).exists()]
    both = int(weight.read_text())
    await local.close_input("a1-1")
    await local.outcome("a1-1")
    assert int(weight.read_text()) * 2 == both
    assert both in (200, 2048)
    await local.cancel("a2-1", 0)


@pytest.mark.usefixtures("base")
async def test_a_cgroup_that_a_killed_shim_left_empty_is_removed_by_the_next_daemon(
    local: LocalExecutor, place: Place
) -> None:
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    group = group_of(place, "a1-1")
    os.kill(shim_of(place, "a1-1"), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    await local.outcome("a1-1")
    assert group.is_dir()
    await place.open().cancel("a1-1", 1)
    assert not group.exists()


@pytest.mark.usefixtures("base")
async def test_a_daemon_that_was_started_in_an_attempt_s_cgroup_is_not_ended_with_it(
    local: LocalExecutor, place: Place
) -> None:
    """Fault 7: what was never of the attempt is never touched."""
    daemon = f"{keeper(place.folder)} sleep 1000 & echo $!;"
    await local.submit(shell("a1-1", f"{daemon} exec sleep 1000"))
    [kept] = await pids(local, "a1-1", 1)
    await until(lambda: is_sleep(kept))
    assert await local.cancel("a1-1", 1) == []
    assert is_running(kept)
    os.kill(kept, signal.SIGKILL)
    await until(lambda: not is_running(kept))
    await local.forget("a1-1")


def test_a_cgroup_that_takes_nobody_is_removed_and_holds_no_limit(tmp_path: Path) -> None:
    folder = tmp_path / "forkjoin-x" / "forkjoin-a1-1"
    (folder / "cgroup.procs").mkdir(parents=True)
    cgroup_files.join_or_remove([str(folder)])
    assert not folder.exists()
    assert not Meter("", [str(folder)], {f"{folder}/pids.max"}).kernel_limits_processes


def test_a_cgroup_that_is_not_the_attempt_s_own_is_not_taken_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "a1-1"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps({"log_bytes": 1, "cgroups": ["/another's"]}))
    assert "/another's" not in attempt_cgroups.find(folder)


@pytest.fixture
def group(base: str, tmp_path: Path) -> Iterator[Path]:
    """An attempt's cgroup that nobody is in."""
    folder = Path(base) / f"forkjoin-test-{tmp_path.name}-{os.getpid()}"
    folder.mkdir()
    yield folder
    cgroup_files.remove([str(folder)])
    assert not folder.exists()


def test_a_daemon_leaves_the_cgroup_of_the_attempt_that_it_was_started_in(group: Path) -> None:
    script = (
        "import os, sys; from forkjoin.process import cgroup_files, cgroup_root, daemon_cgroup\n"
        "cgroup_files.join(sys.argv[1])\n"
        "print(os.getpid() in cgroup_files.members(sys.argv[1]), cgroup_root.find_cgroup_roots()[0].folder)\n"
        "daemon_cgroup.join_daemon_cgroup(); print(os.getpid() in cgroup_files.members(sys.argv[1]))"
    )
    argv = [sys.executable, "-c", script, str(group)]
    environment = {**os.environ, "PYTHONPATH": str(Path(cgroup_files.__file__).parents[2])}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"True {group.parent}\nFalse\n"


def test_members_of_a_cgroup_within_are_members(group: Path) -> None:
    (group / "within").mkdir()
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        (group / "within" / "cgroup.procs").write_text(str(sleeper.pid))
        assert cgroup_files.members(str(group)) == {sleeper.pid}
        assert [entry.identity.pid for entry in attempt_processes.find_processes("no mark", None, str(group))] == [
            sleeper.pid
        ]
        sleeper.kill()


def test_a_member_s_pid_that_was_another_s_when_the_table_was_read_ends_nobody(
    monkeypatch: pytest.MonkeyPatch, sibling: int
) -> None:
    """Fault 25: a pid out of a cgroup means whoever the table knew by it, and a signal goes to that very process."""

    def members(group: str | None) -> set[int]:
        return {sibling, 0, 2**22}

    monkeypatch.setattr(cgroup_files, "members", members)
    [found] = attempt_processes.find_processes("no mark", None, "a cgroup")
    former = found.identity._replace(start_ticks=found.identity.start_ticks - 1)
    process_signals.send_signal(former, signal.SIGKILL)
    assert is_running(sibling)


@pytest.mark.usefixtures("no_cgroups")
async def test_without_cgroups_an_attempt_runs_and_ends_all_the_same(local: LocalExecutor) -> None:
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    assert await local.cancel("a1-1", 1) == []
    assert not is_running(pid)


async def test_a_cgroup_that_cannot_be_made_hurts_nobody(
    local: LocalExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(
        attempt_cgroups, "find_cgroup_roots", lambda: [cgroup_root.CgroupRoot(str(tmp_path / "file"), 2, ())]
    )
    await local.submit(shell("a1-1", "exit 3"))
    assert (await local.outcome("a1-1")).code == 3
