"""The daemon's memory, descriptors and threads while hundreds of agents run, a few at a time.

`python -m soak.test_soak 1000` measures more agents than CI has time for.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from crash.lead import Lead
from crash.person import Person, environment
from support.harness import GIVE_UP_S

_CONFIG = """
default_agent = "sh"
[limits]
max_running = 10
max_load = 1000
[agents.sh]
kind = "command"
command = ["sh"]
"""
_AT_ONCE = 50
#: The number of agents after which a daemon has filled its caches and started its threads.
_WARM = 100


@dataclass(frozen=True)
class Sample:
    """The resources of an idle daemon."""

    memory_mb: float
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return f"{self.memory_mb:.1f} MB, {self.descriptors} descriptors, {self.threads} threads"


def soak(folder: Path, agents: int) -> tuple[Sample, Sample]:
    """Run agents that each make a commit, merge a tenth of them, and remove all.

    Returns:
        A sample after the first 100 agents, and a sample at the end.
    """
    home = folder / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text(_CONFIG)
    person = Person(folder / "soak", environment(folder, home))
    lead = Lead("soak", person.folder, person.environment, folder / "relays")
    try:
        first = None
        for number in range(0, agents, _AT_ONCE):
            _run(lead, number)
            first = first or (sample(home) if number + _AT_ONCE >= _WARM else None)
        assert first
        return first, sample(home)
    finally:
        lead.kill()  # before the daemon stops, because the relay would start another daemon
        person.run(sys.executable, "-m", "forkjoin", "daemon", "stop", "--agents")


def _run(lead: Lead, number: int) -> None:
    tasks = [f"echo {n} > {n}.txt; seq 200; git add .; git commit -qm {n}" for n in range(number, number + _AT_ONCE)]
    spawned = _call(lead, "spawn_agents", agents=[{"task": task} for task in tasks])["agents"]
    ids = [agent["id"] for agent in spawned]
    ended = _call(lead, "wait_agents", ids=ids, timeout_s=GIVE_UP_S * 10)["finished"]
    assert {agent["state"] for agent in ended} == {"succeeded"}, ended
    assert len(_call(lead, "merge_worktree", ids=ids[:: _AT_ONCE // 5])["merged"]) == 5
    _call(lead, "remove_worktrees", ids=ids, discard_unmerged=True)


def _call(lead: Lead, tool: str, **arguments: object) -> dict[str, list[dict[str, str]]]:
    call = lead.send(tool, arguments)
    lead.wait(call, GIVE_UP_S * 10)
    assert call.content is not None, call.refusal
    content: dict[str, list[dict[str, str]]] = call.content
    return content


def sample(home: Path) -> Sample:
    (daemon,) = [process for process in psutil.process_iter() if _is_daemon(process, str(home))]
    return Sample(daemon.memory_info().rss / 1e6, daemon.num_fds(), daemon.num_threads())


def _is_daemon(process: psutil.Process, home: str) -> bool:
    try:
        return process.cmdline()[-2:] == ["daemon", "run"] and process.environ().get("FORKJOIN_HOME") == home
    except (psutil.Error, OSError):
        return False


def _figures(agents: int, first: Sample, last: Sample) -> str:
    return f"soak test: a daemon after {_WARM} agents: {first}; after {agents}: {last}"


@pytest.mark.soak
def test_a_daemon_needs_no_more_memory_descriptors_and_threads_after_300_agents_than_after_100(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    first, last = soak(tmp_path, 300)
    record_property("figures", _figures(300, first, last))
    assert last.memory_mb - first.memory_mb < 8
    assert abs(last.descriptors - first.descriptors) <= 3
    assert last.threads - first.threads <= 12


def main() -> None:
    agents = int(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="forkjoin-soak-") as folder:
        print(_figures(agents, *soak(Path(folder), agents)))


if __name__ == "__main__":
    main()
