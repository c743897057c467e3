"""Invalid calls get an error that says how to correct them, and change nothing."""

import os
from pathlib import Path
from typing import Any

import pytest
from forkjoin.core.paths import Home
from support.harness import Lead, forkjoin, git, open_lead, open_lead_in_memory

#: Arguments of spawn_agent, and a part of the error message.
BAD_SPECS: list[tuple[dict[str, Any], str]] = [
    ({}, "task: missing"),
    ({"task": ""}, "must not be empty"),
    ({"task": " \n "}, "must not be empty"),
    ({"task": "a\0b"}, "NUL"),
    ({"task": 5}, "task: input should be a valid string"),
    ({"task": "x", "tasks": "y"}, "tasks: unknown argument"),
    ({"task": "x", "name": ""}, "a name is 1 to 64"),
    ({"task": "x", "name": "a/b"}, "'a-b' would be valid"),
    ({"task": "x", "name": "../../x"}, "a name is 1 to 64"),
    ({"task": "x", "name": "two\nlines"}, "'two-lines' would be valid"),
    ({"task": "x", "name": "n" * 10_000}, "a name is 1 to 64"),
    ({"task": "x", "name": "a1"}, "not like an id"),
    ({"task": "x", "name": "-b"}, "'b' would be valid"),
    ({"task": "x", "name": "\u202eevil"}, "a name is 1 to 64"),
    ({"task": "x", "agent": "nobody"}, "No agent program 'nobody'. Known programs: claude, sh"),
    ({"task": "x", "base": "no-such"}, "base 'no-such' names no commit"),
    ({"task": "x", "base": "--upload-pack=touch X"}, "names no commit"),
    ({"task": "x", "base": "main:README.md"}, "names no commit"),
    ({"task": "x", "base": "@{-1}"}, "names no commit"),
    ({"task": "x", "priority": 1001}, "less than or equal to 1000"),
    ({"task": "x", "timeout_minutes": 0}, "greater than 0"),
    ({"task": "x", "judge": ""}, "must not be empty"),
]

#: A tool, its arguments, and a part of the error message.
BAD_CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("spawn_agents", {"agents": []}, "agents: list should have at least 1 item"),
    ("spawn_agents", {"agents": [{"task": "x"}, {"task": ""}]}, "agents.1.task: must not be empty"),
    ("spawn_agents", {"agents": [{"tsk": "x"}]}, "An agent takes: agent, model, base"),
    ("spawn_agents", {"agents": [{"task": "x"}], "names": ["y"]}, "spawn_agents takes: agent, model, base"),
    ("spawn_agents", {"agents": [{"name": "lonely"}]}, "agents.0.task: missing"),
    ("spawn_agents", {"agents": [{"task": "x", "name": "n"}, {"task": "y", "name": "n"}]}, "'n' is used twice"),
    ("get_result", {"id": "a99"}, "No agent 'a99' in this project. This project has no agents yet."),
    ("get_result", {}, "id: missing"),
    ("wait_agents", {"ids": ["nobody"]}, "No agent 'nobody'"),
    ("wait_agents", {"until": "some"}, "until: input should be 'all' or 'any'"),
    ("wait_agents", {"ids": []}, "ids is empty"),
    ("list_agents", {"cursor": "x"}, "cursor 'x' is not one that list_agents returned"),
    ("list_agents", {"state": ["sleeping"]}, "state.0"),
    ("read_log", {"id": "a1", "offset": -1}, "offset"),
    ("read_diff", {"id": "../../etc/passwd"}, "No agent"),
    ("stop_agents", {"ids": ["a7"]}, "No agent 'a7'"),
    ("merge_worktree", {"ids": ["a7"]}, "No agent 'a7'"),
    ("remove_worktrees", {"ids": ["a7"], "force": True}, "force: unknown argument"),
    ("get_status", {"verbose": True}, "get_status takes: no arguments"),
]


def _refs(repository: Path) -> str:
    return git(repository, "for-each-ref") + git(repository, "worktree", "list")


async def test_a_bad_spec_is_refused_and_nothing_is_changed(
    near_lead: Lead, repository: Path, home: Home, subtests: pytest.Subtests
) -> None:
    before = _refs(repository)
    for arguments, says in BAD_SPECS:
        with subtests.test(arguments=str(arguments)[:40]):
            assert says in await near_lead.refusal("spawn_agent", **arguments)
            assert (await near_lead.call("list_agents"))["agents"] == []
            assert _refs(repository) == before
            assert list(home.attempts.iterdir()) == []


async def test_a_bad_call_is_refused_and_nothing_is_changed(
    any_lead: Lead, repository: Path, subtests: pytest.Subtests
) -> None:
    before = _refs(repository)
    for tool, arguments, says in BAD_CALLS:
        with subtests.test(tool, arguments=str(arguments)[:40]):
            assert says in await any_lead.refusal(tool, **arguments)
            assert (await any_lead.call("list_agents"))["agents"] == []
            assert _refs(repository) == before


async def test_a_name_that_is_taken_is_refused_naming_its_holder(near_lead: Lead) -> None:
    await near_lead.call("spawn_agent", task="true", name="taken")
    assert "taken by a1" in await near_lead.refusal("spawn_agent", task="true", name="taken")


async def test_a_result_that_is_not_there_yet_says_to_wait(near_lead: Lead) -> None:
    (first,) = await near_lead.spawn("sleep 1000")
    assert "Call wait_agents first" in await near_lead.refusal("get_result", id=first)
    await near_lead.call("stop_agents", ids=[first])


async def test_an_agent_with_unmerged_work_is_not_removed_unasked(near_lead: Lead, repository: Path) -> None:
    (first,) = await near_lead.run("echo work > work.txt")
    assert "Unmerged work: a1" in await near_lead.refusal("remove_worktrees", ids=[first])
    assert git(repository, "for-each-ref", "refs/heads/forkjoin") != ""


async def test_an_agent_at_work_is_not_removed(near_lead: Lead) -> None:
    (first,) = await near_lead.spawn("sleep 1000")
    assert "Call stop_agents first" in await near_lead.refusal("remove_worktrees", ids=[first], discard_unmerged=True)
    await near_lead.call("stop_agents", ids=[first])


async def test_a_folder_outside_of_repositories_is_refused(tmp_path: Path, home: Home) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    async with open_lead(folder) as lead:
        assert "is not in a git repository" in await lead.refusal("spawn_agent", task="true")
        assert (await lead.call("get_status"))["queued"] == 0


async def test_a_repository_without_a_commit_is_refused(tmp_path: Path, home: Home) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    git(folder, "init", "-q")
    async with open_lead(folder) as lead:
        assert "has no commit, so agents have nothing to start from" in await lead.refusal("spawn_agent", task="true")


async def test_a_home_within_the_checkout_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKJOIN_HOME", str(repository / "inside"))
    async with open_lead(repository) as lead:
        assert "is in this checkout" in await lead.refusal("spawn_agent", task="true", agent="claude")
    forkjoin(repository, "daemon", "stop")


async def test_a_repository_whose_path_is_not_utf8_is_refused(tmp_path: Path, user: Path, home: Home) -> None:
    where = tmp_path / os.fsdecode(b"caf\xe9")
    where.mkdir()
    git(where, "init", "-q")
    git(where, "commit", "-q", "--allow-empty", "-m", "first")
    async with open_lead_in_memory(home, where) as lead:
        assert "caf\\xe9/.git has bytes in its path that are not valid UTF-8" in await lead.refusal(
            "spawn_agent", task="true"
        )
