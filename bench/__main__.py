"""The figures of docs/performance.md: `make bench`. Both sides take turns in one run; the ratios are what counts."""

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


class Place:
    """A folder with a repository and a home of forkjoin's own."""

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
        for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
            author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
            subprocess.run(["git", *author, *command], cwd=self.repository, check=True)

    def relay(self) -> Stdio:
        return Stdio(RELAY, self.environment, self.repository)

    def bare(self) -> Stdio:
        return Stdio(BARE, self.environment, self.repository)

    def stop_daemon(self) -> None:
        argv = [sys.executable, "-m", "forkjoin", "daemon", "stop", "--agents"]
        subprocess.run(argv, env=self.environment, cwd=self.repository, check=True, stdout=subprocess.DEVNULL)


def until_tools_are_listed(start: Callable[[], Stdio]) -> float:
    """Milliseconds from starting a server until it has listed its tools."""
    with start() as server:
        server.ask("tools/list", {})
        return (time.perf_counter() - server.began) * 1000


def memory_of(pid: int) -> float:
    """Megabytes of a process's own: what would be free if it went (Private_* of smaps_rollup)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def daemon_of(place: Place) -> int:
    argv = [sys.executable, "-m", "forkjoin", "daemon", "start"]
    said = subprocess.run(argv, env=place.environment, cwd=place.repository, check=True, capture_output=True, text=True)
    return int(said.stdout.partition("pid ")[2].partition(",")[0])


def measure_start(place: Place) -> None:
    cold: list[float] = []
    warm: list[float] = []
    bare: list[float] = []
    for _ in range(ROUNDS):
        place.stop_daemon()
        cold.append(until_tools_are_listed(place.relay))
        bare.append(until_tools_are_listed(place.bare))
        warm.append(until_tools_are_listed(place.relay))
    print(f"start until tools are listed, ms (median of {ROUNDS}, minimum, maximum)")
    for name, times in (("bare mcp server", bare), ("forkjoin, cold", cold), ("forkjoin, daemon running", warm)):
        ratio = statistics.median(t / b for t, b in zip(times, bare, strict=True))
        print(f"  {name:26} {statistics.median(times):7.0f} {min(times):7.0f} {max(times):7.0f}   x {ratio:.2f}")


def measure_spawn(place: Place) -> None:
    """100 agents in one call, and then their whole way."""
    place.stop_daemon()
    with place.relay() as lead:
        began = time.perf_counter()
        agents = [{"task": f"echo {n} > {n}.txt", "name": f"n{n}"} for n in range(100)]
        lead.call("spawn_agents", agents=agents)
        answered = time.perf_counter()
        lead.call("wait_agents", timeout_s=600)
        ended = time.perf_counter()
    milliseconds = (answered - began) * 1000
    print(f"\nspawn_agents with 100: answered in {milliseconds:.0f} ms; all ended after {ended - began:.1f} s")


def measure_memory(place: Place) -> None:
    with place.relay() as lead, place.bare() as bare:
        lead.call("spawn_agents", agents=[{"task": "sleep 60", "name": f"idle{n}"} for n in range(5)])
        while lead.call("get_status")["running"] < 5 or len(shims_of(place)) < 5:
            time.sleep(0.05)
        bare.call("echo", text="warm")
        shims = statistics.median(memory_of(pid) for pid in shims_of(place))
        rows = {
            "bare mcp server": memory_of(bare.process.pid),
            "relay": memory_of(lead.process.pid),
            "daemon": memory_of(daemon_of(place)),
            "shim": shims,
        }
    print("\nmemory of its own, MB")
    for name, megabytes in rows.items():
        print(f"  {name:26} {megabytes:7.1f}")


def shims_of(place: Place) -> list[int]:
    home = place.environment["FORKJOIN_HOME"].encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"shim.py" in words and home in words:
                found.append(int(entry.name))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="forkjoin-bench-") as folder:
        place = Place(Path(folder))
        try:
            measure_start(place)
            measure_spawn(place)
            measure_memory(place)
        finally:
            place.stop_daemon()


if __name__ == "__main__":
    main()
