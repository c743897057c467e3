"""Limits of an attempt: time, silence, open files. Changes of the clock don't matter (fault 26)."""

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from forkjoin.process import attempt_log, resource_limits
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.process.executor import Executor
from support.attempts import Place, change_shims, is_running, lines, pids, printed, program, run, shell
from support.harness import until

# -- time and silence


def make_clock_jump(monkeypatch: pytest.MonkeyPatch, folder: Path, clock: str, seconds: float) -> None:
    """Make a clock of shims jump by `seconds` as soon as the file `jump` exists.

    The shims create the file `seen` after they have seen output.

    Args:
        clock: The name of a function of the module `time`.
    """
    change_shims(
        monkeypatch,
        folder,
        "import os, time\n"
        f"really, look = time.{clock}, shim.attempt_log.Logs.check\n"
        f"time.{clock} = lambda: really() + ({seconds} if os.path.exists({str(folder / 'jump')!r}) else 0)\n"
        "def note(logs):\n"
        "    look(logs)\n"
        f"    if any(logs.sizes): open({str(folder / 'seen')!r}, 'w').close()\n"
        "shim.attempt_log.Logs.check = note; shim._LOG_CHECK_S = 0.02",
    )


#: Programs that stop themselves, are silent, ignore signals, or wait for a child.
HANGS = (
    "echo $$; kill -STOP $$",
    "echo $$; exec sleep 1000",
    "trap '' HUP INT TERM; echo $$; while :; do sleep 0.1; done",
    "echo $$; setsid sh -c 'sleep 1000 & wait'",
)
PRINTING = "echo $$; while :; do echo on >&2; sleep 0.01; done"


@pytest.mark.parametrize(
    ("limit", "hang"),
    [("time", PRINTING), *(("time", hang) for hang in HANGS), ("silence", HANGS[1])],
)
async def test_a_program_that_hangs_is_ended_by_its_limit(
    local: Executor, hang: str, limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 23: all processes are ended, and the output is kept."""
    make_clock_jump(monkeypatch, tmp_path, "monotonic", 7200)
    whole, silence = (3600, None) if limit == "time" else (None, 3600)
    spec = shell("a1-1", hang, timeout_s=whole)
    await local.submit(replace(spec, silence_s=silence))
    [pid, *_] = await pids(local, "a1-1", 1)
    await until((tmp_path / "seen").exists)
    (tmp_path / "jump").touch()
    outcome = await local.outcome("a1-1")
    words = {"time": "ended by its time limit of 60 min", "silence": "ended after 60 min of silence"}[limit]
    assert (outcome.kind, str(outcome), outcome.survivors) == ("timed_out", words, ())
    assert not is_running(pid)
    assert await pids(local, "a1-1", 1) == [pid]


def test_output_on_either_stream_ends_a_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 23: a program that prints for ever is not silent."""
    monkeypatch.chdir(tmp_path)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for name in ("output", "errors"):
        Path(name).touch()
    logs = attempt_log.Logs({"log_bytes": 1, "keeps_unread": False, "together": False})
    growth_times: list[float] = []
    for now[0], printed_to in enumerate([None, "output", None, "errors", None]):
        if printed_to:
            with Path(printed_to).open("a") as file:
                file.write("x")
        logs.check()
        growth_times.append(logs.last_growth)
    assert growth_times == [0, 1, 1, 3, 3]
    for descriptor in logs.files.values():
        os.close(descriptor)


@pytest.mark.parametrize(("seconds", "words"), [(0.3, "0.3 s"), (59, "59 s"), (60, "1 min"), (150, "2.5 min")])
def test_seconds_are_formatted_in_readable_units(seconds: float, words: str) -> None:
    assert resource_limits.format_seconds(seconds) == words


# -- clocks


async def test_setting_the_clock_forward_reaches_no_limit(
    local: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 26: the clock is set forward by a day."""
    make_clock_jump(monkeypatch, tmp_path, "time", 24 * 3600)
    script = "echo up; read -r line; echo $line"
    environment = {"PATH": os.environ["PATH"]}
    await local.submit(
        AttemptSpec(
            "a1-1", ("sh", "-c", script), "/", environment, input_complete=False, timeout_s=3600, silence_s=3600
        )
    )
    await lines(local, "a1-1", 1)
    (tmp_path / "jump").touch()
    await local.send("a1-1", b"checked\n")  # wakes the shim, which checks its limits
    await lines(local, "a1-1", 2)
    await local.close_input("a1-1")
    assert (await local.outcome("a1-1")).ok


@pytest.mark.parametrize("limit", ["time", "silence"])
async def test_a_limit_is_reached_though_the_clock_was_set_back(
    local: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Fault 26: the clock is set back by an hour."""
    make_clock_jump(monkeypatch, tmp_path, "time", -3600)
    (tmp_path / "jump").touch()
    spec = shell("a1-1", "exec sleep 1000")
    await local.submit(replace(spec, timeout_s=0.3) if limit == "time" else replace(spec, silence_s=0.3))
    outcome = await local.outcome("a1-1")
    assert outcome.kind == "timed_out"
    assert 0 < outcome.duration_s < 3600


# -- open files


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Raise the limit of open files, as a daemon does.

    Yields the limits that the daemon was started with.
    """
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    given = (256, former[1])
    monkeypatch.setattr(resource_limits, "INHERITED_OPEN_FILES", given)
    resource.setrlimit(resource.RLIMIT_NOFILE, given)
    resource_limits.reset_in_daemon()
    yield given
    resource.setrlimit(resource.RLIMIT_NOFILE, former)


async def test_a_daemon_raises_its_limit_of_open_files_but_not_that_of_programs(
    local: Executor, raised: tuple[int, int]
) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (raised[1], raised[1])
    output = await run(local, program("a1-1", "sh", "-c", "ulimit -Sn; ulimit -Hn"))
    assert [int(word) for word in output.split()] == list(raised)


async def test_a_daemon_started_by_a_shim_has_the_limits_of_the_first_daemon(
    place: Place, raised: tuple[int, int]
) -> None:
    place.wake.write_text(f"#!/bin/sh\nulimit -Sn > '{place.woken}.new'; mv '{place.woken}.new' '{place.woken}'\n")
    executor = place.open()
    await run(executor, shell("a1-1", "true"))
    await until(place.woken.exists)
    assert int(place.woken.read_text()) == raised[0]


@pytest.mark.parametrize("where", ["mkfifo", "popen"])
async def test_an_attempt_refused_for_lack_of_open_files_can_be_submitted_again(
    local: Executor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    owner, name = {"mkfifo": (os, "mkfifo"), "popen": (subprocess, "Popen")}[where]
    spec = shell("a1-1", 'echo started >> "$1"', str(tmp_path / "log"))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        with pytest.raises(OSError, match="Too many open files"):
            await local.submit(spec)
    await run(local, spec)
    assert (await local.outcome("a1-1")).ok
    assert (tmp_path / "log").read_text() == "started\n"
    assert await printed(local, "a1-1") == b""
