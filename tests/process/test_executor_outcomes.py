"""The contract of executors: attempts start once, have an outcome, and can be cancelled."""

import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
import pytest
from forkjoin.core.outcome import Outcome
from forkjoin.process.executor import Executor
from support.attempts import ENVIRONMENT, HOSTILE, is_running, lines, pids, printed, program, run, shell
from support.harness import GIVE_UP_S, until

# -- starting once


async def test_a_handle_that_is_submitted_twice_starts_one_program(executor: Executor, tmp_path: Path) -> None:
    spec = shell("a1-1", 'echo started >> "$1"; read go', str(tmp_path / "log"), stdin=None)
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(executor.submit, spec)
    await until((tmp_path / "log").exists)
    await executor.submit(spec)
    await executor.close_input("a1-1")
    await executor.outcome("a1-1")
    assert (tmp_path / "log").read_text() == "started\n"


@pytest.mark.parametrize("end", ["exit 0", "exit 3", "kill -9 $$"])
async def test_a_handle_that_has_ended_is_not_started_again(executor: Executor, tmp_path: Path, end: str) -> None:
    spec = shell("a1-1", f'echo started >> "$1"; {end}', str(tmp_path / "log"))
    await run(executor, spec)
    first = await executor.outcome("a1-1")
    await run(executor, spec)
    assert await executor.outcome("a1-1") == first
    assert (tmp_path / "log").read_text() == "started\n"


async def test_an_attempt_that_could_not_be_started_is_not_started_again(executor: Executor, tmp_path: Path) -> None:
    script = tmp_path / "script"
    await run(executor, program("a1-1", str(script)))
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    await run(executor, program("a1-1", str(script)))
    assert (await executor.outcome("a1-1")).kind == "not_started"


# -- outcomes


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
async def test_the_outcome_has_the_exit_code(executor: Executor, code: int) -> None:
    await executor.submit(shell("a1-1", f"exit {code}"))
    outcome = await executor.outcome("a1-1")
    assert (outcome.kind, outcome.code, outcome.survivors, outcome.ok) == ("exited", code, (), code == 0)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_the_outcome_has_the_signal_that_ended_the_program(executor: Executor, signum: signal.Signals) -> None:
    await executor.submit(shell("a1-1", f"kill -{signum} $$"))
    outcome = await executor.outcome("a1-1")
    assert (outcome.kind, outcome.code) == ("signalled", signum)


@pytest.mark.parametrize(
    ("argv", "cwd", "error"),
    [
        (["no-such-program"], "/", "the program no-such-program: No such file or directory"),
        (["/no/such/program"], "/", "the program /no/such/program: No such file or directory"),
        (["/etc/passwd"], "/", "the program /etc/passwd: Permission denied"),
        (["true"], "/no/such/folder", "its folder /no/such/folder: No such file or directory"),
        (["true"], "/etc/passwd", "its folder /etc/passwd: Not a directory"),
        (["true", "x" * 3_000_000], "/", "the program true: Argument list too long"),
        (["true", "\0"], "/", "the program true: embedded null byte"),
        (["true", "\ud800"], "/", "the program true: 'utf-8' codec can't encode character"),
    ],
)
async def test_the_outcome_says_why_a_program_could_not_be_started(
    executor: Executor, argv: list[str], cwd: str, error: str
) -> None:
    await executor.submit(program("a1-1", *argv, cwd=cwd))
    outcome = await executor.outcome("a1-1")
    assert outcome.kind == "not_started"
    assert outcome.error.startswith(error)


async def test_the_outcome_of_an_unknown_handle_is_not_started(executor: Executor) -> None:
    assert (await executor.outcome("a1-1")).kind == "not_started"
    assert await printed(executor, "a1-1") == b""
    assert await executor.read_output("a1-1", 0, 10) == (b"", 0, 0)


async def test_a_time_limit_ends_the_process_tree(executor: Executor) -> None:
    tree = "setsid sh -c 'sleep 1000 & echo $!'; echo $$; exec sleep 1000"
    output = await run(executor, shell("a1-1", tree, timeout_s=0.3))
    assert (await executor.outcome("a1-1")).kind == "timed_out"
    assert not any(is_running(int(pid)) for pid in output.split())


async def test_a_program_within_its_time_limit_has_not_timed_out(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "exit 4", timeout_s=60))
    outcome = await executor.outcome("a1-1")
    assert (outcome.kind, outcome.code) == ("exited", 4)


@pytest.mark.parametrize(
    "child",
    [
        "sleep 1000 & echo $!",
        "setsid sh -c 'sleep 1000 & echo $!'",
        "trap '' TERM; setsid sh -c 'env -i sleep 1000 & echo $!'",
    ],
)
async def test_a_child_that_holds_stdout_is_ended_with_its_program(executor: Executor, child: str) -> None:
    await executor.submit(shell("a1-1", f"{child}; exit 3"))
    with anyio.fail_after(GIVE_UP_S):
        outcome = await executor.outcome("a1-1")
    assert (outcome.kind, outcome.code, outcome.survivors) == ("exited", 3, ())
    [pid] = await pids(executor, "a1-1", 1)
    assert not is_running(pid)


# -- cancelling


async def test_cancelling_ends_a_process_tree_that_ignores_signals(executor: Executor) -> None:
    await executor.submit(shell("a1-1", HOSTILE))
    tree = await pids(executor, "a1-1", 3)
    assert all(is_running(pid) for pid in tree)
    assert await executor.cancel("a1-1", 0.2) == []
    assert not any(is_running(pid) for pid in tree)
    assert (await executor.outcome("a1-1")).kind == "signalled"


async def test_cancelling_lets_a_program_handle_sigterm(executor: Executor) -> None:
    script = "trap 'echo in order; exit 7' TERM; echo up; while :; do sleep 0.01; done"
    await executor.submit(shell("a1-1", script))
    await lines(executor, "a1-1", 1)
    assert await executor.cancel("a1-1", GIVE_UP_S) == []
    assert await printed(executor, "a1-1") == b"up\nin order\n"
    assert (await executor.outcome("a1-1")).code == 7


async def test_cancelling_again_is_no_error(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "echo up; sleep 1000"))
    await lines(executor, "a1-1", 1)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(executor.cancel, "a1-1", 1)
    outcome = await executor.outcome("a1-1")
    assert await executor.cancel("a1-1", 1) == []
    assert await executor.outcome("a1-1") == outcome


async def test_cancelling_an_ended_attempt_changes_nothing(executor: Executor) -> None:
    await run(executor, shell("a1-1", "echo printed; exit 3"))
    outcome = await executor.outcome("a1-1")
    assert await executor.cancel("a1-1", 1) == []
    assert await executor.outcome("a1-1") == outcome
    assert await printed(executor, "a1-1") == b"printed\n"


async def test_an_attempt_that_was_cancelled_before_is_not_started(executor: Executor, tmp_path: Path) -> None:
    assert await executor.cancel("a1-1", 1) == []
    await run(executor, shell("a1-1", 'echo started > "$1"', str(tmp_path / "log")))
    assert await executor.outcome("a1-1") == Outcome("not_started", error="it was stopped before it started")
    assert not (tmp_path / "log").exists()


async def test_a_cancel_during_a_submit_leaves_no_process(executor: Executor, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    script = 'echo $$ >> "$1"; exec sleep 1000'

    async def cancel(handle: str, delay: float) -> None:
        await anyio.sleep(delay)
        await executor.cancel(handle, 1)

    async with anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(executor.submit, shell(f"a{number}-1", script, str(log)))
            tasks.start_soon(cancel, f"a{number}-1", number * 0.01)
    for number in range(12):
        assert (await executor.outcome(f"a{number}-1")).kind in ("not_started", "signalled")
    assert not any(is_running(int(pid)) for pid in log.read_text().split())


def start_sleep(environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True)


async def test_a_process_started_elsewhere_with_the_mark_is_ended_by_a_cancel(executor: Executor) -> None:
    environment = {**ENVIRONMENT, **await executor.mark_variables("a1-person")}
    assert await executor.list_handles() == ["a1-person"]
    with start_sleep(environment) as other:
        assert await executor.cancel("a1-person", 0) == []
        assert other.wait(GIVE_UP_S) == -signal.SIGKILL
    await executor.forget("a1-person")
    assert await executor.list_handles() == []


async def test_a_cancel_does_not_end_processes_of_other_attempts(executor: Executor, sibling: int) -> None:
    others = ("a1-2", "a1-1-verify", "a2-1")
    for handle in ("a1-1", *others):
        await executor.submit(shell(handle, "echo $$; exec sleep 1000"))
    running = [sibling, *[pid for handle in others for pid in await pids(executor, handle, 1)]]
    await pids(executor, "a1-1", 1)
    await executor.cancel("a1-1", 1)
    assert all(is_running(pid) for pid in running)


async def test_late_output_of_an_older_attempt_does_not_reach_a_newer_attempt(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "read -r line; echo late; exit 3", stdin=None))
    await run(executor, shell("a1-2", "echo newer"))
    outcome = await executor.outcome("a1-2")
    await executor.send("a1-1", b"go on\n")
    assert await printed(executor, "a1-1") == b"late\n"
    assert (await executor.outcome("a1-1")).code == 3
    assert await printed(executor, "a1-2") == b"newer\n"
    assert await executor.outcome("a1-2") == outcome


async def test_another_daemon_can_end_an_attempt(executor: Executor, reopen: Callable[[], Executor]) -> None:
    await executor.submit(shell("a1-1", HOSTILE))
    tree = await pids(executor, "a1-1", 3)
    assert await reopen().cancel("a1-1", 0) == []
    assert not any(is_running(pid) for pid in tree)
