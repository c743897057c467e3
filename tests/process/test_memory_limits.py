"""Limits of memory, processes, CPU time and files, enforced by a cgroup or by the watchdog. Outcomes name the limit.

The limits are small, since other programs use the machine too.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core.tree_limits import TreeLimits
from forkjoin.process import attempt_cgroups, cgroup_root
from forkjoin.process.executor import Executor
from support.attempts import (
    Place,
    change_shims,
    ended,
    limited,
    lines,
    program,
    python,
    run,
    shell,
    shim_of,
    supervisor_command,
)
from support.harness import until

MB = 1_000_000

#: Takes more and more memory in a child, like a test that an agent runs. The parent would go on. This program and those
#: below stop at a few times their limit if nothing ends them.
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
    """Return what enforces the limits."""
    if request.param == "watchdog":
        monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", list)
    else:
        need_cgroups("memory", "pids")
    return str(request.param)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[str]:
    """Yield a file of 150 MB whose content is not cached."""
    with (tmp_path / "large").open("wb") as file:  # cached until the advice below, or always on tmpfs
        file.write(bytes(150 * MB))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    yield file.name
    (tmp_path / "large").unlink()


def has_cgroup(place: Place, handle: str) -> bool:
    """Return whether a cgroup of the attempt exists."""
    return any(Path(group).exists() for group in attempt_cgroups.find(place.folder / handle))


@pytest.mark.usefixtures("tier")
async def test_the_memory_limit_ends_an_attempt_and_the_outcome_has_the_peak(local: Executor, place: Place) -> None:
    await local.submit(limited(shell("a1-1", TAKES_MEMORY), memory=200 * MB))
    outcome = await ended(local, "a1-1")
    assert outcome.peak_memory_bytes
    assert (outcome.kind, outcome.survivors) == ("limited", ())
    assert str(outcome).startswith("ended by its memory limit of 200 MB (peak ")
    assert 190 * MB < outcome.peak_memory_bytes < 1000 * MB
    assert not has_cgroup(place, "a1-1")


@pytest.mark.usefixtures("tier")
async def test_the_process_limit_ends_all_processes_of_an_attempt(local: Executor) -> None:
    await local.submit(limited(shell("a1-1", f"trap '' TERM; {FORKS}"), processes=50))
    outcome = await ended(local, "a1-1")
    assert (outcome.kind, outcome.survivors) == ("limited", ())
    assert str(outcome).startswith("ended by its limit of 50 processes and threads (peak ")


@pytest.mark.usefixtures("tier")
async def test_threads_count_towards_the_process_limit(local: Executor) -> None:
    await local.submit(limited(python("a1-1", STARTS_THREADS), processes=50))
    assert "by its limit of 50 processes and threads" in str(await ended(local, "a1-1"))


@pytest.mark.usefixtures("tier")
async def test_the_limit_of_cpu_time_ends_an_attempt_that_spins(local: Executor) -> None:
    await local.submit(limited(shell("a1-1", SPINS), cpu_s=1))
    outcome = await ended(local, "a1-1")
    assert (outcome.kind, str(outcome)) == ("limited", "ended by its limit of 1 s of CPU time")


@pytest.mark.usefixtures("tier")
async def test_the_cpu_time_of_ended_processes_counts(local: Executor) -> None:
    """This holds for children that were waited for, and for orphans."""
    work = "python3 -S -c 'import time\nwhile time.process_time() < 0.2: pass'"
    await local.submit(limited(shell("a1-1", f'while :; do {work}; sh -c "{work} &"; done'), cpu_s=1))
    assert "CPU time" in str(await ended(local, "a1-1"))


@pytest.mark.parametrize("script", ["", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)"])
async def test_the_file_size_limit_ends_a_program_that_writes_past_it(
    local: Executor, tmp_path: Path, script: str
) -> None:
    """SIGXFSZ kills the program, or write(2) fails if SIGXFSZ is ignored."""
    write = f"{script}\nfor name in 'ab':\n open(name, 'wb').write(bytes(4_000_000 if name == 'a' else 6_000_000))"
    spec = program("a1-1", "python3", "-S", "-c", write, cwd=str(tmp_path))
    await local.submit(limited(spec, file_size=5 * MB))
    outcome = await ended(local, "a1-1")
    assert (outcome.kind, str(outcome)) == ("limited", "ended by its limit of 5 MB for a file")
    assert [(tmp_path / name).stat().st_size for name in "ab"] == [4_000_000, 5_000_000]


async def test_the_file_size_limit_is_named_if_a_command_of_a_shell_exceeds_it(local: Executor, tmp_path: Path) -> None:
    await local.submit(limited(shell("a1-1", 'head -c 6000000 /dev/zero > "$1/b"', str(tmp_path)), file_size=5 * MB))
    assert str(await ended(local, "a1-1")) == "ended by its limit of 5 MB for a file"


async def test_a_program_gets_its_limit_of_open_files(local: Executor) -> None:
    output = await run(local, limited(shell("a1-1", "ulimit -Sn; ulimit -Hn"), open_files=64))
    assert output == b"64\n64\n"


async def test_a_program_within_its_limits_succeeds_and_the_outcome_has_its_peak(local: Executor, tier: str) -> None:
    script = "import sys; taken = bytearray(60_000_000); print('up', flush=True); sys.stdin.read()"
    await local.submit(limited(python("a1-1", script, stdin=None), memory=200 * MB, processes=50, cpu_s=600))
    await lines(local, "a1-1", 1)
    await local.close_input("a1-1")
    outcome = await ended(local, "a1-1")
    assert outcome.ok
    assert outcome.peak_memory_bytes
    assert 60 * MB < outcome.peak_memory_bytes < 100 * MB


async def test_cached_files_do_not_count_as_memory_of_the_program(local: Executor, tier: str, large: str) -> None:
    spec = shell("a1-1", 'cat "$1" | wc -c; read go', large, stdin=None)
    await local.submit(limited(spec, memory=100 * MB))
    await lines(local, "a1-1", 1)
    await local.close_input("a1-1")
    outcome = await ended(local, "a1-1")
    assert outcome.kind == "exited"
    assert (outcome.peak_memory_bytes or 0) < 50 * MB


@pytest.mark.usefixtures("tier")
async def test_mapped_files_do_not_count_as_memory_of_the_program(
    local: Executor, large: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_shims(  # the shims create `seen` after a check with the file mapped
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
        pytest.skip("there is no disk here: mapped files take memory")
    await until((tmp_path / "seen").exists)
    await local.close_input("a1-1")
    outcome = await ended(local, "a1-1")
    assert outcome.ok
    assert (outcome.peak_memory_bytes or 0) < 50 * MB


# In a cgroup, a daemon's memory counts until the daemon leaves the cgroup. A real daemon leaves first of all.
@pytest.mark.parametrize("tier", ["watchdog"], indirect=True)
@pytest.mark.usefixtures("tier")
async def test_the_memory_of_a_daemon_started_within_an_attempt_does_not_count(
    local: Executor, place: Place, tmp_path: Path
) -> None:
    held = f'import time; held = bytearray(150_000_000); open("{tmp_path}/done", "w"); time.sleep(3)'
    daemon = f"{supervisor_command(place.folder)} python3 -S -c '{held}'"
    script = f"({daemon} &); while [ ! -e {tmp_path}/done ]; do sleep 0.01; done; sleep 2; echo up; read go"
    await local.submit(shell("a1-1", script, stdin=None))
    await lines(local, "a1-1", 1)
    await local.close_input("a1-1")
    assert 0 < ((await ended(local, "a1-1")).peak_memory_bytes or 0) < 50 * MB


# -- limits of outer cgroups


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a cgroup of version 1, like a container's, as the only cgroup root."""
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
    ("outer", "total", "reason"),
    [
        (200 * MB, 1000 * MB, "the kernel, since the machine had no memory left"),
        (1000 * MB, 200 * MB, "the memory limit of 200 MB of all agents together"),
    ],
)
async def test_the_outcome_names_the_outer_memory_limit_that_was_exceeded(
    local: Executor, place: Place, box: Path, outer: int, total: int, reason: str
) -> None:
    (box / "memory.limit_in_bytes").write_text(str(outer))
    executor = Executor(place.folder, place.daemon_lock, [], TreeLimits(memory=total))
    await executor.submit(limited(shell("a1-1", TAKES_MEMORY), memory=600 * MB))
    assert str(await ended(executor, "a1-1")).startswith(f"ended by {reason} (peak ")


# -- the watchdog


@pytest.mark.parametrize("tier", ["watchdog"], indirect=True)
@pytest.mark.usefixtures("tier")
async def test_a_program_is_nice_under_the_watchdog(local: Executor) -> None:
    assert await run(local, shell("a1-1", "nice")) == b"5\n"


@pytest.mark.parametrize("tier", ["cgroup"], indirect=True)
@pytest.mark.usefixtures("tier")
async def test_a_program_is_not_nice_if_a_cgroup_shares_the_cpus(local: Executor) -> None:
    need_cgroups("cpu")
    assert await run(local, shell("a1-1", "nice")) == b"0\n"


# -- the machine runs out of memory


async def test_the_oom_killer_prefers_an_agent_to_its_lead(local: Executor, place: Place) -> None:
    await local.submit(shell("a1-1", "cat /proc/self/oom_score_adj; read go", stdin=None))
    assert await lines(local, "a1-1", 1) == ["500"]
    ours = Path("/proc/self/oom_score_adj").read_text()
    assert Path(f"/proc/{shim_of(place, 'a1-1')}/oom_score_adj").read_text() == ours
    await local.close_input("a1-1")
    await ended(local, "a1-1")
