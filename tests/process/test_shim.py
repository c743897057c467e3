"""The shim: its records, the failures it survives, and the state after it was killed."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
import psutil
import pytest
from conftest import processes_of
from forkjoin.core import file_lock
from forkjoin.process import attempt_cgroups, attempt_processes, process_table, shim
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.process.executor import Executor
from support.attempts import (
    Place,
    change_shims,
    is_held,
    is_running,
    is_sleep,
    lines,
    pids,
    printed,
    run,
    shell,
    shim_of,
    supervisor_command,
)
from support.harness import GIVE_UP_S, until


async def run_shim(local: Executor, place: Place, handle: str, spec: AttemptSpec, environment: bytes) -> None:
    """Run a shim with the spec of another attempt, and these bytes as its stdin."""
    await run(local, spec)
    folder = place.folder / handle
    folder.mkdir(exist_ok=True)
    (folder / "spec.json").write_bytes((place.folder / spec.handle / "spec.json").read_bytes())
    held = file_lock.take(folder / "lock")
    assert held is not None
    argv = [sys.executable, "-S", "-E", "-I", shim.__file__, str(folder), str(held)]
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(argv, input=environment, pass_fds=[held], capture_output=True, check=True)
    )
    os.close(held)
    assert done.stderr == b""


# -- killed or unresponsive


async def test_an_attempt_whose_shim_was_killed_is_lost(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    os.kill(shim_of(place, "a1-1"), signal.SIGKILL)
    outcome = await local.outcome("a1-1")
    assert outcome.kind == "lost"
    assert is_running(pid)
    assert await printed(local, "a1-1") == f"{pid}\n".encode()


async def test_processes_left_by_a_killed_shim_are_ended_by_their_mark(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "setsid sh -c 'sleep 1000 & echo $!'; echo $$; exec sleep 1000"))
    tree = await pids(local, "a1-1", 2)
    os.kill(shim_of(place, "a1-1"), signal.SIGKILL)
    await local.outcome("a1-1")
    assert await local.cancel("a1-1", 1) == []
    assert not any(is_running(pid) for pid in tree)
    assert (await local.outcome("a1-1")).kind == "lost"


async def test_a_lost_attempt_is_not_started_again(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    await pids(local, "a1-1", 1)
    os.kill(shim_of(place, "a1-1"), signal.SIGKILL)
    await local.outcome("a1-1")
    await local.submit(shell("a1-1", "echo again"))
    assert not is_held(place, "a1-1")
    assert (await local.outcome("a1-1")).kind == "lost"


async def test_an_attempt_goes_on_when_its_daemon_is_killed(local: Executor, place: Place) -> None:
    script = (
        "import anyio, sys, time; from pathlib import Path\n"
        "from forkjoin.process.attempt_spec import AttemptSpec; from forkjoin.process.executor import Executor\n"
        "executor = Executor(Path(sys.argv[1]), Path(sys.argv[2]), ['/bin/true'])\n"
        "work = 'echo one; read -r line; echo $line; exit 3'\n"
        "anyio.run(executor.submit, AttemptSpec('a1-1', ('sh', '-c', work), '/', {}, b'', input_complete=False))\n"
        "print('submitted', flush=True); time.sleep(1000)"
    )
    argv = [sys.executable, "-c", script, str(place.folder), str(place.daemon_lock)]
    async with await anyio.open_process(argv, start_new_session=True) as daemon:
        assert daemon.stdout
        assert await daemon.stdout.receive()
        os.killpg(daemon.pid, signal.SIGKILL)
    await lines(local, "a1-1", 1)
    await local.send("a1-1", b"two\n")
    assert await printed(local, "a1-1") == b"one\ntwo\n"
    assert (await local.outcome("a1-1")).code == 3


async def test_a_shim_starts_no_program_if_the_daemon_dies_while_sending_the_environment(
    local: Executor, place: Place
) -> None:
    for cut in (b"", b"PATH=/bin", b"PATH=/bin\0", b"PATH=/bin\0EMPTY=\0"):
        await run_shim(local, place, "a1-1", shell("a2-1", "echo never"), cut)
        assert (await local.outcome("a1-1")).kind == "not_started"
    assert await run(local, shell("a1-1", "echo now")) == b"now\n"


async def test_sigterm_to_a_shim_ends_the_process_tree_with_an_outcome(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "setsid sh -c 'sleep 1000 & echo $!'; echo $$; exec sleep 1000"))
    tree = await pids(local, "a1-1", 2)
    os.kill(shim_of(place, "a1-1"), signal.SIGTERM)
    outcome = await local.outcome("a1-1")
    assert (outcome.kind, outcome.code) == ("signalled", signal.SIGTERM)
    assert not any(is_running(pid) for pid in tree)


async def test_a_stopped_shim_is_resumed_to_end_the_process_tree(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    os.kill(shim_of(place, "a1-1"), signal.SIGSTOP)
    assert await local.cancel("a1-1", 1) == []
    assert not is_running(pid)
    assert (await local.outcome("a1-1")).kind == "signalled"


@pytest.fixture
def unresponsive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make cancels not reach the shims, and not wait for them."""

    def do_not_reach(folder: Path, grace: float) -> bool:
        return True

    monkeypatch.setattr("forkjoin.process.shim_control.WAIT_S", 0)
    monkeypatch.setattr("forkjoin.process.shim_control.ask_to_end", do_not_reach)


@pytest.mark.usefixtures("unresponsive")
async def test_an_unresponsive_shim_is_ended_after_its_process_tree(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    os.kill(shim_of(place, "a1-1"), signal.SIGSTOP)
    assert await local.cancel("a1-1", 0) == []
    assert not is_running(pid)
    assert not is_held(place, "a1-1")


@pytest.mark.usefixtures("unresponsive")
async def test_a_cancel_waits_for_the_end_of_a_shim_without_a_record(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    await pids(local, "a1-1", 1)
    (place.folder / "a1-1" / "started.json").write_bytes(b"")
    assert await local.cancel("a1-1", 0) == []
    assert not is_held(place, "a1-1")
    assert (await local.outcome("a1-1")).kind == "signalled"


@pytest.mark.usefixtures("hurried")
async def test_a_cancel_uses_the_given_grace_period(local: Executor) -> None:
    script = "trap 'sleep 0.3; echo in order; exit 7' TERM; echo up; while :; do sleep 0.01; done"
    await local.submit(shell("a1-1", script))
    await lines(local, "a1-1", 1)
    await local.cancel("a1-1", GIVE_UP_S)
    assert await printed(local, "a1-1") == b"up\nin order\n"


async def test_a_cancelled_shim_starts_no_program(local: Executor, place: Place) -> None:
    """The cancel comes after the submit has checked for a cancel."""
    (place.folder / "a1-1").mkdir()
    (place.folder / "a1-1" / "cancel").touch()
    log = place.folder / "log"
    spec = shell("a2-1", 'echo started >> "$1"', str(log))
    await run_shim(local, place, "a1-1", spec, b"PATH=/bin:/usr/bin\0\0")
    assert (await local.outcome("a1-1")).error == "it was stopped before it started"
    assert log.read_text() == "started\n"  # by a2-1


async def test_output_right_before_the_end_is_read(
    local: Executor, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"

    def read_before_the_end(file: Path, start: int) -> bytes:
        """Read the file. Let the program print more and end before the read returns."""
        found = file.read_bytes()[start:]
        go.touch()
        while is_held(place, "a1-1"):
            time.sleep(0.005)
        return found

    monkeypatch.setattr("forkjoin.process.attempt_files.read_chunk", read_before_the_end)
    await local.submit(shell("a1-1", 'while [ ! -e "$1" ]; do sleep 0.01; done; echo late', str(go)))
    await until((place.folder / "a1-1" / "output").exists)
    assert await printed(local, "a1-1") == b"late\n"


@pytest.mark.parametrize(
    ("where", "number", "about", "passing"),
    [
        ("pipe2", errno.EMFILE, "", True),
        ("fork", errno.EAGAIN, "", True),
        ("setsid", errno.ENOSPC, "its output: ", True),
        ("execvpe", errno.ENOMEM, "the program sh: ", True),
        ("execvpe", errno.ENOENT, "the program sh: ", False),
    ],
)
async def test_the_outcome_says_why_no_program_started_and_whether_the_error_may_pass(
    local: Executor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    number: int,
    about: str,
    passing: bool,
) -> None:
    change_shims(monkeypatch, tmp_path, f"def refuse(*_): raise OSError({number}, 'not now')\nshim.os.{where} = refuse")
    await local.submit(shell("a1-1", "true"))
    outcome = await local.outcome("a1-1")
    assert (outcome.kind, outcome.error, outcome.is_transient) == ("not_started", f"{about}not now", passing)


async def test_input_that_is_withdrawn_from_a_full_disk_is_not_read(
    local: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "copied"
    note = f"copy(*words); open({str(copied)!r}, 'a').write('!')"
    change_shims(
        monkeypatch,
        tmp_path,
        f"copy = shim.StdinFeed.copy\ndef note(*words): {note}\nshim.StdinFeed.copy = note; shim._LOG_CHECK_S = 0.02",
    )
    await local.submit(shell("a1-1", "cat", stdin=None))
    await local.send("a1-1", b"first\n")
    await lines(local, "a1-1", 1)

    def refuse(_: int) -> None:
        before = copied.stat().st_size
        while copied.stat().st_size < before + 2:
            time.sleep(0.005)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        with pytest.raises(OSError, match="No space left"):
            await local.send("a1-1", b"second, which is long\n")
    await local.send("a1-1", b"third\n")
    await local.close_input("a1-1")
    assert await printed(local, "a1-1") == b"first\nthird\n"


# -- which processes belong to the attempt


async def test_a_process_that_escaped_from_a_killed_shim_does_not_hold_the_lock(
    local: Executor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", list)
    await local.submit(shell("a1-1", "setsid sh -c 'env -i setsid sleep 1000 & echo $!'; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    await until(lambda: is_sleep(pid))
    os.kill(shim_of(place, "a1-1"), signal.SIGKILL)
    assert (await local.outcome("a1-1")).kind == "lost"
    await local.cancel("a1-1", 1)
    assert not is_held(place, "a1-1")
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)


async def test_a_daemon_started_by_an_agents_relay_outlives_the_agent(local: Executor, place: Place) -> None:
    daemon = f"{supervisor_command(place.folder)} sh -c 'sleep 1000 & echo $!; echo $$; wait' &"
    await local.submit(shell("a1-1", f"{daemon} exec sleep 1000"))
    survivors = await pids(local, "a1-1", 2)
    assert await local.cancel("a1-1", 1) == []
    assert all(is_running(pid) for pid in survivors)
    for pid in survivors:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not any(is_running(pid) for pid in survivors))
    await local.forget("a1-1")


@pytest.mark.parametrize("locks", ["", "flock -F {}/other", "flock -F -s {}/lock"])
async def test_a_process_that_pretends_to_be_a_daemon_is_ended_with_its_attempt(
    local: Executor, place: Place, locks: str
) -> None:
    (other := place.folder / "a2-1").mkdir()
    impostor = f"env -i FORKJOIN_KEEPER=1 setsid {locks.format(other)} sh -c 'setsid sleep 1000 & echo $!; wait' &"
    await local.submit(shell("a1-1", f"{impostor} read go", stdin=None))
    [pid] = await pids(local, "a1-1", 1)
    await local.close_input("a1-1")
    assert (await local.outcome("a1-1")).survivors == ()
    assert not is_running(pid)


async def test_an_attempt_does_not_belong_to_the_attempt_that_started_its_daemon(
    local: Executor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(attempt_processes.MARK, str(place.folder / "a9-1"))
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    await local.cancel("a9-1", 0)
    assert is_running(pid)
    assert is_running(shim_of(place, "a1-1"))


@pytest.mark.parametrize("ticks", [-1, 1])
async def test_a_process_that_reused_a_shims_pid_is_not_signalled(
    local: Executor, place: Place, sibling: int, ticks: int
) -> None:
    folder = place.folder / "a1-1"
    folder.mkdir()
    found = process_table.identify(sibling)
    assert found
    (folder / "started.json").write_text(json.dumps(found._replace(start_ticks=found.start_ticks + ticks)))
    assert (await local.outcome("a1-1")).kind == "lost"
    assert await local.cancel("a1-1", 0) == []
    assert is_running(sibling)


async def test_an_attempt_is_lost_after_a_reboot(local: Executor, place: Place, sibling: int) -> None:
    folder = place.folder / "a1-1"
    folder.mkdir()
    found = process_table.identify(sibling)
    assert found
    (folder / "started.json").write_text(json.dumps(found._replace(boot_id="another")))
    assert (await local.outcome("a1-1")).kind == "lost"
    assert await local.cancel("a1-1", 0) == []
    assert is_running(sibling)


async def test_a_shim_reaps_orphans_while_its_program_runs(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "for n in 1 2 3; do sh -c 'true &'; done; echo $$; read go", stdin=None))
    [pid] = await pids(local, "a1-1", 1)
    own = psutil.Process(shim_of(place, "a1-1"))
    await until(lambda: [child.pid for child in own.children()] == [pid])


async def test_an_attempt_without_its_folder_can_be_cancelled(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    await local.forget("a1-1")
    assert (await local.outcome("a1-1")).kind == "not_started"
    assert await local.cancel("a1-1", 1) == []
    assert not is_running(pid)
    await until(lambda: not processes_of(place.folder))


# -- memory


async def test_a_shim_takes_little_memory(
    local: Executor, place: Place, record_property: Callable[[str, object], None]
) -> None:
    await local.submit(shell("a1-1", "echo up; read go", stdin=None))
    await lines(local, "a1-1", 1)
    memory = psutil.Process(shim_of(place, "a1-1")).memory_full_info()
    record_property("shim_rss", memory.rss)
    record_property("shim_pss", memory.pss)
    assert memory.pss < 16 * 1024 * 1024
