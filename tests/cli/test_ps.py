"""forkjoin ps on a terminal."""

from pathlib import Path

from forkjoin.core.paths import Home
from support.harness import forkjoin


def test_a_list_that_is_cut_keeps_the_agents_under_way_and_counts_the_others(home: Home, repository: Path) -> None:
    forkjoin(repository, "spawn", "sleep 1000", "--name", "long")
    for name in ("two", "three", "four"):
        forkjoin(repository, "spawn", "true", "--name", name)
    forkjoin(repository, "wait", "two", "three", "four")
    lines = forkjoin(repository, "ps", "--limit", "2").stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines[2:]] == ["a4", "a3", "a1", "…"]
    assert lines[-1].rstrip() == "… and 1 more: forkjoin ps --limit 0 lists all"
    whole = forkjoin(repository, "ps", "--limit", "0").stdout.splitlines()
    assert [line.partition(" ")[0] for line in whole[2:]] == ["a4", "a3", "a2", "a1"]
    forkjoin(repository, "stop", "long")
