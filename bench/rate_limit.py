"""Twelve real claudes on one account with a rate limit, run by forkjoin and by a thread pool.

Run it with `python -m bench.rate_limit`. A scripted API on loopback accepts `CALLS_PER_SECOND` calls per second. It
answers further calls with 429 and retry-after, is sometimes overloaded, and once reports a usage limit with its reset.
"""

import collections
import concurrent.futures
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support import vendor_programs
from support.fakes.messages_api import MessagesApi, serve
from support.fakes.script import ApiError, Asked, Block, Text, ToolUse

from bench.stdio import Stdio

AGENTS = 12
CALLS = 5  #: model calls of each agent, including its report
CALLS_PER_SECOND = 2  #: accepted by the API
WINDOW_S = 2.0
THINKS_S = 1.0
OVERLOADED_EVERY = 17
LIMIT_AFTER = 40  #: answered calls before the usage limit is reached
RESET_S = 20.0

CONFIG = """
default_agent = "claude"
[limits]
max_load = 1000
max_running = 12
[agents.claude]
kind = "claude"
command = ["claude"]
environment = { CLAUDE_CODE_OAUTH_TOKEN = "x", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC = "1" }
"""


@dataclass
class Account:
    """The rate limits of the scripted API, and its counts of calls."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    taken: collections.deque[float] = field(default_factory=collections.deque[float])
    counted: collections.Counter[str] = field(default_factory=collections.Counter[str])
    times: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    reset: float | None = None

    def answer(self, asked: Asked) -> Sequence[Block]:
        now = time.time()
        with self.lock:
            kind = self.judge(now)
            self.counted[kind] += 1
            self.times.append((now, kind))
        if kind == "usage limit":
            assert self.reset
            raise ApiError(429, "rate_limit_error", "You have hit your limit", _usage_limit(self.reset))
        if kind == "429":
            raise ApiError(429, "rate_limit_error", "Too many requests", {"retry-after": f"{WINDOW_S:.0f}"})
        if kind == "overloaded":
            raise ApiError(529, "overloaded_error", "Overloaded")
        time.sleep(THINKS_S)
        done = len(asked.results)
        if done >= CALLS - 1:
            return [Text("All done.")]
        return [ToolUse("Bash", {"command": f"echo {done} >> work.txt", "description": "work"})]

    def judge(self, now: float) -> str:
        """Return the kind of answer to a call at this time."""
        while self.taken and self.taken[0] < now - WINDOW_S:
            self.taken.popleft()
        if self.reset is None and self.counted["answered"] >= LIMIT_AFTER:
            self.reset = now + RESET_S
        if self.reset and now < self.reset:
            return "usage limit"
        if len(self.taken) >= CALLS_PER_SECOND * WINDOW_S:
            return "429"
        self.taken.append(now)
        return "answered" if sum(self.counted.values()) % OVERLOADED_EVERY else "overloaded"

    def rates(self) -> tuple[float, float]:
        """Return the calls per second before and after the first refusal.

        The second rate is from two windows after the refusal until the usage limit.
        """
        first = next(at for at, kind in self.times if kind == "429")
        until = next((at for at, kind in self.times if kind == "usage limit"), self.times[-1][0])
        before = [at for at, _ in self.times if first - WINDOW_S < at <= first]
        after = [at for at, _ in self.times if first + 2 * WINDOW_S < at < until]
        return len(before) / WINDOW_S, len(after) / max(WINDOW_S, until - first - 2 * WINDOW_S)


def _usage_limit(reset: float) -> dict[str, str]:
    return {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": str(int(reset) + 1),
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }


def environment(folder: Path, api: MessagesApi) -> dict[str, str]:
    user = folder / "user"
    user.mkdir()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CLAUDE", "ANTHROPIC", "FORKJOIN"))
    }
    program = vendor_programs.program("claude")
    return {
        **kept,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(user),
        "FORKJOIN_HOME": str(folder / "home"),
        "ANTHROPIC_BASE_URL": api.url,
        "HTTPS_PROXY": api.url,
        "NO_PROXY": "127.0.0.1",
        "IS_SANDBOX": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "GIT_AUTHOR_NAME": "bench",
        "GIT_AUTHOR_EMAIL": "bench@localhost",
        "GIT_COMMITTER_NAME": "bench",
        "GIT_COMMITTER_EMAIL": "bench@localhost",
    }


def make_repository(folder: Path, variables: dict[str, str]) -> Path:
    repository = folder / "repository"
    for command in (["init", "-q", str(repository)], ["-C", str(repository), "commit", "-qm", "x", "--allow-empty"]):
        subprocess.run(["git", *command], env=variables, check=True)
    return repository


def run_with_forkjoin(folder: Path, api: MessagesApi) -> collections.Counter[str]:
    variables = environment(folder, api)
    home = folder / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text(CONFIG)
    repository = make_repository(folder, variables)
    variables["CLAUDE_PROJECT_DIR"] = str(repository)
    try:
        with Stdio([sys.executable, "-P", "-E", "-m", "forkjoin", "mcp"], variables, repository) as lead:
            lead.call("spawn_agents", agents=[{"task": f"Do the work number {n}."} for n in range(AGENTS)])
            ended = lead.call("wait_agents", timeout_s=900)
        return collections.Counter(agent["state"] for agent in [*ended["finished"], *ended["pending"]])
    finally:
        stop = [sys.executable, "-m", "forkjoin", "daemon", "stop", "--agents"]
        subprocess.run(stop, env=variables, cwd=repository, check=True, stdout=subprocess.DEVNULL)


def run_in_pool(folder: Path, api: MessagesApi) -> collections.Counter[str]:
    variables = environment(folder, api) | {"CLAUDE_CODE_OAUTH_TOKEN": "x"}
    repository = make_repository(folder, variables)

    def run(number: int) -> str:
        worktree = str(folder / f"worktree-{number}")
        argv = ["git", "worktree", "add", "--detach", "-q", worktree]
        while subprocess.run(argv, cwd=repository, env=variables, check=False, capture_output=True).returncode:
            time.sleep(0.1)  # parallel git worktree commands can fail
        claude = ["claude", "-p", f"Do the work number {number}.", "--permission-mode", "acceptEdits"]
        done = subprocess.run(
            [*claude, "--allowedTools", "Bash"],
            cwd=worktree,
            env=variables,
            check=False,
            capture_output=True,
            text=True,
        )
        return "succeeded" if done.returncode == 0 else f"failed: {done.stdout.strip()[:60]}"

    with concurrent.futures.ThreadPoolExecutor(AGENTS) as pool:
        return collections.Counter(pool.map(run, range(AGENTS)))


def main() -> None:
    print(f"{AGENTS} claudes, {CALLS} calls each; the API accepts {CALLS_PER_SECOND} calls a second")
    for name, way in (("through forkjoin", run_with_forkjoin), ("from a thread pool", run_in_pool)):
        with tempfile.TemporaryDirectory(prefix="forkjoin-bench-") as folder, serve() as api:
            account = Account()
            api.script = account.answer
            began = time.monotonic()
            ends = way(Path(folder), api)
            before, after = account.rates()
            print(f"{name}: {dict(ends)} in {time.monotonic() - began:.0f} s; the API counted {dict(account.counted)}")
            print(f"  calls a second: {before:.1f} before the first refusal, {after:.1f} from 4 s after it")


if __name__ == "__main__":
    main()
