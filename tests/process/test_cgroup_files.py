"""An attempt's cgroup: processes that mark, shim and session don't find (fault 7), and reused pids (fault 25)."""

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
from forkjoin.process.executor import Executor
from forkjoin.process.usage import Meter
from support.attempts import Place, is_running, is_sleep, lines, pids, shell, shim_of, supervisor_command
from support.harness import until

#: Clears its environment and forks twice into a new session: only the cgroup still identifies its attempt.
ESCAPED = "setsid sh -c 'env -i setsid sleep 1000 & echo $!'; exec sleep 1000"


@pytest.fixture
def base() -> str:
    """Return the folder in which cgroups for finding processes can be created."""
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
    """Return the folder of the cgroup that is used to find an attempt's processes."""
    return Path(attempt_cgroups.find(place.folder / handle)[0])


@pytest.mark.usefixtures("base")
async def test_a_process_without_mark_shim_and_session_is_ended_by_its_cgroup(local: Executor, place: Place) -> None:
    """Fault 7: `env -i setsid` doesn't hide a process whose shim was killed."""
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
async def test_a_cgroup_is_removed_at_the_end_of_its_attempt(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "echo up; read go", stdin=None))
    await lines(local, "a1-1", 1)
    group = group_of(place, "a1-1")
    assert group.is_dir()
    await local.close_input("a1-1")
    await local.outcome("a1-1")
    assert not group.exists()
    assert not group.parent.exists()


@pytest.mark.usefixtures("base")
async def test_the_cpu_weight_of_all_attempts_grows_with_their_number(local: Executor, place: Place) -> None:
    """One cgroup around all attempts must not reduce the share of each attempt."""
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
async def test_an_empty_cgroup_of_a_killed_shim_is_removed_by_the_next_daemon(local: Executor, place: Place) -> None:
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
async def test_a_daemon_started_in_an_attempts_cgroup_is_not_ended_with_the_attempt(
    local: Executor, place: Place
) -> None:
    """Fault 7: a process that does not belong to the attempt is never ended."""
    daemon = f"{supervisor_command(place.folder)} sleep 1000 & echo $!;"
    await local.submit(shell("a1-1", f"{daemon} exec sleep 1000"))
    [survivor] = await pids(local, "a1-1", 1)
    await until(lambda: is_sleep(survivor))
    assert await local.cancel("a1-1", 1) == []
    assert is_running(survivor)
    os.kill(survivor, signal.SIGKILL)
    await until(lambda: not is_running(survivor))
    await local.forget("a1-1")


def test_a_cgroup_that_no_process_can_join_is_removed_and_limits_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "forkjoin-x" / "forkjoin-a1-1"
    (folder / "cgroup.procs").mkdir(parents=True)
    cgroup_files.join_or_remove([str(folder)])
    assert not folder.exists()
    assert not Meter("", [str(folder)], {f"{folder}/pids.max"}).kernel_limits_processes


def test_a_foreign_cgroup_in_the_spec_is_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "a1-1"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps({"log_bytes": 1, "cgroups": ["/another's"]}))
    assert "/another's" not in attempt_cgroups.find(folder)


@pytest.fixture
def group(base: str, tmp_path: Path) -> Iterator[Path]:
    """Yield an attempt's cgroup without processes."""
    folder = Path(base) / f"forkjoin-test-{tmp_path.name}-{os.getpid()}"
    folder.mkdir()
    yield folder
    cgroup_files.remove_empty([str(folder)])
    assert not folder.exists()


def test_a_daemon_leaves_the_cgroup_of_the_attempt_that_started_it(group: Path) -> None:
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


def test_processes_of_a_nested_cgroup_are_members(group: Path) -> None:
    (group / "within").mkdir()
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        (group / "within" / "cgroup.procs").write_text(str(sleeper.pid))
        assert cgroup_files.members(str(group)) == {sleeper.pid}
        assert [entry.identity.pid for entry in attempt_processes.find_processes("no mark", None, str(group))] == [
            sleeper.pid
        ]
        sleeper.kill()


def test_a_reused_pid_in_a_cgroup_is_not_signalled(monkeypatch: pytest.MonkeyPatch, sibling: int) -> None:
    """Fault 25: a signal goes only to the process in the process table."""

    def members(group: str | None) -> set[int]:
        return {sibling, 0, 2**22}

    monkeypatch.setattr(cgroup_files, "members", members)
    [found] = attempt_processes.find_processes("no mark", None, "a cgroup")
    former = found.identity._replace(start_ticks=found.identity.start_ticks - 1)
    process_signals.send_signal(former, signal.SIGKILL)
    assert is_running(sibling)


@pytest.mark.usefixtures("no_cgroups")
async def test_an_attempt_runs_and_ends_without_cgroups(local: Executor) -> None:
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    assert await local.cancel("a1-1", 1) == []
    assert not is_running(pid)


async def test_an_attempt_runs_though_its_cgroup_can_not_be_created(
    local: Executor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(
        attempt_cgroups, "find_cgroup_roots", lambda: [cgroup_root.CgroupRoot(str(tmp_path / "file"), 2, ())]
    )
    await local.submit(shell("a1-1", "exit 3"))
    assert (await local.outcome("a1-1")).code == 3
