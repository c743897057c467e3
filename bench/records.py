"""The duration of commands when many agents are recorded: `python -m bench.records [10 10000 …]`."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from forkjoin.core.paths import Home

from bench.__main__ import Sandbox

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.records import multiply

ROUNDS = 3
COMMANDS = (
    ("ps",),
    ("ps", "--json"),
    ("brief",),
    ("status",),
    ("result", "agent-1"),
    ("wait", "--json", "--timeout", "0"),
    ("message", "agent-2", "go on"),
)


def run(sandbox: Sandbox, *command: str) -> float:
    """Return the seconds that a command takes."""
    began = time.perf_counter()
    argv = [sys.executable, "-m", "forkjoin", *command]
    subprocess.run(argv, env=sandbox.environment, cwd=sandbox.repository, check=False, capture_output=True)
    return time.perf_counter() - began


def measure(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="forkjoin-bench-") as folder:
        sandbox = Sandbox(Path(folder))
        try:
            run(sandbox, "spawn", "true", "--name", "agent-1")
            run(sandbox, "wait")
            sandbox.stop_daemon()
            multiply(Home(Path(sandbox.environment["FORKJOIN_HOME"]), Path()).records, count)
            run(sandbox, "daemon", "start")
            for command in COMMANDS:
                times = [run(sandbox, *command) for _ in range(ROUNDS)]
                print(f"{count:7} {' '.join(command):30} {statistics.median(times):7.2f} s")
        finally:
            sandbox.stop_daemon()


if __name__ == "__main__":
    for count in map(int, sys.argv[1:] or ("10", "10000")):
        measure(count)
