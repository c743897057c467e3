"""The processes of an attempt: how they are found and ended."""

import ctypes
import os
import signal
import sys
from pathlib import Path

import pytest
from forkjoin.process import attempt_processes, cgroup_files, process_signals, process_table, termination
from forkjoin.process.process_table import Process, ProcessIdentity
from support.attempts import is_running, read_line, read_sleeper, start, supervisor_command, wait_for_sleep
from support.harness import GIVE_UP_S

#: Ends its first thread and goes on in another thread. Prints a line after the first thread has ended.
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
    """Return a mark that no other process has, not even in another test run."""
    return str(tmp_path / "attempts" / "a1-1")


def pids(entries: list[Process]) -> set[int]:
    return {entry.identity.pid for entry in entries}


def entry_of(pid: int) -> Process:
    found = process_table.read_process(pid)
    assert found
    return found


# -- the identity of a process


def test_a_process_keeps_its_identity_until_it_ends() -> None:
    with start("sleep", "1000") as sleeper:
        identity = process_table.identify(sleeper.pid)
        assert identity
        assert process_table.identify(sleeper.pid) == identity
        assert process_table.is_alive(identity)
        sleeper.kill()
        sleeper.wait(GIVE_UP_S)
        assert not process_table.is_alive(identity)


@pytest.mark.parametrize(("boot_id", "later"), [("", 1), ("another", 0)])
def test_a_process_with_a_reused_pid_is_not_signalled(boot_id: str, later: int) -> None:
    with start("sleep", "1000") as sleeper:
        identity = entry_of(sleeper.pid).identity
        former = ProcessIdentity(boot_id or identity.boot_id, identity.pid, identity.start_ticks - later)
        assert not process_table.is_alive(former)
        assert process_signals.open_process(former) is None
        process_signals.send_signal(former, signal.SIGKILL)
        process_signals.send_signal(identity, signal.SIGTERM)
        assert sleeper.wait(GIVE_UP_S) == -signal.SIGTERM


def test_a_zombie_counts_as_ended() -> None:
    with start("true") as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert process_table.read_process(ended.pid) is None


def test_a_process_whose_first_thread_has_ended_is_found_and_killed(mark: str) -> None:
    with start(sys.executable, "-c", HEADLESS, mark=mark) as headless:
        assert read_line(headless) == "headless"
        assert (
            termination.terminate(lambda: [entry for entry in [process_table.read_process(headless.pid)] if entry], 0)
            == []
        )
        assert headless.wait(GIVE_UP_S) == -signal.SIGKILL


@pytest.mark.parametrize("name", ["a b", ") Z 1 1", "(", "\n", "ü"])
def test_unusual_process_names_are_parsed(tmp_path: Path, name: str) -> None:
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


def test_a_stopped_process_is_resumed() -> None:
    with start("sleep", "1000") as sleeper:
        sleeper.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)
        assert process_signals.resume_if_stopped(entry_of(sleeper.pid).identity)
        os.waitid(os.P_PID, sleeper.pid, os.WCONTINUED)
        assert not process_signals.resume_if_stopped(entry_of(sleeper.pid).identity)


def test_a_traced_process_does_not_count_as_stopped() -> None:
    with start("sleep", "1000") as sleeper:
        if ctypes.CDLL(None).ptrace(16, sleeper.pid, None, None):  # PTRACE_ATTACH
            pytest.skip("ptrace is not permitted here")
        os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)
        assert process_table.read_stat(sleeper.pid)[1][0] == b"t"
        assert not process_signals.resume_if_stopped(entry_of(sleeper.pid).identity)


# -- the processes of an attempt


def test_no_process_is_found_for_an_unused_mark(mark: str) -> None:
    assert attempt_processes.find_processes(mark, None) == []


def test_marked_processes_are_found_with_their_descendants(mark: str) -> None:
    with start("sh", "-c", "sleep 1000 & echo $!; env -i sleep 1000 & echo $!; wait", mark=mark) as program:
        children = {read_sleeper(program), read_sleeper(program)}
        assert pids(attempt_processes.find_processes(mark, None)) == {program.pid, *children}


def test_a_process_in_the_middle_of_an_exec_is_found(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    with start("sleep", "1000", mark=mark) as sleeper:
        really, looks = process_table._read_proc, list[str]()

        def read(file: str) -> bytes:
            """Simulate an exec under way: /proc shows no environment and no addresses of it."""
            if file == f"/proc/{sleeper.pid}/environ" and len(looks) < 10:
                looks.append(file)
                return b""
            found = really(file)
            if file == f"/proc/{sleeper.pid}/stat":
                name, _, rest = found.rpartition(b") ")
                found = name + b") " + b" ".join([*rest.split()[:47], b"0", b"0", b"0"])
            return found

        monkeypatch.setattr(process_table, "_read_proc", read)
        assert pids(attempt_processes.find_processes(mark, None)) == {sleeper.pid}
        assert len(looks) == 10


def test_a_process_with_an_empty_environment_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    with start("env", "-i", "sleep", "1000") as cleared:
        wait_for_sleep(cleared.pid)
        waits: list[float] = []
        monkeypatch.setattr("forkjoin.process.process_table._ENVIRONMENT_READS", 5000)
        monkeypatch.setattr("forkjoin.process.process_table.time.sleep", waits.append)
        assert attempt_processes.find_processes(mark, None) == []
        assert len(waits) < 5000


def test_a_mark_with_the_same_prefix_is_another_mark(mark: str) -> None:
    with start("sleep", "1000", mark=f"{mark}1"), start("sleep", "1000", OTHER_FORKJOIN_MARK=mark):
        assert attempt_processes.find_processes(mark, None) == []


def test_a_child_of_the_shim_is_found_without_its_environment(mark: str) -> None:
    with start("sh", "-c", "env -i sleep 1000 & echo $!; wait", FORKJOIN_KEEPER="1") as shim:
        child = read_sleeper(shim)
        assert pids(attempt_processes.find_processes(mark, entry_of(shim.pid).identity)) == {child}


def test_children_of_a_process_that_reused_the_shims_pid_are_not_found(mark: str) -> None:
    with start("sh", "-c", "sleep 1000 & echo $!; wait") as stranger:
        read_sleeper(stranger)
        shim = entry_of(stranger.pid).identity
        assert attempt_processes.find_processes(mark, shim._replace(start_ticks=shim.start_ticks - 1)) == []


def test_an_orphan_without_an_environment_is_found_by_its_session(mark: str) -> None:
    script = "sh -c 'env -i sleep 1000 & echo $!'; echo its parent has ended; exec sleep 1000"
    with start("sh", "-c", script, mark=mark) as program:
        orphan = read_sleeper(program)
        assert read_line(program) == "its parent has ended"
        assert entry_of(orphan).parent != program.pid
        assert pids(attempt_processes.find_processes(mark, None)) == {program.pid, orphan}


def test_a_daemon_below_a_shim_and_its_children_do_not_belong_to_the_attempt(mark: str) -> None:
    daemon = f"{supervisor_command(Path(mark).parent)} sh -c 'env -i sleep 1000 & echo $!; echo $$; wait'"
    with start("sh", "-c", f"{daemon} & wait", FORKJOIN_KEEPER="1") as shim:
        survivors = [read_sleeper(shim), int(read_line(shim))]
        assert attempt_processes.find_processes(mark, entry_of(shim.pid).identity) == []
        os.killpg(survivors[1], signal.SIGKILL)


def test_the_daemon_and_process_1_belong_to_no_attempt(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    def members(group: str | None) -> set[int]:
        return {1, os.getpid()}

    monkeypatch.setattr(cgroup_files, "members", members)
    assert not {1, os.getpid()} & pids(
        attempt_processes.find_processes(mark, entry_of(os.getppid()).identity, "a cgroup")
    )


# -- ending


def test_a_program_that_handles_sigterm_ends_within_its_grace_period(mark: str) -> None:
    with start("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done", mark=mark) as program:
        read_line(program)
        assert termination.terminate(lambda: attempt_processes.find_processes(mark, None), 1000) == []
        assert program.wait(GIVE_UP_S) == 7


def test_a_process_started_for_cleanup_gets_no_sigterm(mark: str) -> None:
    script = "trap 'sh -c \"sleep 0.3; echo in order\"; exit 7' TERM; echo up; while :; do sleep 0.01; done"
    with start("sh", "-c", script, mark=mark) as program:
        read_line(program)
        assert termination.terminate(lambda: attempt_processes.find_processes(mark, None), 1000) == []
        assert read_line(program) == "in order"
        assert program.wait(GIVE_UP_S) == 7


def test_a_program_that_ignores_sigterm_is_killed_after_its_grace_period(mark: str) -> None:
    with start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done", mark=mark) as program:
        read_line(program)
        assert termination.terminate(lambda: attempt_processes.find_processes(mark, None), 0.1) == []
        assert program.wait(GIVE_UP_S) == -signal.SIGKILL


def test_a_stopped_program_can_handle_sigterm(mark: str) -> None:
    with start("sh", "-c", "trap 'exit 7' TERM; kill -STOP $$; while :; do sleep 0.01; done", mark=mark) as program:
        os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
        assert termination.terminate(lambda: attempt_processes.find_processes(mark, None), 1000) == []
        assert program.wait(GIVE_UP_S) == 7


def test_a_process_started_during_a_termination_is_ended(mark: str) -> None:
    script = "trap 'sleep 1000 & echo $!; exit' TERM; echo up; while :; do sleep 0.01; done"
    with start("sh", "-c", script, mark=mark) as program:
        read_line(program)
        assert termination.terminate(lambda: attempt_processes.find_processes(mark, None), 1000) == []
        assert not is_running(int(read_line(program)))


def test_a_process_missing_in_one_reading_of_the_process_table_is_found(
    mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = process_table.list_processes
    readings = iter([list[Process], really])
    monkeypatch.setattr(attempt_processes, "list_processes", lambda: next(readings)())
    with start("sleep", "1000", mark=mark) as program:
        assert pids(attempt_processes.find_processes(mark, None)) == {program.pid}


def test_a_killer_below_the_shim_does_not_kill_itself(mark: str) -> None:
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


def test_processes_that_can_not_be_ended_are_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "KILL_WAIT_S", 0.05)
    immortal = Process(ProcessIdentity("another boot", 1, 1), 0, 0, "immortal")
    assert termination.terminate(lambda: [immortal], 0) == [immortal]


def test_terminating_no_processes_returns_at_once() -> None:
    assert termination.terminate(list[Process], 1000) == []
