"""The command line with more data than fits one reply: hundreds of agents, long logs, a message that is too large."""

import json
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.transport.daemon_connection import LINE_LIMIT
from support.harness import forkjoin, limit


@pytest.fixture
def queued(repository: Path, home: Home) -> list[str]:
    """Return the names of more agents than fit one reply, all but one of them queued."""
    limit(home, max_running=1)
    forkjoin(repository, "spawn", stdin="\n".join(f"sleep 1000 # {'n' * 30} {n}" for n in range(250)))
    rows = json.loads(forkjoin(repository, "ps", "--json").stdout)["agents"]
    assert len(rows) == 250
    return [row["name"] for row in rows]


def test_stopping_the_daemon_stops_hundreds_of_agents_and_a_wait_reports_each(
    repository: Path, queued: list[str]
) -> None:
    forkjoin(repository, "daemon", "stop", "--agents")
    rows = json.loads(forkjoin(repository, "ps", "--json").stdout)["agents"]
    assert {row["state"] for row in rows} == {"stopped"}
    waited = forkjoin(repository, "wait", check=False)
    assert sorted(line.split()[1] for line in waited.stdout.splitlines()) == sorted(queued)
    assert waited.returncode == 1
    named = forkjoin(repository, "wait", *queued, "--json", check=False)
    assert (len(json.loads(named.stdout)["finished"]), named.returncode) == (250, 1)


def test_a_log_of_many_pages_is_printed_as_it_was(repository: Path, home: Home, tmp_path: Path) -> None:
    output = "x" * 50_000 + "\n\n\n\nword " + "é" * 30_001 + "\nend\n\n\n"
    (tmp_path / "output").write_text(output)
    forkjoin(repository, "spawn", f"cat {tmp_path}/output", "--name", "long")
    assert forkjoin(repository, "logs", "long", "--follow", "--raw").stdout == output
    assert forkjoin(repository, "logs", "long").stdout == output


def test_a_message_that_is_too_large_is_refused_with_a_reason(repository: Path, home: Home) -> None:
    task = "#" + "x" * (LINE_LIMIT // 5)
    done = forkjoin(repository, "spawn", stdin=f"{task}\n" * 6, check=False)
    assert (done.returncode, "at most 32 MB" in done.stderr) == (1, True)
