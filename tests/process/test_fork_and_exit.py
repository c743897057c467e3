"""Processes that fork and exit without pause: each has ended before the process table is read completely."""

import os
import signal
from pathlib import Path

import anyio
import pytest
from forkjoin.core import file_lock
from forkjoin.process import attempt_cgroups, cgroup_root, process_table, shim_control
from forkjoin.process.executor import Executor
from support.attempts import Place, change_shims, is_running, pids, shell, shim_of
from support.harness import until

#: Forks and exits for 20 seconds at most. Each process has its own session, and ignores all signals that it can.
FORK_AND_EXIT = """
import os, signal, time
for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(signum, signal.SIG_IGN)
os.write(9, b"x")
end = time.monotonic() + 20
while time.monotonic() < end:
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
    except OSError:
        pass
"""

#: Starts $3 forking processes, with no environment but $4. The file $1 is locked as long as one of them lives,
#: and has one byte of each.
START = """
exec 9> "$1"; flock 9
for n in $(seq "$3"); do env -i $4 python3 -S -E -c "$2" > /dev/null 2>&1 & done
exec 9>&-
read go
"""

#: Makes shims unable to kill processes as long as a file exists.
SPARING = """
import os
shim.termination.KILL_WAIT_S = shim._KILL_RETRY_S = shim._LEFTOVER_GRACE_S = 0.05
shim.termination.send_signal = lambda *_: None
kill = shim.termination._kill_unless_supervisor
shim.termination._kill_unless_supervisor = lambda *arguments: os.path.exists({file!r}) or kill(*arguments)
"""


@pytest.fixture(params=["no cgroup", "cgroup v1", "cgroup v2"])
def tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use this kind of cgroup, or none, to find the processes of attempts."""
    found = cgroup_root.find_cgroup_roots()
    if (unified := cgroup_root.cgroups_of("self").get("")) and os.access(unified, os.W_OK):
        found.append(cgroup_root.CgroupRoot(unified, 2, ()))  # mounted in addition to a version 1 with all controllers
    bases = [base for base in found if request.param == f"cgroup v{base.version}"][:1]
    if not bases and request.param != "no cgroup":
        pytest.skip(f"no {request.param} can be made here")
    monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", lambda: bases)


async def start(local: Executor, alive: Path, count: int = 1, variable: str = "") -> None:
    """Start an attempt with forking processes, and wait until they fork."""
    await local.submit(shell("a1-1", START, str(alive), FORK_AND_EXIT, str(count), variable, stdin=None))
    await until(lambda: alive.exists() and alive.stat().st_size == count)


@pytest.mark.usefixtures("tier")
@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.soak)])
async def test_forking_processes_are_ended_with_their_program(local: Executor, tmp_path: Path, count: int) -> None:
    alive = tmp_path / "alive"
    await start(local, alive, count)
    await local.close_input("a1-1")
    outcome = await local.outcome("a1-1")
    assert (outcome.kind, outcome.survivors) == ("exited", ())
    assert not file_lock.is_held(alive)


@pytest.mark.usefixtures("tier")
async def test_a_forking_process_that_pretends_to_be_a_daemon_is_ended(local: Executor, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    await start(local, alive, variable="FORKJOIN_KEEPER=1")
    await local.close_input("a1-1")
    assert (await local.outcome("a1-1")).survivors == ()
    assert not file_lock.is_held(alive)


@pytest.mark.usefixtures("tier")
async def test_a_cancel_ends_a_forking_process(local: Executor, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    await start(local, alive)
    assert await local.cancel("a1-1", 0.1) == []
    assert not file_lock.is_held(alive)


def zombies(parent: int) -> set[int]:
    return {pid for pid in process_table.list_children(parent) if not process_table.identify(pid)}


async def test_zombies_of_a_forking_process_are_reaped_during_the_grace_period(
    local: Executor, place: Place, tmp_path: Path
) -> None:
    alive, terminated, done = (tmp_path / name for name in ("alive", "terminated", "done"))
    script = f"trap 'touch {terminated}' TERM\n{START}\nwhile [ ! -e {done} ]; do sleep 0.01; done"
    await local.submit(shell("a1-1", script, str(alive), FORK_AND_EXIT, "1", ""))
    await until(lambda: alive.exists() and alive.stat().st_size == 1)
    shim = shim_of(place, "a1-1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local.cancel, "a1-1", 1000)
        await until(terminated.exists)
        await until(lambda: bool(zombies(shim)))
        ended = zombies(shim)
        await until(lambda: not ended & zombies(shim))
        assert file_lock.is_held(alive)
        done.touch()
    assert not file_lock.is_held(alive)


@pytest.mark.usefixtures("tier")
@pytest.mark.parametrize("tier", ["cgroup v1", "cgroup v2"], indirect=True)
async def test_a_forking_process_whose_shim_was_killed_is_ended_by_its_cgroup(
    local: Executor, place: Place, tmp_path: Path
) -> None:
    alive = tmp_path / "alive"
    await start(local, alive)
    group = Path(attempt_cgroups.find(place.folder / "a1-1")[0])
    os.kill(shim_of(place, "a1-1"), signal.SIGKILL)
    assert (await local.outcome("a1-1")).kind == "lost"
    assert await place.open().cancel("a1-1", 0.1) == []
    assert not file_lock.is_held(alive)
    assert not group.exists()


def ask_without_effect(folder: Path, grace: float) -> bool:
    return True


@pytest.mark.usefixtures("tier")
async def test_a_forking_process_whose_shim_is_stopped_is_ended(
    local: Executor, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = tmp_path / "alive"
    await start(local, alive)
    monkeypatch.setattr(shim_control, "WAIT_S", 0)
    monkeypatch.setattr(shim_control, "ask_to_end", ask_without_effect)
    os.kill(shim_of(place, "a1-1"), signal.SIGSTOP)
    assert await local.cancel("a1-1", 0) == []
    assert not file_lock.is_held(alive)


@pytest.fixture
def spared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file. Shims can't kill processes as long as the file exists."""
    file = tmp_path / "spared"
    file.touch()
    change_shims(monkeypatch, tmp_path, SPARING.format(file=str(file)))
    monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", list)
    return file


@pytest.mark.usefixtures("spared")
async def test_a_process_that_could_not_be_ended_still_belongs_to_its_attempt(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "setsid sh -c 'env -i setsid sleep 1000 & echo $!'"))
    [pid] = await pids(local, "a1-1", 1)
    outcome = await local.outcome("a1-1")
    assert (outcome.kind, outcome.survivors) == ("exited", (f"sleep (pid {pid})",))
    assert await local.find_owner(pid) == "a1-1"
    shim = process_table.identify(shim_of(place, "a1-1"))
    assert await local.cancel("a1-1", 0) == []
    assert not is_running(pid)
    assert shim and not process_table.is_alive(shim)


async def test_a_shim_ends_a_surviving_process_as_soon_as_it_can(
    local: Executor, place: Place, tmp_path: Path, spared: Path
) -> None:
    alive = tmp_path / "alive"
    await start(local, alive)
    shim = process_table.identify(shim_of(place, "a1-1"))
    await local.close_input("a1-1")
    assert (await local.outcome("a1-1")).survivors
    assert file_lock.is_held(alive)
    spared.unlink()
    await until(lambda: not file_lock.is_held(alive))
    await until(lambda: not (shim and process_table.is_alive(shim)))
