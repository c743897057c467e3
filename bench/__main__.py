"""The first figures of docs/performance.md, by `make bench`.

Both sides take turns in one run, so that their ratio holds on a busy machine, too.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.stdio import Stdio

RELAY = [sys.executable, "-P", "-E", "-m", "forkjoin", "mcp"]
BARE = [sys.executable, str(Path(__file__).with_name("bare_server.py"))]
ROUNDS = 9


class Sandbox:
    """A folder with a repository and a separate forkjoin home."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self.repository.mkdir()
        home = folder / "home"
        home.mkdir(mode=0o700)
        program = '[agents.sh]\nkind = "command"\ncommand = ["sh"]\n'
        (home / "config.toml").write_text(
            f'default_agent = "sh"\n[limits]\nmax_running = 5\nmax_load = 1000\n{program}'
        )
        self.environment = {**os.environ, "FORKJOIN_HOME": str(home), "CLAUDE_PROJECT_DIR": str(self.repository)}
        for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "initial"]):
            author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
            subprocess.run(["git", *author, *command], cwd=self.repository, check=True)

    def relay(self) -> Stdio:
        return Stdio(RELAY, self.environment, self.repository)

    def bare(self) -> Stdio:
        return Stdio(BARE, self.environment, self.repository)

    def stop_daemon(self) -> None:
        argv = [sys.executable, "-m", "forkjoin", "daemon", "stop", "--agents"]
        subprocess.run(argv, env=self.environment, cwd=self.repository, check=True, stdout=subprocess.DEVNULL)


def measure_tool_listing_ms(start: Callable[[], Stdio]) -> float:
    """Return the milliseconds from a server's start until its list of tools."""
    with start() as server:
        server.ask("tools/list", {})
        return (time.perf_counter() - server.began) * 1000


def private_memory_mb(pid: int) -> float:
    """Return the megabytes that would become free if the process ended.

    The source is Private_* of smaps_rollup.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def find_daemon(sandbox: Sandbox) -> int:
    """Return the daemon's process id. Start the daemon if there is none."""
    argv = [sys.executable, "-m", "forkjoin", "daemon", "start"]
    started = subprocess.run(
        argv, env=sandbox.environment, cwd=sandbox.repository, check=True, capture_output=True, text=True
    )
    return int(started.stdout.partition("pid ")[2].partition(",")[0])


def measure_start(sandbox: Sandbox) -> None:
    cold: list[float] = []
    warm: list[float] = []
    bare: list[float] = []
    for _ in range(ROUNDS):
        sandbox.stop_daemon()
        cold.append(measure_tool_listing_ms(sandbox.relay))
        bare.append(measure_tool_listing_ms(sandbox.bare))
        warm.append(measure_tool_listing_ms(sandbox.relay))
    print(f"start until tools are listed, ms (median of {ROUNDS}, minimum, maximum)")
    for name, times in (("bare mcp server", bare), ("forkjoin, cold", cold), ("forkjoin, daemon running", warm)):
        ratio = statistics.median(t / b for t, b in zip(times, bare, strict=True))
        print(f"  {name:26} {statistics.median(times):7.0f} {min(times):7.0f} {max(times):7.0f}   x {ratio:.2f}")


def measure_spawn(sandbox: Sandbox) -> None:
    """Measure the time until 100 agents are spawned, and until all have ended."""
    sandbox.stop_daemon()
    with sandbox.relay() as lead:
        began = time.perf_counter()
        agents = [{"task": f"echo {n} > {n}.txt", "name": f"n{n}"} for n in range(100)]
        lead.call("spawn_agents", agents=agents)
        answered = time.perf_counter()
        lead.call("wait_agents", timeout_s=600)
        ended = time.perf_counter()
    milliseconds = (answered - began) * 1000
    print(f"\nspawn_agents with 100: answered in {milliseconds:.0f} ms; all ended after {ended - began:.1f} s")


def measure_memory(sandbox: Sandbox) -> None:
    with sandbox.relay() as lead, sandbox.bare() as bare:
        lead.call("spawn_agents", agents=[{"task": "sleep 60", "name": f"idle{n}"} for n in range(5)])
        while lead.call("get_status")["running"] < 5 or len(find_shims(sandbox)) < 5:
            time.sleep(0.05)
        bare.call("echo", text="warm")
        shims = statistics.median(private_memory_mb(pid) for pid in find_shims(sandbox))
        rows = {
            "bare mcp server": private_memory_mb(bare.process.pid),
            "relay": private_memory_mb(lead.process.pid),
            "daemon": private_memory_mb(find_daemon(sandbox)),
            "shim": shims,
        }
    print("\nprivate memory, MB")
    for name, megabytes in rows.items():
        print(f"  {name:26} {megabytes:7.1f}")


def find_shims(sandbox: Sandbox) -> list[int]:
    home = sandbox.environment["FORKJOIN_HOME"].encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command_line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"shim.py" in command_line and home in command_line:
                found.append(int(entry.name))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="forkjoin-bench-") as folder:
        sandbox = Sandbox(Path(folder))
        try:
            measure_start(sandbox)
            measure_spawn(sandbox)
            measure_memory(sandbox)
        finally:
            sandbox.stop_daemon()


if __name__ == "__main__":
    main()
