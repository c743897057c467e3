"""Many agents through few slots of one daemon: its memory, descriptors and threads stay what they were.

`python -m soak.test_soak 1000` (`make soak`) tells of more agents than CI has time for.
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
#: After so many agents a daemon has all that it needs: caches filled, threads started.
_WARM = 100


@dataclass(frozen=True)
class Sample:
    """What a daemon takes while it has nothing to do."""

    memory_mb: float
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return f"{self.memory_mb:.1f} MB, {self.descriptors} descriptors, {self.threads} threads"


def soak(folder: Path, agents: int) -> tuple[Sample, Sample]:
    """Run so many agents, each a commit, a tenth of them merged, all removed: a sample early on, and one at the end."""
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
        lead.kill()  # first: its relay would start another daemon
        person.run(sys.executable, "-m", "forkjoin", "daemon", "stop", "--agents")


def _run(lead: Lead, number: int) -> None:
    tasks = [f"echo {n} > {n}.txt; seq 200; git add .; git commit -qm {n}" for n in range(number, number + _AT_ONCE)]
    ids = [one["id"] for one in _call(lead, "spawn_agents", agents=[{"task": task} for task in tasks])["agents"]]
    ended = _call(lead, "wait_agents", ids=ids, timeout_s=GIVE_UP_S * 10)["finished"]
    assert {one["state"] for one in ended} == {"succeeded"}, ended
    assert len(_call(lead, "merge_worktree", ids=ids[:: _AT_ONCE // 5])["merged"]) == 5
    _call(lead, "remove_worktrees", ids=ids, discard_unmerged=True)


def _call(lead: Lead, tool: str, **arguments: object) -> dict[str, list[dict[str, str]]]:
    call = lead.send(tool, arguments)
    lead.wait(call, GIVE_UP_S * 10)
    assert call.content is not None, call.refusal
    content: dict[str, list[dict[str, str]]] = call.content
    return content


def sample(home: Path) -> Sample:
    (daemon,) = [one for one in psutil.process_iter() if _is_daemon(one, str(home))]
    return Sample(daemon.memory_info().rss / 1e6, daemon.num_fds(), daemon.num_threads())


def _is_daemon(one: psutil.Process, home: str) -> bool:
    try:
        return one.cmdline()[-2:] == ["daemon", "run"] and one.environ().get("FORKJOIN_HOME") == home
    except (psutil.Error, OSError):
        return False


def told(agents: int, first: Sample, last: Sample) -> str:
    return f"soak test: a daemon after {_WARM} agents: {first}; after {agents}: {last}"


@pytest.mark.soak
def test_a_daemon_takes_no_more_after_many_agents_than_after_some(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    first, last = soak(tmp_path, 300)
    record_property("figures", told(300, first, last))
    assert last.memory_mb - first.memory_mb < 8
    assert abs(last.descriptors - first.descriptors) <= 3
    assert last.threads - first.threads <= 12


def main() -> None:
    agents = int(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="forkjoin-soak-") as folder:
        print(told(agents, *soak(Path(folder), agents)))


if __name__ == "__main__":
    main()
