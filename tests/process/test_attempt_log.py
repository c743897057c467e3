"""Logs that are too long: head and tail are kept, and every offset stays valid (fault 9)."""

import json
import os
import sys
from pathlib import Path

import pytest
from forkjoin.process import attempt_log
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.process.executor import Executor
from support.attempts import Place, change_shims, printed, program, run
from support.harness import until

MEGABYTE = 1024 * 1024

#: Reads numbers from stdin, and prints that many megabytes. Each line has 16 bytes, and contains its own offset.
NUMBERED = """
import sys
where = 0
for line in sys.stdin:
    out = getattr(sys, sys.argv[1]).buffer
    for _ in range(int(line)):
        out.write(b"".join(b"%015d\\n" % (where + 16 * n) for n in range(65536)))
        where += 1048576
    out.flush()
"""


def numbered(start: int, size: int) -> bytes:
    """Return `size` bytes of the output of `NUMBERED` from offset `start` on."""
    first = start // 16
    text = b"".join(b"%015d\n" % (16 * n) for n in range(first, (start + size) // 16 + 1))
    return text[start - 16 * first :][:size]


def printer(handle: str, stream: str = "stdout", *, keep_unread_output: bool = False) -> AttemptSpec:
    """Return a spec of `NUMBERED` with a log limit of four megabytes."""
    return AttemptSpec(
        handle,
        (sys.executable, "-S", "-E", "-c", NUMBERED, stream),
        "/",
        {},
        input_complete=False,
        log_bytes=4 * MEGABYTE,
        keep_unread_output=keep_unread_output,
    )


def kept(file: Path) -> int:
    """Return the bytes that the file takes on the disk."""
    return file.stat().st_blocks * 512


async def until_short(file: Path, size: int) -> None:
    """Wait until the file has this size, and its middle is dropped."""
    await until(lambda: file.exists() and file.stat().st_size == size and kept(file) < 6 * MEGABYTE)


# -- a file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "log"
    found.write_bytes(numbered(0, 10 * MEGABYTE))
    return found


def shorten(file: Path, limit: int, released: int = sys.maxsize) -> None:
    with file.open("r+b") as opened:
        attempt_log.shorten(opened.fileno(), limit, released)


def read(file: Path, start: int, limit: int) -> tuple[int, bytes]:
    with file.open("rb") as opened:
        return attempt_log.read(opened.fileno(), start, limit)


def test_a_log_within_its_limit_is_not_shortened(file: Path) -> None:
    shorten(file, 10 * MEGABYTE)
    assert kept(file) >= 10 * MEGABYTE


def test_a_log_beyond_its_limit_keeps_its_size_its_head_and_its_tail(file: Path) -> None:
    shorten(file, 4 * MEGABYTE)
    assert file.stat().st_size == 10 * MEGABYTE
    assert kept(file) < 5 * MEGABYTE
    assert read(file, 0, 5 * MEGABYTE) == (0, numbered(0, MEGABYTE))
    assert read(file, 7 * MEGABYTE, 5 * MEGABYTE) == (7 * MEGABYTE, numbered(7 * MEGABYTE, 3 * MEGABYTE))


def test_reading_dropped_bytes_returns_the_next_bytes_with_their_offset(file: Path) -> None:
    shorten(file, 4 * MEGABYTE)
    for start in (MEGABYTE, 2 * MEGABYTE + 5, 7 * MEGABYTE - 1):
        assert read(file, start, 16) == (7 * MEGABYTE, numbered(7 * MEGABYTE, 16))
    assert read(file, MEGABYTE - 5, 100) == (MEGABYTE - 5, numbered(MEGABYTE - 5, 5))


def test_only_released_bytes_are_dropped(file: Path) -> None:
    shorten(file, 4 * MEGABYTE, MEGABYTE)
    assert kept(file) >= 10 * MEGABYTE
    shorten(file, 4 * MEGABYTE, 3 * MEGABYTE + 7)
    assert read(file, MEGABYTE, 16)[0] == 3 * MEGABYTE


def test_reading_at_or_beyond_the_end_returns_no_bytes(file: Path) -> None:
    for start in (10 * MEGABYTE, 11 * MEGABYTE):
        assert read(file, start, 16) == (start, b"")


def test_bytes_dropped_during_a_read_are_not_returned_as_zeros(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.pread

    def shorten_first(descriptor: int, limit: int, start: int) -> bytes:
        shorten(file, 4 * MEGABYTE)
        return really(descriptor, limit, start)

    monkeypatch.setattr(os, "pread", shorten_first)
    assert read(file, 6 * MEGABYTE, 2 * MEGABYTE) == (7 * MEGABYTE, numbered(7 * MEGABYTE, MEGABYTE))


# -- an attempt


@pytest.mark.parametrize("stream", [pytest.param("stdout", marks=pytest.mark.soak), "stderr"])
async def test_head_and_tail_of_a_flood_are_kept_while_the_program_runs(
    local: Executor, place: Place, stream: str
) -> None:
    """Fault 9: the shim alone keeps the disk from filling, without a daemon."""
    file, errors = place.folder / "a1-1" / {"stdout": "output", "stderr": "errors"}[stream], stream == "stderr"
    await local.submit(printer("a1-1", stream))
    for size in (10, 20):
        await local.send("a1-1", b"10\n")
        await until_short(file, size * MEGABYTE)
    await local.close_input("a1-1")
    assert (await local.outcome("a1-1")).ok
    head, tail = [await local.read_output("a1-1", start, 100, errors=errors) for start in (0, -100)]
    assert head == (numbered(0, 100), 0, 20 * MEGABYTE)
    assert tail == (numbered(20 * MEGABYTE - 100, 100), 20 * MEGABYTE - 100, 20 * MEGABYTE)
    after = await local.read_output("a1-1", MEGABYTE, 100, errors=errors)
    assert after.start >= 16 * MEGABYTE
    assert after.data == numbered(after.start, 100)


async def test_a_flood_of_a_program_that_ends_at_once_is_shortened(local: Executor, place: Place) -> None:
    spec = printer("a1-1")
    await local.submit(spec)
    await local.send("a1-1", b"20\n")
    await local.close_input("a1-1")
    assert (await local.outcome("a1-1")).ok
    assert kept(place.folder / "a1-1" / "output") < 6 * MEGABYTE


async def test_unread_output_is_kept_until_it_is_released(local: Executor, place: Place) -> None:
    file = place.folder / "a1-1" / "output"
    await local.submit(printer("a1-1", keep_unread_output=True))
    await local.send("a1-1", b"20\n")
    await until(lambda: file.exists() and file.stat().st_size == 20 * MEGABYTE)
    await local.release_output("a1-1", 9 * MEGABYTE + 1)
    await until(lambda: kept(file) < 13 * MEGABYTE)
    assert (await local.read_output("a1-1", MEGABYTE, 16)).start == 9 * MEGABYTE
    await local.close_input("a1-1")
    assert await printed(local, "a1-1", 9 * MEGABYTE) == numbered(9 * MEGABYTE, 11 * MEGABYTE)
    await local.outcome("a1-1")
    assert kept(file) > 11 * MEGABYTE
    await local.release_output("a1-1", 20 * MEGABYTE)  # the shim has ended
    assert kept(file) < 6 * MEGABYTE


async def test_a_log_that_can_not_be_shortened_is_reported_once_and_the_program_goes_on(
    place: Place, local: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_shims(
        monkeypatch,
        tmp_path,
        "from forkjoin.process import attempt_log\n"
        "def refuse(*_): raise OSError(95, 'Operation not supported')\n"
        "attempt_log._punch_hole = refuse; shim._LOG_CHECK_S = 0.01",
    )
    log = place.folder / "a1-1" / "shim.log"
    await local.submit(printer("a1-1"))
    await local.send("a1-1", b"8\n")
    await until(lambda: log.exists() and b"Operation not supported" in log.read_bytes())
    await local.send("a1-1", b"8\n")
    await local.close_input("a1-1")
    assert len(await printed(local, "a1-1")) == 16 * MEGABYTE
    assert (await local.outcome("a1-1")).ok
    assert log.read_text().count("can't keep the logs") == 1


async def test_zeros_that_a_program_prints_are_kept(local: Executor) -> None:
    spec = program("a1-1", "head", "-c", str(3 * MEGABYTE), "/dev/zero")
    assert await run(local, spec) == bytes(3 * MEGABYTE)
    assert await local.read_output("a1-1", MEGABYTE, 10) == (bytes(10), MEGABYTE, 3 * MEGABYTE)


async def test_an_attempts_folder_describes_its_agent(local: Executor, place: Place) -> None:
    about = {"agent": 1, "name": "one", "spec": {"task": "t"}}
    await run(local, AttemptSpec("a1-1", ("true",), "/", {}, about=about))
    file = place.folder / "a1-1" / "about.json"
    assert json.loads(file.read_text()) == about
    assert file.stat().st_mode & 0o777 == 0o600
