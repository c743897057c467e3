"""What a tree takes, as the watchdog sees it; and what a daemon is free of that was started within one."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from forkjoin.process import resource_limits, usage
from support.attempts import keeper

MB = 1_000_000


@contextmanager
def running(*argv: str) -> Generator[int]:
    """A process that has printed a line, once its tree is up; it and those in its session are ended after."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            os.killpg(process.pid, 9)


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-E", "-c", f"import os, mmap, sys, threading, time\n{script}")


def test_what_processes_share_counts_once_and_what_each_has_alone_for_each() -> None:
    """Two that share 60 MB, and have 20 MB each."""
    script = (
        "shared = mmap.mmap(-1, 60_000_000); shared.write(bytes(60_000_000)); told, tell = os.pipe()\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        own, seen = bytearray(os.urandom(20_000_000)), sum(shared[::4096])\n"
        "        os.write(tell, b'!'); time.sleep(1000)\n"
        "for _ in range(2): os.read(told, 1)\n"
        "print(flush=True); time.sleep(1000)"
    )
    with running(*python(script)) as pid:
        found = usage.measure_tree(pid, "")
    assert found.processes == 2
    assert 100 * MB < found.memory < 140 * MB


def test_a_child_that_a_thread_has_started_counts() -> None:
    script = (
        "def start():\n"
        "    if os.fork() == 0: time.sleep(1000)\n"
        "    print(flush=True); time.sleep(1000)\n"
        "threading.Thread(target=start).start()"
    )
    with running(*python(script)) as pid:
        assert usage.measure_tree(pid, "").processes == 1


@pytest.mark.parametrize(("is_one", "count"), [(True, 1), (False, 3)])
def test_a_daemon_that_was_started_there_does_not_count_nor_what_is_below_it(
    tmp_path: Path, is_one: bool, count: int
) -> None:
    daemon = keeper(tmp_path / "attempts") if is_one else "env -i FORKJOIN_KEEPER=1 setsid"
    with running("sh", "-c", f"sleep 1000 & {daemon} sh -c 'sleep 1000 & echo up; wait' & wait") as pid:
        (leader,) = [child.pid for child in psutil.Process(pid).children() if os.getsid(child.pid) == child.pid]
        found = usage.measure_tree(pid, str(tmp_path / "attempts" / "a1-1"))
        os.killpg(leader, 9)
    assert found.processes == count


def test_of_a_process_that_is_gone_nothing_is_taken() -> None:
    assert usage.measure_tree(2**22 + 1, "") == usage.Usage()


def test_a_daemon_that_an_agent_s_relay_has_started_is_free_of_what_must_not_hold_it() -> None:
    script = (
        "import resource; from pathlib import Path; from forkjoin.process import resource_limits\n"
        "resource_limits.apply_to_this_process({'file_size': 5_000_000}, nice=False)\n"
        "resource_limits.reset_in_daemon()\n"
        "print(*resource.getrlimit(resource.RLIMIT_FSIZE), Path('/proc/self/oom_score_adj').read_text())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(resource_limits.__file__).parents[2])}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    soft, hard, score = map(int, told.stdout.split())
    assert soft == hard
    assert score == int(Path("/proc/self/oom_score_adj").read_text())


#: What an attempt's cgroup, of version 2 or 1, tells at each look, and whose limit has had one of it killed.
KILLS = {
    "its own": ([{"memory.events": "oom 1\noom_kill 1"}], "own"),
    "its own, the kill a look later": ([{"memory.events": "oom 1"}, {"memory.events": "oom 1\noom_kill 1"}], "own"),
    "one around": ([{"memory.peak": "200", "memory.events": "oom 0\noom_kill 1"}], "machine"),
    "one within": ([{"memory.events.local": "oom 0", "memory.events": "oom 1\noom_kill 1"}], ""),
    "its own, 1": ([{"memory.max_usage_in_bytes": "200"}, {"memory.oom_control": "under_oom 0\noom_kill 1"}], "own"),
    "one around, 1": ([{"memory.oom_control": "oom_kill 1"}], "machine"),
    "one around, 1, once full of files": (
        [{"memory.max_usage_in_bytes": "200"}, {}, {"memory.oom_control": "oom_kill 1"}],
        "machine",
    ),
}


@pytest.mark.parametrize("name", KILLS)
def test_whose_limit_of_memory_had_the_kernel_kill_is_asked_of_the_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(usage, "_CHARGE_BATCH", 1)
    (tmp_path / "memory.limit_in_bytes").write_text("200")
    meter = usage.Meter("", [str(tmp_path)], ())
    looks, killer = KILLS[name]
    found: list[str] = []
    for look in looks:
        for file, told in look.items():
            (tmp_path / file).write_text(told)
        found.append(meter.find_exceeded_memory_limit())
    assert found == [*[""] * (len(looks) - 1), killer]
