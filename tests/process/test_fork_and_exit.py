"""A process that forks and ends without pause: it has another pid by the time that the process table was read."""

import os
import signal
from pathlib import Path

import anyio
import pytest
from forkjoin.core import file_lock
from forkjoin.process import attempt_cgroups, cgroup_root, process_table, shim_control
from forkjoin.process.local_executor import LocalExecutor
from support.attempts import Place, change_shims, is_running, pids, shell, shim_of
from support.harness import until

#: Hops for 20 seconds at most: each life is a fork and a session of its own, and ignores all that can be ignored.
HOPPER = """
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

#: Starts $3 hoppers, with no environment but $4. The file $1 is locked as long as one of them lives,
#: and has a byte of each.
START = """
exec 9> "$1"; flock 9
for n in $(seq "$3"); do env -i $4 python3 -S -E -c "$2" > /dev/null 2>&1 & done
exec 9>&-
read go
"""

#: Shims that can't kill anything as long as a file is there.
SPARING = """
import os
shim.termination.KILL_WAIT_S = shim._KILL_RETRY_S = shim._LEFTOVER_GRACE_S = 0.05
shim.termination.send_signal = lambda *_: None
kill = shim.termination._kill_unless_supervisor
shim.termination._kill_unless_supervisor = lambda *arguments: os.path.exists({file!r}) or kill(*arguments)
"""


@pytest.fixture(params=["no cgroup", "cgroup v1", "cgroup v2"])
def tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds the processes of attempts together, next to their shims."""
    found = cgroup_root.find_cgroup_roots()
    if (unified := cgroup_root.cgroups_of("self").get("")) and os.access(unified, os.W_OK):
        found.append(cgroup_root.CgroupRoot(unified, 2, ()))  # next to a version 1 with all controllers
    bases = [base for base in found if request.param == f"cgroup v{base.version}"][:1]
    if not bases and request.param != "no cgroup":
        pytest.skip(f"no {request.param} can be made here")
    monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", lambda: bases)


async def start(local: LocalExecutor, alive: Path, count: int = 1, variable: str = "") -> None:
    """Start an attempt with hoppers, and return once they hop."""
    await local.submit(shell("a1-1", START, str(alive), HOPPER, str(count), variable, stdin=None))
    await until(lambda: alive.exists() and alive.stat().st_size == count)


@pytest.mark.usefixtures("tier")
@pytest.mark.parametrize("count", [1, 5])
async def test_hoppers_end_with_their_program(local: LocalExecutor, tmp_path: Path, count: int) -> None:
    alive = tmp_path / "alive"
    await start(local, alive, count)
    await local.close_input("a1-1")
    outcome = await local.outcome("a1-1")
    assert (outcome.kind, outcome.left) == ("exited", ())
    assert not file_lock.is_held(alive)


@pytest.mark.usefixtures("tier")
async def test_a_hopper_that_calls_itself_a_daemon_ends_with_its_program(local: LocalExecutor, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    await start(local, alive, variable="FORKJOIN_KEEPER=1")
    await local.close_input("a1-1")
    assert (await local.outcome("a1-1")).left == ()
    assert not file_lock.is_held(alive)


@pytest.mark.usefixtures("tier")
async def test_a_hopper_is_ended_by_a_cancel(local: LocalExecutor, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    await start(local, alive)
    assert await local.cancel("a1-1", 0.1) == []
    assert not file_lock.is_held(alive)


def zombies(parent: int) -> set[int]:
    return {pid for pid in process_table.list_children(parent) if not process_table.identify(pid)}


async def test_what_a_hopper_leaves_behind_takes_no_pids_while_others_put_things_in_order(
    local: LocalExecutor, place: Place, tmp_path: Path
) -> None:
    alive, told, done = (tmp_path / name for name in ("alive", "told", "done"))
    script = f"trap 'touch {told}' TERM\n{START}\nwhile [ ! -e {done} ]; do sleep 0.01; done"
    await local.submit(shell("a1-1", script, str(alive), HOPPER, "1", ""))
    await until(lambda: alive.exists() and alive.stat().st_size == 1)
    shim = shim_of(place, "a1-1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local.cancel, "a1-1", 1000)
        await until(told.exists)
        await until(lambda: bool(zombies(shim)))
        ended = zombies(shim)
        await until(lambda: not ended & zombies(shim))
        assert file_lock.is_held(alive)
        done.touch()
    assert not file_lock.is_held(alive)


@pytest.mark.usefixtures("tier")
@pytest.mark.parametrize("tier", ["cgroup v1", "cgroup v2"], indirect=True)
async def test_a_hopper_whose_shim_was_killed_is_ended_by_its_cgroup(
    local: LocalExecutor, place: Place, tmp_path: Path
) -> None:
    alive = tmp_path / "alive"
    await start(local, alive)
    group = Path(attempt_cgroups.find(place.folder / "a1-1")[0])
    os.kill(shim_of(place, "a1-1"), signal.SIGKILL)
    assert (await local.outcome("a1-1")).kind == "lost"
    assert await place.open().cancel("a1-1", 0.1) == []
    assert not file_lock.is_held(alive)
    assert not group.exists()


def ask_in_vain(folder: Path, grace: float) -> bool:
    return True


@pytest.mark.usefixtures("tier")
async def test_a_hopper_whose_shim_does_not_answer_is_ended_before_that(
    local: LocalExecutor, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = tmp_path / "alive"
    await start(local, alive)
    monkeypatch.setattr(shim_control, "WAIT_S", 0)
    monkeypatch.setattr(shim_control, "ask_to_end", ask_in_vain)
    os.kill(shim_of(place, "a1-1"), signal.SIGSTOP)
    assert await local.cancel("a1-1", 0) == []
    assert not file_lock.is_held(alive)


@pytest.fixture
def spared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As long as this file is there, shims can't end what they have started."""
    file = tmp_path / "spared"
    file.touch()
    change_shims(monkeypatch, tmp_path, SPARING.format(file=str(file)))
    monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", list)
    return file


@pytest.mark.usefixtures("spared")
async def test_what_could_not_be_ended_is_still_its_agents_until_a_cancel_ends_it(
    local: LocalExecutor, place: Place
) -> None:
    await local.submit(shell("a1-1", "setsid sh -c 'env -i setsid sleep 1000 & echo $!'"))
    [pid] = await pids(local, "a1-1", 1)
    outcome = await local.outcome("a1-1")
    assert (outcome.kind, outcome.left) == ("exited", (f"sleep (pid {pid})",))
    assert await local.find_owner(pid) == "a1-1"
    shim = process_table.identify(shim_of(place, "a1-1"))
    assert await local.cancel("a1-1", 0) == []
    assert not is_running(pid)
    assert shim and not process_table.is_alive(shim)


async def test_a_hopper_that_could_not_be_ended_is_told_of_and_ended_by_its_shim_as_soon_as_that_can(
    local: LocalExecutor, place: Place, tmp_path: Path, spared: Path
) -> None:
    alive = tmp_path / "alive"
    await start(local, alive)
    shim = process_table.identify(shim_of(place, "a1-1"))
    await local.close_input("a1-1")
    assert (await local.outcome("a1-1")).left
    assert file_lock.is_held(alive)
    spared.unlink()
    await until(lambda: not file_lock.is_held(alive))
    await until(lambda: not (shim and process_table.is_alive(shim)))
