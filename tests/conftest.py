"""Fixtures of all tests: a git repository, a home folder of forkjoin, and leads that call its tools.

The scripted agent program is `sh`. An agent's task is a shell script, so each test shows what its agents do. No test
uses the home folder of the person who runs the tests, or a vendor's real API.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from forkjoin.agents.stop import stop
from forkjoin.cli import daemon
from forkjoin.core import file_lock
from forkjoin.core.error import ForkjoinError
from forkjoin.core.paths import Home, find_home
from forkjoin.reconciler import Reconciler
from hypothesis import HealthCheck, settings
from support.harness import Lead, git, lead_of, open_lead, open_lead_in_memory, open_reconciler_in_memory

CONFIG = """
default_agent = "sh"
[limits]
max_load = 1000
stop_grace_s = 1
[agents.sh]
kind = "command"
command = ["sh"]
"""

#: git's configuration of the user. Without maintenance, each `git commit` needs one process less.
GIT_CONFIG = """
[user]
name = Test
email = test@example.com
[init]
defaultBranch = main
[maintenance]
auto = false
"""

#: Every run tries the same examples, even on a slow machine. tests/support/fuzzing.py can try others.
settings.register_profile(
    "the same", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("the same")

# Under `nohup make test &` SIGINT is ignored, and the programs that tests start would inherit the ignored signal.
signal.signal(signal.SIGINT, signal.default_int_handler)


#: Prefixes of the ids of the slowest tests. These tests start first, so that all workers end at about the same time.
SLOWEST = (
    "tests/scheduling/test_simulated_histories.py",
    "tests/crash/",
    "tests/adversary/",
    "tests/cli/test_interrupt.py::test_an_interrupt_ends",
    "tests/transport/test_relay_replay.py",
    "tests/agents/test_remove_killed.py",
    "tests/agents/test_two_leads.py",
    "tests/e2e/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest tests first."""
    items.sort(key=lambda item: not item.nodeid.startswith(SLOWEST))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home folder with a git identity.

    Variables of the person who runs the tests are removed.
    """
    for name in list(os.environ):
        if name.startswith(("GIT_", "CLAUDE", "FORKJOIN_", "XDG_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / ".gitconfig").write_text(GIT_CONFIG)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "no-runtime-folder"))
    return folder


@pytest.fixture(scope="session")
def prepared_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a repository that each test copies. The first test makes it."""
    return tmp_path_factory.mktemp("prepared") / "repository"


@pytest.fixture
def repository(tmp_path: Path, user: Path, prepared_repository: Path) -> Path:
    """A repository with one commit, on main."""
    if not prepared_repository.exists():
        _make_repository(prepared_repository)
    folder = tmp_path / "repository"
    shutil.copytree(prepared_repository, folder)
    git(folder, "update-index", "--refresh")  # otherwise the first `git status` would change the index
    return folder


def _make_repository(folder: Path) -> None:
    folder.mkdir()
    git(folder, "init", "-q")
    for sample in (folder / ".git" / "hooks").iterdir():
        sample.unlink()
    (folder / "README.md").write_text("a repository\n")
    (folder / "shared.txt").write_text("one\ntwo\nthree\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home of forkjoin that configures the agent `sh`.

    At the end the fixture stops the daemon and its agents. The test fails if a process of this home still runs.
    """
    folder = tmp_path / "forkjoin"
    folder.mkdir(mode=0o700, exist_ok=True)  # a test may have mounted a file system there
    (folder / "config.toml").write_text(CONFIG)
    monkeypatch.setenv("FORKJOIN_HOME", str(folder))
    found = find_home()
    found.make()
    yield found
    monkeypatch.chdir(tmp_path)
    give_up = time.monotonic() + 10
    while left := processes_of(folder):
        if file_lock.is_held(found.daemon_lock):  # a shim that has just ended may have started a daemon
            with suppress(ForkjoinError):
                daemon.stop(agents=True)
        if time.monotonic() > give_up:
            subprocess.run(["kill", "-9", *map(str, left)], check=False)
            pytest.fail(f"still running: {left}")
        time.sleep(0.02)


def processes_of(folder: Path) -> dict[int, str]:
    """Return the processes that have this folder in their command line or environment.

    This process and zombies are not included. The keys are pids, the values the beginnings of command lines.
    """
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(folder).encode() in words and state != "Z":
            found[int(entry.name)] = words.decode(errors="replace")[:200]
    return found


@pytest.fixture(params=["memory", "stdio"])
async def any_lead(request: pytest.FixtureRequest, repository: Path, home: Home) -> AsyncIterator[Lead]:
    """A lead in the repository.

    The test runs twice: with a reconciler in this process, and with relay and daemon. It is for tests of what a relay
    or a daemon could change. All other tests use `near_lead`.
    """
    opened = open_lead(repository) if request.param == "stdio" else open_lead_in_memory(home, repository)
    async with opened as found:
        yield found


@pytest.fixture
async def lead(repository: Path, home: Home) -> AsyncIterator[Lead]:
    """A lead in the repository, connected through a real relay and daemon."""
    async with open_lead(repository) as found:
        yield found


@pytest.fixture
async def in_process_reconciler(home: Home) -> AsyncIterator[Reconciler]:
    """A reconciler that runs in this process. Its agents are stopped at the end."""
    async with open_reconciler_in_memory(home) as found:
        yield found
        await stop(found.services, await found.store.agents.live())


@pytest.fixture
async def near_lead(repository: Path, in_process_reconciler: Reconciler) -> AsyncIterator[Lead]:
    """A lead of the reconciler in this process.

    It starts faster than `lead`, which needs a relay and a daemon.
    """
    async with lead_of(in_process_reconciler, repository) as found:
        yield found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measurements that tests recorded as the property `figures`."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    figures = [
        dict(report.user_properties).get("figures") for report in reports if isinstance(report, pytest.TestReport)
    ]
    for line in dict.fromkeys(line for line in figures if line):
        terminalreporter.write_line(str(line))
