"""Which processes are ours, and how they are ended."""

import ctypes
import os
import signal
import sys
from pathlib import Path

import pytest
from forkjoin.process import attempt_processes, cgroup_files, process_signals, process_table, termination
from forkjoin.process.process_table import Process, ProcessIdentity
from support.attempts import is_running, keeper, read_line, read_sleeper, start, wait_for_sleep
from support.harness import GIVE_UP_S

#: Ends its first thread and goes on in another; prints a line once it has.
HEADLESS = """
import ctypes, threading, time
def go_on():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z": time.sleep(0.01)
    print("headless", flush=True)
    time.sleep(1000)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(60, 0)
"""


@pytest.fixture
def mark(tmp_path: Path) -> str:
    """A mark that nobody else has, be it in another run of these tests."""
    return str(tmp_path / "attempts" / "a1-1")


def pids(entries: list[Process]) -> set[int]:
    return {entry.identity.pid for entry in entries}


def entry_of(pid: int) -> Process:
    found = process_table.read_process(pid)
    assert found
    return found


# -- who is who


def test_a_process_is_the_same_for_as_long_as_it_lives() -> None:
    with start("sleep", "1000") as sleeper:
        identity = process_table.identify(sleeper.pid)
        assert identity
        assert process_table.identify(sleeper.pid) == identity
        assert process_table.is_alive(identity)
        sleeper.kill()
        sleeper.wait(GIVE_UP_S)
        assert not process_table.is_alive(identity)


@pytest.mark.parametrize(("boot_id", "later"), [("", 1), ("another", 0)])
def test_a_pid_that_came_to_another_process_is_not_the_same(boot_id: str, later: int) -> None:
    with start("sleep", "1000") as sleeper:
        identity = entry_of(sleeper.pid).identity
        former = ProcessIdentity(boot_id or identity.boot_id, identity.pid, identity.start_ticks - later)
        assert not process_table.is_alive(former)
        assert process_signals.open_pidfd(former) is None
        process_signals.send_signal(former, signal.SIGKILL)
        process_signals.send_signal(identity, signal.SIGTERM)
        assert sleeper.wait(GIVE_UP_S) == -signal.SIGTERM


def test_a_zombie_has_ended() -> None:
    with start("true") as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert process_table.read_process(ended.pid) is None


def test_a_process_whose_first_thread_has_ended_goes_on(mark: str) -> None:
    with start(sys.executable, "-c", HEADLESS, mark=mark) as headless:
        assert read_line(headless) == "headless"
        assert (
            termination.terminate(lambda: [entry for entry in [process_table.read_process(headless.pid)] if entry], 0)
            == []
        )
        assert headless.wait(GIVE_UP_S) == -signal.SIGKILL


@pytest.mark.parametrize("name", ["a b", ") Z 1 1", "(", "\n", "ü"])
def test_any_name_is_read_right(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.symlink_to("/bin/sleep")
    with start(str(program), "1000") as sleeper:
        found = entry_of(sleeper.pid)
        assert found.name == name
        assert (found.parent, found.session) == (os.getpid(), sleeper.pid)
        assert str(found) == f"{name} (pid {sleeper.pid})"


def test_the_table_has_every_process() -> None:
    with start("sleep", "1000") as sleeper:
        assert {1, os.getpid(), sleeper.pid} <= pids(process_table.list_processes())


def test_what_was_stopped_goes_on_and_is_told_of() -> None:
    with start("sleep", "1000") as sleeper:
        sleeper.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)
        assert process_signals.resume_if_stopped(entry_of(sleeper.pid).identity)
        os.waitid(os.P_PID, sleeper.pid, os.WCONTINUED)
        assert not process_signals.resume_if_stopped(entry_of(sleeper.pid).identity)


def test_what_a_debugger_looks_at_was_not_stopped() -> None:
    with start("sleep", "1000") as sleeper:
        if ctypes.CDLL(None).ptrace(16, sleeper.pid, None, None):  # PTRACE_ATTACH
            pytest.skip("nobody may be looked at here")
        os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)
        assert process_table.read_stat(sleeper.pid)[1][0] == b"t"
        assert not process_signals.resume_if_stopped(entry_of(sleeper.pid).identity)


# -- whose is it


def test_a_mark_that_nobody_has_marks_nobody(mark: str) -> None:
    assert attempt_processes.find_processes(mark, None) == []


def test_what_is_marked_is_found_with_its_descendants(mark: str) -> None:
    with start("sh", "-c", "sleep 1000 & echo $!; env -i sleep 1000 & echo $!; wait", mark=mark) as program:
        children = {read_sleeper(program), read_sleeper(program)}
        assert pids(attempt_processes.find_processes(mark, None)) == {program.pid, *children}


def test_what_is_becoming_another_program_is_found(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    with start("sleep", "1000", mark=mark) as sleeper:
        really, looks = process_table._read, list[str]()

        def read(file: str) -> bytes:
            """As the kernel tells of an exec that is under way (mm_struct): no environment, and no place for one."""
            if file == f"/proc/{sleeper.pid}/environ" and len(looks) < 10:
                looks.append(file)
                return b""
            found = really(file)
            if file == f"/proc/{sleeper.pid}/stat":
                name, _, rest = found.rpartition(b") ")
                found = name + b") " + b" ".join([*rest.split()[:47], b"0", b"0", b"0"])
            return found

        monkeypatch.setattr(process_table, "_read", read)
        assert pids(attempt_processes.find_processes(mark, None)) == {sleeper.pid}
        assert len(looks) == 10


def test_what_cleared_its_environment_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    with start("env", "-i", "sleep", "1000") as cleared:
        wait_for_sleep(cleared.pid)
        waits: list[float] = []
        monkeypatch.setattr("forkjoin.process.process_table._ENVIRONMENT_READS", 5000)
        monkeypatch.setattr("forkjoin.process.process_table.time.sleep", waits.append)
        assert attempt_processes.find_processes(mark, None) == []
        assert len(waits) < 5000


def test_a_mark_that_only_begins_alike_is_another(mark: str) -> None:
    with start("sleep", "1000", mark=f"{mark}1"), start("sleep", "1000", OTHER_FORKJOIN_MARK=mark):
        assert attempt_processes.find_processes(mark, None) == []


def test_what_cleared_its_environment_is_found_below_the_shim_which_is_not_found(mark: str) -> None:
    with start("sh", "-c", "env -i sleep 1000 & echo $!; wait", FORKJOIN_KEEPER="1") as shim:
        child = read_sleeper(shim)
        assert pids(attempt_processes.find_processes(mark, entry_of(shim.pid).identity)) == {child}


def test_what_is_below_another_that_came_to_the_shim_s_pid_is_not_found(mark: str) -> None:
    with start("sh", "-c", "sleep 1000 & echo $!; wait") as stranger:
        read_sleeper(stranger)
        shim = entry_of(stranger.pid).identity
        assert attempt_processes.find_processes(mark, shim._replace(start_ticks=shim.start_ticks - 1)) == []


def test_what_cleared_its_environment_and_lost_its_parent_is_found_by_its_session(mark: str) -> None:
    script = "sh -c 'env -i sleep 1000 & echo $!'; echo its parent has ended; exec sleep 1000"
    with start("sh", "-c", script, mark=mark) as program:
        orphan = read_sleeper(program)
        assert read_line(program) == "its parent has ended"
        assert entry_of(orphan).parent != program.pid
        assert pids(attempt_processes.find_processes(mark, None)) == {program.pid, orphan}


def test_a_daemon_below_a_shim_is_not_of_its_tree_nor_is_what_is_below_that(mark: str) -> None:
    daemon = f"{keeper(Path(mark).parent)} sh -c 'env -i sleep 1000 & echo $!; echo $$; wait'"
    with start("sh", "-c", f"{daemon} & wait", FORKJOIN_KEEPER="1") as shim:
        kept = [read_sleeper(shim), int(read_line(shim))]
        assert attempt_processes.find_processes(mark, entry_of(shim.pid).identity) == []
        os.killpg(kept[1], signal.SIGKILL)


def test_neither_we_nor_the_first_process_are_of_any_tree(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    def members(group: str | None) -> set[int]:
        return {1, os.getpid()}

    monkeypatch.setattr(cgroup_files, "members", members)
    assert not {1, os.getpid()} & pids(
        attempt_processes.find_processes(mark, entry_of(os.getppid()).identity, "a cgroup")
    )


# -- ending


def test_what_obeys_is_ended_within_its_grace(mark: str) -> None:
    with start("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done", mark=mark) as program:
        read_line(program)
        assert termination.terminate(lambda: attempt_processes.find_processes(mark, None), 1000) == []
        assert program.wait(GIVE_UP_S) == 7


def test_what_is_started_to_put_things_in_order_is_let_be(mark: str) -> None:
    script = "trap 'sh -c \"sleep 0.3; echo in order\"; exit 7' TERM; echo up; while :; do sleep 0.01; done"
    with start("sh", "-c", script, mark=mark) as program:
        read_line(program)
        assert termination.terminate(lambda: attempt_processes.find_processes(mark, None), 1000) == []
        assert read_line(program) == "in order"
        assert program.wait(GIVE_UP_S) == 7


def test_what_does_not_obey_is_killed_after_its_grace(mark: str) -> None:
    with start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done", mark=mark) as program:
        read_line(program)
        assert termination.terminate(lambda: attempt_processes.find_processes(mark, None), 0.1) == []
        assert program.wait(GIVE_UP_S) == -signal.SIGKILL


def test_what_is_stopped_may_obey(mark: str) -> None:
    with start("sh", "-c", "trap 'exit 7' TERM; kill -STOP $$; while :; do sleep 0.01; done", mark=mark) as program:
        os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
        assert termination.terminate(lambda: attempt_processes.find_processes(mark, None), 1000) == []
        assert program.wait(GIVE_UP_S) == 7


def test_what_is_started_while_others_end_is_ended_too(mark: str) -> None:
    script = "trap 'sleep 1000 & echo $!; exit' TERM; echo up; while :; do sleep 0.01; done"
    with start("sh", "-c", script, mark=mark) as program:
        read_line(program)
        assert termination.terminate(lambda: attempt_processes.find_processes(mark, None), 1000) == []
        assert not is_running(int(read_line(program)))


def test_a_process_that_one_reading_of_the_process_table_missed_is_found(
    mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = process_table.list_processes
    readings = iter([list[Process], really])
    monkeypatch.setattr(attempt_processes, "list_processes", lambda: next(readings)())
    with start("sleep", "1000", mark=mark) as program:
        assert pids(attempt_processes.find_processes(mark, None)) == {program.pid}


def test_who_kills_what_is_below_a_shim_may_be_below_it(mark: str) -> None:
    script = (
        f"import os, sys; sys.path.append({str(Path(process_table.__file__).parents[2])!r})\n"
        "import time; from forkjoin.process import termination\n"
        "if os.fork() == 0: time.sleep(10); os.kill(os.getppid(), 9)\n"
        f"print(termination.kill_children(os.getppid(), {mark!r}))"
    )
    with start("sh", "-c", f'sleep 1000 & echo $!; {sys.executable} -S -E -c "$0"; echo over; wait', script) as shim:
        sleeper = read_sleeper(shim)
        assert read_line(shim) == "[]"
        assert not is_running(sleeper)


def test_what_can_not_be_ended_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "KILL_WAIT_S", 0.05)
    immortal = Process(ProcessIdentity("another boot", 1, 1), 0, 0, "immortal")
    assert termination.terminate(lambda: [immortal], 0) == [immortal]


def test_where_nothing_is_nothing_is_ended() -> None:
    assert termination.terminate(list[Process], 1000) == []
