"""What any executor promises. One that runs attempts elsewhere joins by a parameter of the fixture `reopen`."""

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
import psutil
import pytest
from attempts import ENVIRONMENT, is_running, lines, pids, printed, program, python, run, shell
from forkjoin.attempt.executor import Executor
from forkjoin.model import Outcome
from harness import GIVE_UP_S, until

#: Reads stdin to its end, and prints what came.
DIGEST = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"

#: A tree that ignores what asks it to end: a grandchild, forked twice, in a session of its own; a child that is
#: stopped; itself. Prints their three pids.
HOSTILE = """
trap '' HUP INT TERM
setsid sh -c 'sleep 1000 & echo $!'
sleep 1000 & kill -STOP $!; echo $!
echo $$
while :; do sleep 1; done
"""


# -- output


async def test_what_a_program_prints_is_its_output_byte_for_byte(executor: Executor) -> None:
    script = "import os; os.write(1, bytes(range(256)) * 4096); os.write(1, b'no line end')"
    assert await run(executor, python("a1-1", script)) == bytes(range(256)) * 4096 + b"no line end"


async def test_output_is_read_on_from_any_byte_while_the_program_runs(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "echo one; read go; echo two", stdin=None))
    await lines(executor, "a1-1", 1)
    assert await executor.read_output("a1-1", 1, 100) == (b"ne\n", 1, 4)
    readers: dict[int, bytes] = {}

    async def read(after: int) -> None:
        readers[after] = await printed(executor, "a1-1", after)

    async with anyio.create_task_group() as tasks:
        for after in (0, 2, 4, 6):
            tasks.start_soon(read, after)
        await executor.send("a1-1", b"go\n")
    assert readers == {0: b"one\ntwo\n", 2: b"e\ntwo\n", 4: b"two\n", 6: b"o\n"}


async def test_output_is_read_on_from_any_byte_after_the_end(executor: Executor) -> None:
    await run(executor, shell("a1-1", "echo one; echo two"))
    assert [await printed(executor, "a1-1", after) for after in (0, 5, 8, 100)] == [b"one\ntwo\n", b"wo\n", b"", b""]


async def test_the_end_of_the_output_is_read_by_counting_from_it(executor: Executor) -> None:
    await run(executor, shell("a1-1", "printf 0123456789"))
    assert await executor.read_output("a1-1", -4, 3) == (b"678", 6, 10)
    assert await executor.read_output("a1-1", -400, 3) == (b"012", 0, 10)


async def test_errors_are_kept_apart(executor: Executor) -> None:
    assert await run(executor, shell("a1-1", "echo out; echo err >&2")) == b"out\n"
    assert await executor.read_output("a1-1", 0, 100, errors=True) == (b"err\n", 0, 4)


async def test_errors_stand_where_they_were_printed_if_all_is_to_be_together(executor: Executor) -> None:
    script = "echo one; echo two >&2; echo three"
    assert await run(executor, program("a1-1", "sh", "-c", script, together=True)) == b"one\ntwo\nthree\n"
    assert await executor.read_output("a1-1", 0, 100, errors=True) == (b"", 0, 0)


async def test_a_flood_of_output_does_not_grow_its_reader(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "head -c 100000000 /dev/zero"))
    ourselves = psutil.Process()
    before, most, size = ourselves.memory_info().rss, 0, 0
    async for chunk in executor.output("a1-1"):
        size += len(chunk)
        most = max(most, ourselves.memory_info().rss)
    assert size == 100_000_000
    assert most - before < 32 * 1024 * 1024


# -- input


async def test_stdin_is_the_whole_input_and_then_ends(executor: Executor) -> None:
    data = os.urandom(2 * 1024 * 1024)
    assert await run(executor, python("a1-1", DIGEST, stdin=data)) == hashlib.sha256(data).hexdigest().encode() + b"\n"


async def test_without_input_stdin_is_at_its_end(executor: Executor) -> None:
    assert await run(executor, shell("a1-1", "cat; echo end")) == b"end\n"


async def test_what_is_sent_arrives_at_once_and_in_order_until_the_input_is_closed(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "while read -r line; do echo got $line; done; echo end", stdin=None))
    for number in range(20):
        await executor.send("a1-1", f"{number}\n".encode())
        assert (await lines(executor, "a1-1", number + 1))[-1] == f"got {number}"
    await executor.close_input("a1-1")
    await executor.close_input("a1-1")
    assert (await printed(executor, "a1-1")).endswith(b"got 19\nend\n")


async def test_a_program_that_reads_late_misses_nothing(executor: Executor, tmp_path: Path) -> None:
    late = f"import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\n{DIGEST}"
    await executor.submit(python("a1-1", late, str(tmp_path / "go"), stdin=b"first"))
    await executor.submit(python("a2-1", late, str(tmp_path / "go"), stdin=None))
    parts = [os.urandom(100_000) for _ in range(10)]
    for part in parts:
        await executor.send("a2-1", part)
    await executor.close_input("a2-1")
    (tmp_path / "go").touch()
    assert (await printed(executor, "a2-1")).decode().strip() == hashlib.sha256(b"".join(parts)).hexdigest()
    assert (await printed(executor, "a1-1")).decode().strip() == hashlib.sha256(b"first").hexdigest()


@pytest.mark.parametrize("script", ["exec true", "exec <&-; echo closed; read -r line <&1; sleep 0.1"])
async def test_a_program_that_does_not_read_its_input_ends_all_the_same(executor: Executor, script: str) -> None:
    await run(executor, shell("a1-1", script, stdin=b"x" * 2_000_000))
    assert (await executor.outcome("a1-1")).kind == "exited"


# -- once


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


async def test_one_that_could_not_be_started_is_not_tried_again(executor: Executor, tmp_path: Path) -> None:
    script = tmp_path / "script"
    await run(executor, program("a1-1", str(script)))
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    await run(executor, program("a1-1", str(script)))
    assert (await executor.outcome("a1-1")).kind == "not_started"


# -- how it ended


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
async def test_an_exit_code_is_told(executor: Executor, code: int) -> None:
    await executor.submit(shell("a1-1", f"exit {code}"))
    outcome = await executor.outcome("a1-1")
    assert (outcome.kind, outcome.code, outcome.left, outcome.ok) == ("exited", code, (), code == 0)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_signal_that_ended_the_program_is_told(executor: Executor, signum: signal.Signals) -> None:
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
async def test_why_a_program_could_not_be_started_is_told(
    executor: Executor, argv: list[str], cwd: str, error: str
) -> None:
    await executor.submit(program("a1-1", *argv, cwd=cwd))
    outcome = await executor.outcome("a1-1")
    assert outcome.kind == "not_started"
    assert outcome.error.startswith(error)


async def test_a_handle_that_nobody_knows_was_not_started(executor: Executor) -> None:
    assert (await executor.outcome("a1-1")).kind == "not_started"
    assert await printed(executor, "a1-1") == b""
    assert await executor.read_output("a1-1", 0, 10) == (b"", 0, 0)


async def test_a_program_past_its_time_is_ended_with_its_tree(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "echo before; setsid sh -c 'sleep 1000 & echo $!'; sleep 1000", timeout_s=0.3))
    assert (await executor.outcome("a1-1")).kind == "timed_out"
    before, child = await lines(executor, "a1-1", 2)
    assert before == "before"
    assert not is_running(int(child))


async def test_a_program_that_ends_in_time_has_not_timed_out(executor: Executor) -> None:
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
async def test_a_child_that_holds_stdout_ends_with_its_program(executor: Executor, child: str) -> None:
    await executor.submit(shell("a1-1", f"{child}; exit 3"))
    with anyio.fail_after(GIVE_UP_S):
        outcome = await executor.outcome("a1-1")
    assert (outcome.kind, outcome.code, outcome.left) == ("exited", 3, ())
    [pid] = await pids(executor, "a1-1", 1)
    assert not is_running(pid)


# -- ending it


async def test_cancelling_ends_a_tree_that_does_not_want_to(executor: Executor) -> None:
    await executor.submit(shell("a1-1", HOSTILE))
    tree = await pids(executor, "a1-1", 3)
    assert all(is_running(pid) for pid in tree)
    assert await executor.cancel("a1-1", 0.2) == []
    assert not any(is_running(pid) for pid in tree)
    assert (await executor.outcome("a1-1")).kind == "signalled"


async def test_cancelling_lets_a_program_put_things_in_order(executor: Executor) -> None:
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


async def test_cancelling_what_has_ended_changes_nothing(executor: Executor) -> None:
    await run(executor, shell("a1-1", "echo printed; exit 3"))
    outcome = await executor.outcome("a1-1")
    assert await executor.cancel("a1-1", 1) == []
    assert await executor.outcome("a1-1") == outcome
    assert await printed(executor, "a1-1") == b"printed\n"


async def test_what_was_cancelled_before_is_not_started(executor: Executor, tmp_path: Path) -> None:
    assert await executor.cancel("a1-1", 1) == []
    await run(executor, shell("a1-1", 'echo started > "$1"', str(tmp_path / "log")))
    assert await executor.outcome("a1-1") == Outcome("not_started", error="it was stopped before it started")
    assert not (tmp_path / "log").exists()


async def test_a_cancel_that_races_with_a_submit_leaves_nothing(executor: Executor, tmp_path: Path) -> None:
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


async def test_processes_that_are_not_of_the_attempt_are_left_alone(executor: Executor, sibling: int) -> None:
    for handle in ("a1-1", "a2-1"):
        await executor.submit(shell(handle, "echo $$; exec sleep 1000"))
    [other] = await pids(executor, "a2-1", 1)
    await pids(executor, "a1-1", 1)
    await executor.cancel("a1-1", 1)
    assert is_running(sibling)
    assert is_running(other)


# -- what it is given


async def test_the_environment_arrives_exactly(executor: Executor) -> None:
    values = {"EMPTY": "", "LINES": "a\nb\n\n", "BYTES": os.fsdecode(b"\xff\xfe=\x80"), "NÄME": "ü", "EQUALS": "a=b=c"}
    await executor.submit(program("a1-1", "cat", "/proc/self/environ", environment=ENVIRONMENT | values))
    arrived = (await printed(executor, "a1-1")).removesuffix(b"\0").split(b"\0")
    mark = {item for item in arrived if item.startswith(b"FORKJOIN_MARK=")}
    assert len(mark) == 1
    assert set(arrived) - mark == {os.fsencode(f"{n}={v}") for n, v in (ENVIRONMENT | values).items()}


@pytest.mark.parametrize("name", ["", "A=B", "A\0B"])
async def test_a_variable_that_no_program_can_have_is_refused(executor: Executor, name: str) -> None:
    with pytest.raises(ValueError, match="no program can be given"):
        await executor.submit(program("a1-1", "true", environment={name: "x"}))
    assert (await executor.outcome("a1-1")).kind == "not_started"


async def test_arguments_and_folder_arrive_exactly(executor: Executor, tmp_path: Path) -> None:
    words = ["-x", "", "a b", "$(id)", "a\nb", "ü", os.fsdecode(b"\xff")]
    folder = tmp_path / os.fsdecode(b"a \xff\n b")
    folder.mkdir()
    script = "import os, sys; os.write(1, os.fsencode('|'.join([*sys.argv[1:], os.getcwd()])))"
    spec = python("a1-1", script, *words)
    await executor.submit(program("a1-1", *spec.argv, cwd=str(folder)))
    assert await printed(executor, "a1-1") == os.fsencode("|".join([*words, str(folder)]))


async def test_a_program_has_its_three_streams_and_no_other(executor: Executor) -> None:
    assert (await run(executor, shell("a1-1", "ls /proc/self/fd"))).split() == [b"0", b"1", b"2", b"3"]  # 3 is ls's own


# -- taken over


async def test_another_daemon_takes_an_attempt_over(executor: Executor, reopen: Callable[[], Executor]) -> None:
    await executor.submit(shell("a1-1", "echo one; read -r line; echo $line; exit 3", stdin=None))
    await lines(executor, "a1-1", 1)
    later = reopen()
    await later.submit(shell("a1-1", "echo never"))
    await later.send("a1-1", b"two\n")
    assert await printed(later, "a1-1") == b"one\ntwo\n"
    assert (await later.outcome("a1-1")).code == 3
    assert await executor.outcome("a1-1") == await later.outcome("a1-1")


async def test_another_daemon_can_end_an_attempt(executor: Executor, reopen: Callable[[], Executor]) -> None:
    await executor.submit(shell("a1-1", HOSTILE))
    tree = await pids(executor, "a1-1", 3)
    assert await reopen().cancel("a1-1", 0) == []
    assert not any(is_running(pid) for pid in tree)


async def test_what_is_forgotten_is_gone(executor: Executor) -> None:
    await run(executor, shell("a1-1", "echo printed"))
    await executor.forget("a1-1")
    assert await executor.read_output("a1-1", 0, 10) == (b"", 0, 0)
    await executor.forget("a1-1")


# -- many


async def test_fifty_attempts_run_at_once(executor: Executor, tmp_path: Path) -> None:
    """Each waits until all are there."""
    script = 'touch "$1/$2"; while [ "$(ls "$1" | wc -l)" -lt 50 ]; do sleep 0.05; done; echo $2'
    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(executor.submit, shell(f"a{number}-1", script, str(tmp_path / "all"), str(number)))
        (tmp_path / "all").mkdir()
    for number in range(50):
        assert await printed(executor, f"a{number}-1") == f"{number}\n".encode()
        assert (await executor.outcome(f"a{number}-1")).ok


async def test_a_hundred_attempts_leave_no_descriptor_and_no_zombie(executor: Executor) -> None:
    async def live(number: int) -> None:
        await run(executor, shell(f"a{number}-1", "echo done"))
        await executor.outcome(f"a{number}-1")

    await live(0)
    before, children = len(os.listdir("/proc/self/fd")), psutil.Process().children()
    async with anyio.create_task_group() as tasks:
        for number in range(1, 101):
            tasks.start_soon(live, number)
    assert len(os.listdir("/proc/self/fd")) == before
    assert set(psutil.Process().children()) <= set(children)


async def test_capacity_says_what_there_is(executor: Executor) -> None:
    capacity = await executor.capacity()
    assert capacity.cores >= 1
    assert 0 < capacity.free_memory_bytes <= capacity.memory_bytes
