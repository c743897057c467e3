"""Dependencies between agents: start, base commit, and failures."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.dependent_agents import falling_once_settled, fork, outcomes
from support.harness import GIVE_UP_S, Lead, forkjoin, git, lead_of, open_reconciler_in_memory


async def test_an_agent_starts_from_the_work_of_its_dependency(near: Lead, repository: Path) -> None:
    ids = await fork(
        near,
        {"name": "second", "task": "cat x.txt; echo y > y.txt", "after": ["first"]},
        {"name": "first", "task": "echo x > x.txt"},
    )
    assert await outcomes(near, ids) == {"second": "succeeded: x", "first": "succeeded: "}
    result = await near.call("get_result", id="second")
    assert (len(result["commits"]), result["files_changed"]) == (1, 1)
    await near.call("merge_worktree", ids=["second", "first"])
    assert git(repository, "ls-tree", "--name-only", "main").split() == ["README.md", "shared.txt", "x.txt", "y.txt"]


async def test_an_agent_starts_from_the_work_of_all_its_dependencies(near: Lead, repository: Path) -> None:
    older = await near.run("echo x > x.txt", "echo y > y.txt", "true")
    await near.call("merge_worktree", ids=[older[0]])
    await near.call("remove_worktrees", ids=[older[0]])
    (after,) = await fork(near, {"name": "all", "task": "cat x.txt y.txt | tr -d '\\n'", "after": older})
    assert await outcomes(near, [after]) == {"all": "succeeded: xy"}
    assert len(git(repository, "rev-list", "--merges", "--all").split()) == 2  # the merge, and the base of the agent


async def test_an_agent_starts_from_its_named_base_only(near: Lead) -> None:
    await fork(near, {"name": "first", "task": "echo x > x.txt"})
    ids = await fork(near, {"name": "second", "task": "ls x.txt || echo none"}, after=["first"], base="main")
    assert await outcomes(near, ids) == {"second": "succeeded: none"}


async def test_an_agent_whose_dependencies_conflict_fails_without_starting(near: Lead, home: Home) -> None:
    older = await near.run("echo 1 > shared.txt", "echo 2 > shared.txt")
    (after,) = await fork(near, {"name": "both", "task": f"touch {home.state}/started", "after": older})
    assert (await outcomes(near, [after]))["both"].startswith("failed: The work of a2")
    assert "shared.txt" in (await near.call("get_result", id=after))["error"]
    assert not (home.state / "started").exists()


async def test_dependents_of_a_failed_agent_are_skipped_unless_they_should_run(near: Lead) -> None:
    ids = await fork(
        near,
        {"name": "breaks", "task": "exit 3"},
        {"name": "skipped", "task": "true", "after": ["breaks"]},
        {"name": "skipped-too", "task": "true", "after": ["skipped"]},
        {"name": "runs", "task": "echo all the same", "after": ["breaks"], "on_failed_dependency": "run"},
    )
    found = await outcomes(near, ids)
    assert found.pop("breaks").startswith("failed: ")
    assert found == {
        "skipped": "failed: skipped: a1 failed",
        "skipped-too": "failed: skipped: a2 failed",
        "runs": "succeeded: all the same",
    }


async def test_stopping_an_agent_skips_its_dependents(near: Lead) -> None:
    ids = await fork(near, {"name": "long", "task": "sleep 1000"}, {"name": "next", "task": "true", "after": ["long"]})
    listed = await near.until("next", last_event="it comes after a1 (long)")
    assert listed["state"] == "queued"
    await near.call("stop_agents", ids=["long"])
    assert (await outcomes(near, ids))["next"] == "failed: skipped: a1 stopped"


async def test_agents_with_the_same_exclusive_key_run_one_at_a_time(near: Lead, home: Home) -> None:
    alone = home.state / "alone"
    task = f"mkdir {alone} && sleep 0.1 && rmdir {alone}"
    agents: list[dict[str, object]] = [{"name": f"one-{n}", "task": task} for n in range(3)]
    ids = await fork(near, *agents, exclusive="the database")
    assert set((await outcomes(near, ids)).values()) == {"succeeded: "}


async def test_impossible_dependencies_are_refused_by_name(near: Lead) -> None:
    async def refusal(*agents: dict[str, object]) -> str:
        return await near.refusal("spawn_agents", agents=[{"task": "true", **agent} for agent in agents])

    circle = await refusal(
        {"name": "x", "after": ["z"]}, {"name": "y", "after": ["x"]}, {"name": "z", "after": ["y"]}, {"name": "free"}
    )
    assert "`after` has a cycle: " in circle
    assert circle.count(" after ") == 3
    assert "x after x" in await refusal({"name": "x", "after": ["x"]})
    assert "No agent 'nobody'" in await refusal({"after": ["nobody"]})
    assert (await near.call("list_agents"))["agents"] == []
    await near.run("exit 1")
    assert "a1 (exit-1) failed: agents that depend on it are skipped" in await refusal({"after": ["a1"]})
    ids = await fork(near, {"name": "all-the-same", "task": "true"}, after=["a1"], on_failed_dependency="run")
    assert await outcomes(near, ids) == {"all-the-same": "succeeded: "}


async def test_a_default_dependency_skips_the_agent_itself_and_the_waves_are_returned(near: Lead) -> None:
    agents = [{"name": "setup"}, {"name": "left"}, {"name": "right"}, {"name": "last", "after": ["left", "right"]}]
    answer = await near.call("spawn_agents", agents=agents, task="true", after=["setup"])
    assert answer["waves"] == [["a1"], ["a2", "a3"], ["a4"]]
    assert set((await outcomes(near, ["a1", "a2", "a3", "a4"])).values()) == {"succeeded: "}


async def test_a_dry_run_describes_the_spawn_and_records_nothing(near: Lead, home: Home) -> None:
    agents = [
        {"name": "first", "task": "true", "paths": ["src/"], "verify": "true"},
        {"task": "Write the docs", "paths": ["docs/*.md", "src/a.py"]},
        {"name": "last", "task": "true", "after": ["first"]},
    ]
    answer = await near.call("spawn_agents", agents=agents, dry_run=True)
    assert answer.pop("note").startswith("Nothing was spawned")
    assert answer == {
        "agents": [],
        "waves": [["first", "write-the-docs"], ["last"]],
        "overlaps": ["first and write-the-docs: src/"],
        "without_verify": ["write-the-docs", "last"],
    }
    assert (await near.call("list_agents", all=True))["agents"] == []
    assert "the name" in (await near.refusal("spawn_agents", agents=[agents[0], agents[0]], dry_run=True)).lower()
    assert [agent["id"] for agent in (await near.call("spawn_agents", agents=agents))["agents"]] == ["a1", "a2", "a3"]


async def test_the_base_is_the_same_after_the_daemon_was_killed_while_finding_it(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        older = await lead.run("echo x > x.txt", "echo y > y.txt")
        with falling_once_settled(monkeypatch) as settled:
            (after,) = await fork(lead, {"name": "both", "task": "cat x.txt y.txt", "after": older})
            await lead.until(after, state="preparing")
            while len(settled) < 2:
                await lead.listed(after)
        await lead.call("wait_agents", ids=[after], timeout_s=GIVE_UP_S)
    assert len(set(settled)) == 1
    assert git(repository, "rev-parse", f"forkjoin/{after}-both") == settled[0]


def test_the_command_line_accepts_dependencies(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "echo x > x.txt", "--name", "first", "--exclusive", "port")
    forkjoin(repository, "spawn", "cat x.txt", "--name", "second", "--after", "first")
    assert "second  succeeded  x" in forkjoin(repository, "wait").stdout
