"""Agents that take too much: each is ended by its limit, which its outcome names, by a cgroup or by the watchdog.

Limits are small, since the machine is others' too.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core.tree_limits import TreeLimits
from forkjoin.process import attempt_cgroups, cgroup_root
from forkjoin.process.local_executor import LocalExecutor
from support.attempts import Place, change_shims, ended, keeper, limited, lines, program, python, run, shell, shim_of
from support.harness import until

MB = 1_000_000

#: Takes ever more memory, in a child, as a test under an agent would; its parent would go on. These hogs grow to what
#: is some times their limit, and no further, should nothing end them.
TAKES_MEMORY = """
python3 -S -c 'import time
taken = [bytearray(4_000_000) for _ in range(200)]
time.sleep(1000)'
sleep 1000
"""
FORKS = "for n in $(seq 200); do sleep 1000 & sleep 0.01; done; wait"
STARTS_THREADS = (
    "import threading, time\n"
    "for _ in range(200):\n"
    "    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    "    time.sleep(0.01)\n"
    "time.sleep(1000)"
)
SPINS = "for n in 1 2; do (while :; do :; done) & done; wait"


def need_cgroups(*controllers: str) -> None:
    found = {name for base in cgroup_root.find_cgroup_roots() for name in base.controllers}
    if missing := set(controllers) - found:
        pytest.skip(f"no cgroup with {', '.join(sorted(missing))} can be made here: the watchdog holds these limits")


@pytest.fixture(params=["cgroup", "watchdog"])
def tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What holds the limits."""
    if request.param == "watchdog":
        monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", list)
    else:
        need_cgroups("memory", "pids")
    return str(request.param)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[str]:
    """A file of 150 MB that is cached for nobody."""
    with (tmp_path / "large").open(
        "wb"
    ) as file:  # cached for us until we let go of it; where that is no disk, for good
        file.write(bytes(150 * MB))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    yield file.name
    (tmp_path / "large").unlink()


def is_left(place: Place, handle: str) -> bool:
    """Whether a cgroup of the attempt is there."""
    return any(Path(group).exists() for group in attempt_cgroups.find(place.folder / handle))


@pytest.mark.usefixtures("tier")
async def test_what_takes_all_memory_is_ended_by_its_limit_and_its_peak_is_told(
    local: LocalExecutor, place: Place
) -> None:
    await local.submit(limited(shell("a1-1", TAKES_MEMORY), memory=200 * MB))
    outcome = await ended(local, "a1-1")
    assert outcome.peak_memory_bytes
    assert (outcome.kind, outcome.left) == ("limited", ())
    assert str(outcome).startswith("ended by its memory limit of 200 MB (peak ")
    assert 190 * MB < outcome.peak_memory_bytes < 1000 * MB
    assert not is_left(place, "a1-1")


@pytest.mark.usefixtures("tier")
async def test_what_starts_processes_without_end_is_ended_by_its_limit_with_all_of_them(local: LocalExecutor) -> None:
    await local.submit(limited(shell("a1-1", f"trap '' TERM; {FORKS}"), processes=50))
    outcome = await ended(local, "a1-1")
    assert (outcome.kind, outcome.left) == ("limited", ())
    assert str(outcome).startswith("ended by its limit of 50 processes and threads (peak ")


@pytest.mark.usefixtures("tier")
async def test_threads_count_as_processes(local: LocalExecutor) -> None:
    await local.submit(limited(python("a1-1", STARTS_THREADS), processes=50))
    assert "by its limit of 50 processes and threads" in str(await ended(local, "a1-1"))


@pytest.mark.usefixtures("tier")
async def test_what_spins_on_every_core_is_ended_once_its_processor_time_is_used_up(local: LocalExecutor) -> None:
    await local.submit(limited(shell("a1-1", SPINS), cpu_s=1))
    outcome = await ended(local, "a1-1")
    assert (outcome.kind, str(outcome)) == ("limited", "ended by its limit of 1 s of CPU time")


@pytest.mark.usefixtures("tier")
async def test_processor_time_of_those_that_have_ended_counts(local: LocalExecutor) -> None:
    """Of children that were waited for, and of orphans."""
    work = "python3 -S -c 'import time\nwhile time.process_time() < 0.2: pass'"
    await local.submit(limited(shell("a1-1", f'while :; do {work}; sh -c "{work} &"; done'), cpu_s=1))
    assert "CPU time" in str(await ended(local, "a1-1"))


@pytest.mark.parametrize("script", ["", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)"])
async def test_what_writes_a_file_past_its_limit_is_ended_by_it_and_others_may_be_written(
    local: LocalExecutor, tmp_path: Path, script: str
) -> None:
    """Killed by the signal for it, or told so, where it ignores that, as Python does."""
    write = f"{script}\nfor name in 'ab':\n open(name, 'wb').write(bytes(4_000_000 if name == 'a' else 6_000_000))"
    spec = program("a1-1", "python3", "-S", "-c", write, cwd=str(tmp_path))
    await local.submit(limited(spec, file_size=5 * MB))
    outcome = await ended(local, "a1-1")
    assert (outcome.kind, str(outcome)) == ("limited", "ended by its limit of 5 MB for a file")
    assert [(tmp_path / name).stat().st_size for name in "ab"] == [4_000_000, 5_000_000]


async def test_a_shell_whose_command_wrote_past_the_limit_of_a_file_is_ended_by_it(
    local: LocalExecutor, tmp_path: Path
) -> None:
    await local.submit(limited(shell("a1-1", 'head -c 6000000 /dev/zero > "$1/b"', str(tmp_path)), file_size=5 * MB))
    assert str(await ended(local, "a1-1")) == "ended by its limit of 5 MB for a file"


async def test_a_program_may_have_no_more_open_files_than_its_limit(local: LocalExecutor) -> None:
    told = await run(local, limited(shell("a1-1", "ulimit -Sn; ulimit -Hn"), open_files=64))
    assert told == b"64\n64\n"


async def test_a_program_that_stays_within_its_limits_ends_well_and_its_peak_is_told(
    local: LocalExecutor, tier: str
) -> None:
    script = "import sys; taken = bytearray(60_000_000); print('up', flush=True); sys.stdin.read()"
    await local.submit(limited(python("a1-1", script, stdin=None), memory=200 * MB, processes=50, cpu_s=600))
    await lines(local, "a1-1", 1)
    await local.close_input("a1-1")
    outcome = await ended(local, "a1-1")
    assert outcome.ok
    assert outcome.peak_memory_bytes
    assert 60 * MB < outcome.peak_memory_bytes < 100 * MB


async def test_files_that_the_kernel_caches_are_no_memory_of_the_program_s(
    local: LocalExecutor, tier: str, large: str
) -> None:
    spec = shell("a1-1", 'cat "$1" | wc -c; read go', large, stdin=None)
    await local.submit(limited(spec, memory=100 * MB))
    await lines(local, "a1-1", 1)
    await local.close_input("a1-1")
    outcome = await ended(local, "a1-1")
    assert outcome.kind == "exited"
    assert (outcome.peak_memory_bytes or 0) < 50 * MB


@pytest.mark.usefixtures("tier")
async def test_files_that_a_program_has_mapped_are_no_memory_of_its_own(
    local: LocalExecutor, large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_shims(  # they leave `seen` once they have looked at what is up
        monkeypatch,
        tmp_path,
        "look = shim.resource_limits.LimitMonitor.check\n"
        "def note(watch):\n"
        "    is_up, before = shim.os.path.getsize('output'), watch.last_check\n"
        "    look(watch)\n"
        f"    if is_up and watch.last_check > before: open({str(tmp_path / 'seen')!r}, 'w').close()\n"
        "shim.resource_limits.LimitMonitor.check = note",
    )
    script = (
        "import mmap, sys; file = open(sys.argv[1]); large = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "sum(large[::4096]); print(open('/proc/self/status').read().partition('RssShmem:')[2].split()[0], flush=True)\n"
        "sys.stdin.read()"
    )
    await local.submit(limited(python("a1-1", script, large, stdin=None), memory=100 * MB))
    if int((await lines(local, "a1-1", 1))[0]):
        pytest.skip("there is no disk here: what is mapped is memory")
    await until((tmp_path / "seen").exists)
    await local.close_input("a1-1")
    outcome = await ended(local, "a1-1")
    assert outcome.ok
    assert (outcome.peak_memory_bytes or 0) < 50 * MB


# In a cgroup it counts until it leaves, which a real daemon does first of all.
@pytest.mark.parametrize("tier", ["watchdog"], indirect=True)
@pytest.mark.usefixtures("tier")
async def test_what_a_daemon_had_that_was_started_from_within_is_no_peak_of_the_attempt_s(
    local: LocalExecutor, place: Place, tmp_path: Path
) -> None:
    held = f'import time; held = bytearray(150_000_000); open("{tmp_path}/done", "w"); time.sleep(3)'
    daemon = f"{keeper(place.folder)} python3 -S -c '{held}'"
    script = f"({daemon} &); while [ ! -e {tmp_path}/done ]; do sleep 0.01; done; sleep 2; echo up; read go"
    await local.submit(shell("a1-1", script, stdin=None))
    await lines(local, "a1-1", 1)
    await local.close_input("a1-1")
    assert 0 < ((await ended(local, "a1-1")).peak_memory_bytes or 0) < 50 * MB


# -- limits around


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cgroup of version 1, as a container's, in which those of homes are made."""
    base = next(
        (base for base in cgroup_root.find_cgroup_roots() if base.version == 1 and "memory" in base.controllers), None
    )
    if base is None:
        pytest.skip("no cgroup of version 1 with memory can be made here")
    folder = Path(base.folder, f"forkjoin-box-{os.getpid()}")
    folder.mkdir()
    monkeypatch.setattr(
        attempt_cgroups, "find_cgroup_roots", lambda: [cgroup_root.CgroupRoot(str(folder), 1, ("memory",))]
    )
    yield folder
    folder.rmdir()


@pytest.mark.parametrize(
    ("around", "in_all", "words"),
    [
        (200 * MB, 1000 * MB, "the kernel, since the machine had no memory left"),
        (1000 * MB, 200 * MB, "the memory limit of 200 MB of all agents together"),
    ],
)
async def test_it_is_told_whose_limit_of_memory_it_was_of_those_around_an_attempt(
    local: LocalExecutor, place: Place, box: Path, around: int, in_all: int, words: str
) -> None:
    (box / "memory.limit_in_bytes").write_text(str(around))
    executor = LocalExecutor(place.folder, place.daemon_lock, [], TreeLimits(memory=in_all))
    await executor.submit(limited(shell("a1-1", TAKES_MEMORY), memory=600 * MB))
    assert str(await ended(executor, "a1-1")).startswith(f"ended by {words} (peak ")


# -- the watchdog


@pytest.mark.parametrize("tier", ["watchdog"], indirect=True)
@pytest.mark.usefixtures("tier")
async def test_under_the_watchdog_a_program_is_nice(local: LocalExecutor) -> None:
    assert await run(local, shell("a1-1", "nice")) == b"5\n"


@pytest.mark.parametrize("tier", ["cgroup"], indirect=True)
@pytest.mark.usefixtures("tier")
async def test_where_a_cgroup_shares_out_the_processors_nobody_is_nice(local: LocalExecutor) -> None:
    need_cgroups("cpu")
    assert await run(local, shell("a1-1", "nice")) == b"0\n"


# -- the machine's own end


async def test_an_agent_goes_before_its_lead_when_the_machine_has_no_memory_left(
    local: LocalExecutor, place: Place
) -> None:
    await local.submit(shell("a1-1", "cat /proc/self/oom_score_adj; read go", stdin=None))
    assert await lines(local, "a1-1", 1) == ["500"]
    ours = Path("/proc/self/oom_score_adj").read_text()
    assert Path(f"/proc/{shim_of(place, 'a1-1')}/oom_score_adj").read_text() == ours
    await local.close_input("a1-1")
    await ended(local, "a1-1")
