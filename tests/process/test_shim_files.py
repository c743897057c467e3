"""The files of an attempt: their permissions, no secrets in them, and the effect of damage."""

import os
import signal
import stat

import psutil
import pytest
from forkjoin.process.executor import Executor
from support.attempts import ENVIRONMENT, Place, is_running, lines, pids, printed, program, run, shell, shim_of

SECRET = "correct-horse-battery-staple"


async def test_the_environment_is_written_to_no_file(local: Executor, place: Place) -> None:
    await local.submit(
        program("a1-1", "sh", "-c", "echo up; read go", environment=ENVIRONMENT | {"KEY": SECRET}, stdin=None)
    )
    await lines(local, "a1-1", 1)
    files = [file for file in place.folder.rglob("*") if file.is_file()]
    assert len(files) >= 6
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]
    own = psutil.Process(shim_of(place, "a1-1"))
    assert SECRET not in " ".join([*own.cmdline(), *own.environ().values()])


async def test_only_the_owner_may_access_the_files(local: Executor, place: Place) -> None:
    former = os.umask(0)
    try:
        await local.submit(shell("a1-1", "umask; echo >&2; read go", stdin=None))
        assert await lines(local, "a1-1", 1) == ["0000"]
    finally:
        os.umask(former)
    await local.send("a1-1", b"go\n")
    await local.close_input("a1-1")
    await local.outcome("a1-1")
    await local.cancel("a1-1", 0)
    folder = place.folder / "a1-1"
    modes = {file.name: stat.S_IMODE(file.lstat().st_mode) for file in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {"lock", "spec.json", "started.json", "end.json", "input", "output", "errors", "shim.log"} <= set(modes)
    assert {name for name, mode in modes.items() if mode != 0o600} == set()


@pytest.mark.parametrize(
    "damage",
    [b"", b'{"kind": "exi', b"\x00\xff", b'{"kind": "odd"}', b"[]", b'{"kind": "exited", "code": "x"}'],
    ids=["empty", "halved", "random", "odd kind", "other JSON", "other type"],
)
async def test_an_attempt_with_a_damaged_end_record_is_lost(local: Executor, place: Place, damage: bytes) -> None:
    await run(local, shell("a1-1", "echo printed"))
    (place.folder / "a1-1" / "end.json").write_bytes(damage)
    assert (await local.outcome("a1-1")).kind == "lost"
    assert await printed(local, "a1-1") == b"printed\n"
    await local.submit(shell("a1-1", "echo again"))
    assert await printed(local, "a1-1") == b"printed\n"


@pytest.mark.parametrize(
    "damage",
    [b"", b'["boot', b"\x00\xff", b"{}", b'["boot", "pid", 0]'],
    ids=["empty", "halved", "random", "other JSON", "other type"],
)
async def test_an_attempt_with_damaged_records_can_be_cancelled(local: Executor, place: Place, damage: bytes) -> None:
    await local.submit(shell("a1-1", "echo $$; exec sleep 1000"))
    [pid] = await pids(local, "a1-1", 1)
    for name in ("spec.json", "started.json"):
        (place.folder / "a1-1" / name).write_bytes(damage)
    assert await local.cancel("a1-1", 1) == []
    assert not is_running(pid)


async def test_a_program_starts_with_default_signal_handling(local: Executor) -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        words = await run(local, shell("a1-1", "grep -E 'Sig(Blk|Ign)' /proc/self/status"))
    finally:
        signal.signal(signal.SIGHUP, former)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert [int(word, 16) for word in words.split()[1::2]] == [0, 0]
