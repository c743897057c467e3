"""Stacks: agents that start from the work of another agent."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.dependent_agents import falling_once_settled, fork, outcomes
from support.harness import GIVE_UP_S, Lead, forkjoin, git, lead_of, open_reconciler_in_memory


async def test_an_agent_starts_from_the_last_commit_of_its_base_agent_alone(near: Lead, repository: Path) -> None:
    await near.run("echo other > other.txt")
    ids = await fork(
        near,
        {"name": "second", "task": "cat x.txt; ls other.txt || echo alone", "base": "first", "after": ["a1"]},
        {"name": "first", "task": "echo x > x.txt; git add x.txt; git commit -qm x; sleep 0.1; echo y > y.txt"},
    )
    git(repository, "commit", "-q", "--allow-empty", "-m", "meanwhile")
    assert await outcomes(near, ids) == {"second": "succeeded: alone", "first": "succeeded: "}
    assert git(repository, "rev-parse", "forkjoin/a2-second") == git(repository, "rev-parse", "forkjoin/a3-first")


async def test_a_stack_of_three_has_three_waves_and_is_skipped_above_a_failed_agent(near: Lead) -> None:
    agents: list[dict[str, object]] = [
        {"name": "top", "task": "true", "base": "middle"},
        {"name": "middle", "task": "exit 3", "base": "ground"},
        {"name": "ground", "task": "echo > x"},
    ]
    answer = await near.call("spawn_agents", agents=agents, dry_run=True)
    assert answer["waves"] == [["ground"], ["middle"], ["top"]]
    ended = await outcomes(near, await fork(near, *agents))
    assert ended.pop("middle").startswith("failed: exit 3")
    assert ended == {"top": "failed: skipped: a2 failed", "ground": "succeeded: "}


async def test_a_default_base_skips_the_agent_itself(near: Lead) -> None:
    ids = await fork(near, {"name": "ground", "task": "echo > x"}, {"name": "next", "task": "ls"}, base="ground")
    assert (await outcomes(near, ids))["next"] == "succeeded: x"


async def test_a_base_is_an_id_or_a_name_of_the_call_or_a_commit_or_an_older_name_in_this_order(
    near: Lead, repository: Path
) -> None:
    for name in ("a1", "new", "old"):
        git(repository, "switch", "-qc", name, "main")
        (repository / f"of-branch-{name}").touch()
        git(repository, "add", ".")
        git(repository, "commit", "-qm", name)
    git(repository, "switch", "-q", "main")
    await near.call("spawn_agents", agents=[{"task": "touch of-agent", "name": name} for name in ("old", "older")])
    ids = await fork(
        near,
        {"name": "new", "task": "touch of-agent"},
        *({"name": f"from-{base}", "task": "ls -x of-*", "base": base} for base in ("a1", "new", "old", "older")),
    )
    ended = await outcomes(near, ids)
    assert [ended[f"from-{base}"] for base in ("a1", "new", "older")] == ["succeeded: of-agent"] * 3
    assert ended["from-old"] == "succeeded: of-branch-old"


async def test_an_unknown_base_a_cycle_and_a_failed_base_are_refused(near: Lead) -> None:
    neither = await near.refusal("spawn_agent", task="true", base="nobody")
    assert "base 'nobody' names no commit of this repository" in neither
    assert "no agent" in neither
    circle = [{"name": "x", "task": "true", "base": "y"}, {"name": "y", "task": "true", "after": ["x"]}]
    assert "has a cycle" in await near.refusal("spawn_agents", agents=circle)
    await near.run("exit 1")
    assert "a1 (exit-1) failed: agents that depend on it" in await near.refusal("spawn_agent", task="true", base="a1")


@pytest.mark.parametrize("strategy", ["merge", "squash"])
async def test_an_agent_starts_from_a_base_agent_that_was_merged_and_removed(
    near: Lead, repository: Path, strategy: str
) -> None:
    (first,) = await near.run("echo x > x.txt")
    await near.call("merge_worktree", ids=[first], strategy=strategy)
    await near.call("remove_worktrees", ids=[first])
    ids = await fork(near, {"name": "second", "task": "cat x.txt; git log --oneline | wc -l", "base": first})
    assert await outcomes(near, ids) == {"second": "succeeded: 2"}, "its commit, and not what it was merged to"


async def test_an_agent_fails_with_a_reason_if_its_base_agent_has_no_commit(near: Lead, repository: Path) -> None:
    ids = await fork(near, {"name": "ground", "task": "sleep 1000"})
    ids += await fork(near, {"name": "never", "task": "true", "after": ["ground"]})
    above = {"base": "never", "on_failed_dependency": "run"}
    (top,) = await fork(near, {"name": "top", "task": "true", **above})
    await near.call("stop_agents", ids=ids)
    assert (await outcomes(near, [top]))["top"].startswith("failed: Its base never")


async def test_an_agent_with_on_failed_dependency_run_starts_from_a_failed_base_agent(near: Lead) -> None:
    (first,) = await near.run("echo half > x.txt; exit 3")
    ids = await fork(near, {"name": "mends", "task": "cat x.txt", "base": first}, on_failed_dependency="run")
    assert await outcomes(near, ids) == {"mends": "succeeded: half"}


async def test_the_base_commit_is_the_same_after_a_daemon_died_while_finding_it(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (first,) = await lead.run("echo x > x.txt")
        with falling_once_settled(monkeypatch) as settled:
            (above,) = await fork(lead, {"name": "above", "task": "cat x.txt", "base": first})
            while len(settled) < 2:
                await lead.listed(above)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        assert (await lead.call("wait_agents", ids=[above], timeout_s=GIVE_UP_S))["finished"][0]["summary"] == "x"
    assert settled[:2] == [git(repository, "rev-parse", "forkjoin/a2-above")] * 2


def test_the_command_line_accepts_a_base_agent(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "echo x > x.txt", "--name", "first")
    forkjoin(repository, "spawn", "cat x.txt", "--name", "second", "--base", "first")
    assert "second  succeeded  x" in forkjoin(repository, "wait").stdout
