"""The slowdown of an agent next to a greedy agent, for each limit, with cgroups and with the watchdog.

Run it with `python -m bench.hogs`. Whenever its limit ends the greedy agent, it is started again, so that it runs all
the time. The limits are low, because others may use the machine, too.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import anyio
from forkjoin.core import file_lock
from forkjoin.core.tree_limits import TreeLimits
from forkjoin.process import attempt_cgroups
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.process.cgroup_root import CgroupRoot
from forkjoin.process.executor import Executor

ROUNDS = 3
CORES = os.cpu_count() or 1

#: Some seconds of typical work: computing, allocating memory, and writing small files.
WORK = """
import hashlib, os
for turn in range(30):
    data = os.urandom(2_000_000)
    for _ in range(12): data = hashlib.sha256(data).digest() + data[32:]
    sorted(range(300_000), key=lambda n: n * 7919 % 300_007)
    with open(f"work-{turn % 10}", "wb") as file: file.write(data)
"""


@dataclass(frozen=True)
class Hog:
    """A greedy agent, and the limits that end it."""

    name: str
    script: str
    limits: TreeLimits
    timeout_s: float | None = None


HOGS = (
    Hog(
        "all memory",
        "taken = []\nwhile True: taken.append(bytearray(4_000_000))",
        TreeLimits(memory=500_000_000),
    ),
    Hog(
        "forks without end",
        "import os, time\nwhile True:\n if os.fork() == 0: time.sleep(1000)\n time.sleep(0.005)",
        TreeLimits(processes=200),
    ),
    Hog(
        "a file without end",
        "with open('large', 'wb') as file:\n while True: file.write(bytes(1_000_000))",
        TreeLimits(file_size=200_000_000),
    ),
    Hog(
        "spins on every core",
        f"import os\nfor _ in range({2 * CORES - 1}):\n if os.fork() == 0: break\nwhile True: pass",
        TreeLimits(cpu_s=60),
    ),
    Hog("sleeps for ever", "import time; time.sleep(1e6)", TreeLimits(), timeout_s=2),
)


class Runs:
    """Attempts in one temporary folder."""

    def __init__(self, folder: Path) -> None:
        (folder / "attempts").mkdir(mode=0o700)
        self.folder = folder
        self.executor = Executor(folder / "attempts", folder / "daemon.lock", [])
        self.count = 0

    def spec(self, script: str, limits: TreeLimits, timeout_s: float | None = None) -> AttemptSpec:
        self.count += 1
        cwd = self.folder / f"cwd-{self.count}"
        cwd.mkdir()
        argv = (sys.executable, "-S", "-E", "-c", script)
        environment = {"PATH": os.environ["PATH"]}
        return AttemptSpec(f"a{self.count}-1", argv, str(cwd), environment, timeout_s=timeout_s, limits=limits)

    async def work(self) -> float:
        """Return the seconds that the work takes."""
        spec = self.spec(WORK, TreeLimits(memory=2_000_000_000, processes=200))
        began = time.perf_counter()
        await self.executor.submit(spec)
        outcome = await self.executor.outcome(spec.handle)
        assert outcome.ok, outcome
        return time.perf_counter() - began

    async def work_next_to(self, hog: Hog, ends: list[str]) -> float:
        """Return the seconds that the work takes next to the hog.

        The outcomes of the hog are appended to `ends`.
        """
        running: list[str] = []
        took = 0.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.keep_running, hog, running, ends)
            await anyio.sleep(0.5)
            took = await self.work()
            tasks.cancel_scope.cancel()
        await self.executor.cancel(running[-1], 0)
        return took

    async def keep_running(self, hog: Hog, running: list[str], ends: list[str]) -> None:
        while True:
            spec = self.spec(hog.script, hog.limits, hog.timeout_s)
            running.append(spec.handle)
            await self.executor.submit(spec)
            ends.append(str(await self.executor.outcome(spec.handle)).splitlines()[0])


async def measure(folder: Path, hogs: Sequence[Hog]) -> None:
    runs = Runs(folder)
    for hog in hogs:
        ratios: list[float] = []
        ends: list[str] = []
        for _ in range(ROUNDS):
            alone = await runs.work()
            ratios.append(await runs.work_next_to(hog, ends) / alone)
        outcome = f"{len(ends)} times {ends[0]}" if ends else "not within that time"
        shown = " ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
        print(f"  {hog.name:22} x {statistics.median(ratios):.2f}  ({shown}); ended: {outcome}", flush=True)


def main() -> None:
    no_roots: list[CgroupRoot] = []
    for tier, roots in (("cgroups", attempt_cgroups.find_cgroup_roots()), ("the watchdog", no_roots)):
        print(f"{tier}: {'; '.join(map(str, roots)) or 'none'}")
        with (
            tempfile.TemporaryDirectory(prefix="forkjoin-bench-") as folder,
            mock.patch.object(attempt_cgroups, "find_cgroup_roots", partial(list[CgroupRoot], roots)),
        ):
            held = file_lock.take(Path(folder) / "daemon.lock")  # no shim starts a daemon
            assert held is not None
            anyio.run(measure, Path(folder), HOGS)
            os.close(held)


if __name__ == "__main__":
    main()
