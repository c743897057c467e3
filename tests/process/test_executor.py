"""The contract of executors: output, input, and takeover. Each executor is a parameter of the fixture `reopen`."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import anyio
import psutil
import pytest
from forkjoin.process.executor import Executor
from support.attempts import ENVIRONMENT, lines, printed, program, python, run, shell

#: Reads stdin to its end, and prints the digest.
DIGEST = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"

# -- output


async def test_output_is_kept_byte_for_byte(executor: Executor) -> None:
    script = "import os; os.write(1, bytes(range(256)) * 4096); os.write(1, b'no line end')"
    assert await run(executor, python("a1-1", script)) == bytes(range(256)) * 4096 + b"no line end"


async def test_output_is_read_from_any_offset_while_the_program_runs(executor: Executor) -> None:
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


async def test_output_is_read_from_any_offset_after_the_end(executor: Executor) -> None:
    await run(executor, shell("a1-1", "echo one; echo two"))
    assert [await printed(executor, "a1-1", after) for after in (0, 5, 8, 100)] == [b"one\ntwo\n", b"wo\n", b"", b""]


async def test_a_negative_offset_counts_from_the_end(executor: Executor) -> None:
    await run(executor, shell("a1-1", "printf 0123456789"))
    assert await executor.read_output("a1-1", -4, 3) == (b"678", 6, 10)
    assert await executor.read_output("a1-1", -400, 3) == (b"012", 0, 10)


async def test_stderr_is_kept_apart_from_stdout(executor: Executor) -> None:
    assert await run(executor, shell("a1-1", "echo out; echo err >&2")) == b"out\n"
    assert await executor.read_output("a1-1", 0, 100, errors=True) == (b"err\n", 0, 4)


async def test_stderr_is_part_of_the_output_if_both_streams_are_merged(executor: Executor) -> None:
    script = "echo one; echo two >&2; echo three"
    assert await run(executor, program("a1-1", "sh", "-c", script, together=True)) == b"one\ntwo\nthree\n"
    assert await executor.read_output("a1-1", 0, 100, errors=True) == (b"", 0, 0)


async def test_reading_a_flood_of_output_takes_little_memory(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "head -c 100000000 /dev/zero"))
    this_process = psutil.Process()
    before, most, size = this_process.memory_info().rss, 0, 0
    async for chunk in executor.output("a1-1"):
        size += len(chunk)
        most = max(most, this_process.memory_info().rss)
    assert size == 100_000_000
    assert most - before < 32 * 1024 * 1024


# -- input


async def test_stdin_delivers_the_whole_input_and_ends(executor: Executor) -> None:
    data = bytes(range(256)) * 8192
    assert await run(executor, python("a1-1", DIGEST, stdin=data)) == hashlib.sha256(data).hexdigest().encode() + b"\n"


async def test_stdin_is_empty_without_input(executor: Executor) -> None:
    assert await run(executor, shell("a1-1", "cat; echo end")) == b"end\n"


async def test_sent_data_arrives_at_once_and_in_order(executor: Executor) -> None:
    await executor.submit(shell("a1-1", "while read -r line; do echo got $line; done; echo end", stdin=None))
    for number in range(20):
        await executor.send("a1-1", f"{number}\n".encode())
        assert (await lines(executor, "a1-1", number + 1))[-1] == f"got {number}"
    await executor.close_input("a1-1")
    await executor.close_input("a1-1")
    assert (await printed(executor, "a1-1")).endswith(b"got 19\nend\n")


async def test_a_program_that_reads_late_gets_all_input(executor: Executor, tmp_path: Path) -> None:
    late = f"import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\n{DIGEST}"
    await executor.submit(python("a1-1", late, str(tmp_path / "go"), stdin=b"first"))
    await executor.submit(python("a2-1", late, str(tmp_path / "go"), stdin=None))
    parts = [bytes([number]) * 100_000 for number in range(10)]
    for part in parts:
        await executor.send("a2-1", part)
    await executor.close_input("a2-1")
    (tmp_path / "go").touch()
    assert (await printed(executor, "a2-1")).decode().strip() == hashlib.sha256(b"".join(parts)).hexdigest()
    assert (await printed(executor, "a1-1")).decode().strip() == hashlib.sha256(b"first").hexdigest()


@pytest.mark.parametrize("script", ["exec true", "exec <&-; echo closed; read -r line <&1; sleep 0.1"])
async def test_a_program_that_does_not_read_its_input_can_end(executor: Executor, script: str) -> None:
    await run(executor, shell("a1-1", script, stdin=b"x" * 2_000_000))
    assert (await executor.outcome("a1-1")).kind == "exited"


# -- environment and arguments


async def test_the_environment_arrives_exactly(executor: Executor) -> None:
    values = {"EMPTY": "", "LINES": "a\nb\n\n", "BYTES": os.fsdecode(b"\xff\xfe=\x80"), "NÄME": "ü", "EQUALS": "a=b=c"}
    await executor.submit(program("a1-1", "cat", "/proc/self/environ", environment=ENVIRONMENT | values))
    arrived = (await printed(executor, "a1-1")).removesuffix(b"\0").split(b"\0")
    mark = {item for item in arrived if item.startswith(b"FORKJOIN_MARK=")}
    assert len(mark) == 1
    assert set(arrived) - mark == {os.fsencode(f"{n}={v}") for n, v in (ENVIRONMENT | values).items()}


@pytest.mark.parametrize("name", ["", "A=B", "A\0B"])
async def test_an_invalid_environment_variable_is_refused(executor: Executor, name: str) -> None:
    with pytest.raises(ValueError, match="passed to a program"):
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


async def test_a_program_has_only_three_open_files(executor: Executor) -> None:
    assert (await run(executor, shell("a1-1", "ls /proc/self/fd"))).split() == [
        b"0",
        b"1",
        b"2",
        b"3",
    ]  # ls opens 3 itself


# -- takeover


async def test_another_daemon_takes_over_an_attempt(executor: Executor, reopen: Callable[[], Executor]) -> None:
    await executor.submit(shell("a1-1", "echo one; read -r line; echo $line; exit 3", stdin=None))
    await lines(executor, "a1-1", 1)
    later = reopen()
    await later.submit(shell("a1-1", "echo never"))
    await later.send("a1-1", b"two\n")
    assert await printed(later, "a1-1") == b"one\ntwo\n"
    assert (await later.outcome("a1-1")).code == 3
    assert await executor.outcome("a1-1") == await later.outcome("a1-1")


async def test_forgetting_an_attempt_removes_its_output(executor: Executor) -> None:
    await run(executor, shell("a1-1", "echo printed"))
    await executor.forget("a1-1")
    assert await executor.read_output("a1-1", 0, 10) == (b"", 0, 0)
    await executor.forget("a1-1")


# -- many attempts


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.soak)])
async def test_many_attempts_run_at_once(executor: Executor, tmp_path: Path, count: int) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(executor.submit, shell(f"a{number}-1", "echo $1; cat", str(number), stdin=None))
    for number in range(count):
        await lines(executor, f"a{number}-1", 1)
    for number in range(count):
        await executor.close_input(f"a{number}-1")
        assert await printed(executor, f"a{number}-1") == f"{number}\n".encode()
        assert (await executor.outcome(f"a{number}-1")).ok


@pytest.mark.parametrize("count", [20, pytest.param(100, marks=pytest.mark.soak)])
async def test_many_attempts_leave_no_open_file_and_no_zombie(executor: Executor, count: int) -> None:
    async def live(number: int) -> None:
        await run(executor, shell(f"a{number}-1", "echo done"))
        await executor.outcome(f"a{number}-1")

    await live(0)
    before, children = len(os.listdir("/proc/self/fd")), psutil.Process().children()
    async with anyio.create_task_group() as tasks:
        for number in range(1, count + 1):
            tasks.start_soon(live, number)
    assert len(os.listdir("/proc/self/fd")) == before
    assert set(psutil.Process().children()) <= set(children)


async def test_capacity_is_within_the_machines_resources(executor: Executor) -> None:
    capacity = await executor.capacity()
    assert capacity.cores >= 1
    assert 0 < capacity.free_memory <= psutil.virtual_memory().total
