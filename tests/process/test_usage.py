"""Measurement of a process tree by the watchdog, and limits that a daemon doesn't inherit from an attempt."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from forkjoin.process import resource_limits, usage
from support.attempts import supervisor_command

MB = 1_000_000


@contextmanager
def running(*argv: str) -> Generator[int]:
    """Start a process, and wait until it has printed a line.

    Yields its pid. Its session is killed at the end.
    """
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            os.killpg(process.pid, 9)


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-E", "-c", f"import os, mmap, sys, threading, time\n{script}")


def test_shared_memory_counts_once_and_private_memory_for_each_process() -> None:
    """Two processes share 60 MB, and have 20 MB each."""
    script = (
        "shared = mmap.mmap(-1, 60_000_000); shared.write(bytes(60_000_000)); ready, report = os.pipe()\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        own, seen = bytearray(os.urandom(20_000_000)), sum(shared[::4096])\n"
        "        os.write(report, b'!'); time.sleep(1000)\n"
        "for _ in range(2): os.read(ready, 1)\n"
        "print(flush=True); time.sleep(1000)"
    )
    with running(*python(script)) as pid:
        found = usage.measure_tree(pid, "")
    assert found.processes == 2
    assert 100 * MB < found.memory < 140 * MB


def test_a_child_started_by_a_thread_counts() -> None:
    script = (
        "def start():\n"
        "    if os.fork() == 0: time.sleep(1000)\n"
        "    print(flush=True); time.sleep(1000)\n"
        "threading.Thread(target=start).start()"
    )
    with running(*python(script)) as pid:
        assert usage.measure_tree(pid, "").processes == 1


@pytest.mark.parametrize(("is_supervisor", "count"), [(True, 1), (False, 3)])
def test_a_daemon_started_within_an_attempt_does_not_count_nor_do_its_children(
    tmp_path: Path, is_supervisor: bool, count: int
) -> None:
    daemon = supervisor_command(tmp_path / "attempts") if is_supervisor else "env -i FORKJOIN_KEEPER=1 setsid"
    with running("sh", "-c", f"sleep 1000 & {daemon} sh -c 'sleep 1000 & echo up; wait' & wait") as pid:
        (leader,) = [child.pid for child in psutil.Process(pid).children() if os.getsid(child.pid) == child.pid]
        found = usage.measure_tree(pid, str(tmp_path / "attempts" / "a1-1"))
        os.killpg(leader, 9)
    assert found.processes == count


def test_an_ended_process_uses_nothing() -> None:
    assert usage.measure_tree(2**22 + 1, "") == usage.ResourceUsage()


def test_a_daemon_started_by_an_agents_relay_has_no_limits_of_the_agent() -> None:
    script = (
        "import resource; from pathlib import Path; from forkjoin.process import resource_limits\n"
        "resource_limits.apply_to_this_process({'file_size': 5_000_000}, nice=False)\n"
        "resource_limits.reset_in_daemon()\n"
        "print(*resource.getrlimit(resource.RLIMIT_FSIZE), Path('/proc/self/oom_score_adj').read_text())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(resource_limits.__file__).parents[2])}
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    soft, hard, score = map(int, process.stdout.split())
    assert soft == hard
    assert score == int(Path("/proc/self/oom_score_adj").read_text())


#: The files of an attempt's cgroup at each check, and the limit for which the kernel has killed a process.
KILLS = {
    "its own": ([{"memory.events": "oom 1\noom_kill 1"}], "own"),
    "its own, the kill one check later": ([{"memory.events": "oom 1"}, {"memory.events": "oom 1\noom_kill 1"}], "own"),
    "outer": ([{"memory.peak": "200", "memory.events": "oom 0\noom_kill 1"}], "machine"),
    "inner": ([{"memory.events.local": "oom 0", "memory.events": "oom 1\noom_kill 1"}], ""),
    "its own, version 1": (
        [{"memory.max_usage_in_bytes": "200"}, {"memory.oom_control": "under_oom 0\noom_kill 1"}],
        "own",
    ),
    "outer, version 1": ([{"memory.oom_control": "oom_kill 1"}], "machine"),
    "outer, version 1, once full of files": (
        [{"memory.max_usage_in_bytes": "200"}, {}, {"memory.oom_control": "oom_kill 1"}],
        "machine",
    ),
}


@pytest.mark.parametrize("name", KILLS)
def test_the_cgroup_shows_for_which_memory_limit_the_kernel_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(usage, "_CHARGE_BATCH", 1)
    (tmp_path / "memory.limit_in_bytes").write_text("200")
    meter = usage.Meter("", [str(tmp_path)], ())
    checks, limit = KILLS[name]
    found: list[str] = []
    for check in checks:
        for file, content in check.items():
            (tmp_path / file).write_text(content)
        found.append(meter.find_exceeded_memory_limit())
    assert found == [*[""] * (len(checks) - 1), limit]
