"""Agents that continue after a message, although they were merged: their later work can be merged too."""

from pathlib import Path

import pytest
from support.branches import commit
from support.harness import Lead, git
from support.merges import check_sound, ids_of


async def run_and_merge(lead: Lead, task: str, **how: str) -> str:
    """Run an agent with this task, and merge it. Return its id."""
    (agent,) = await lead.run(task)
    assert ids_of(await lead.call("merge_worktree", ids=[agent], **how), "merged") == [agent]
    return agent


async def send(lead: Lead, agent: str, text: str) -> None:
    await lead.call("message_agent", id=agent, text=text)
    await lead.results(agent)


@pytest.mark.parametrize("then", ["squash", "merge"])
async def test_work_after_a_squash_can_be_merged(near_lead: Lead, repository: Path, then: str) -> None:
    agent = await run_and_merge(near_lead, "echo first > x.txt", strategy="squash")
    await send(near_lead, agent, "echo second > x.txt")
    answer = await near_lead.call("merge_worktree", ids=[agent], strategy=then)
    assert [[*one] for one in answer["merged"]] == [["id", "commit"]]
    assert (repository / "x.txt").read_text() == "second\n"
    check_sound(repository)


@pytest.mark.parametrize("how", ["by hand", "undone", "reverted"])
async def test_a_squash_that_was_undone_is_merged_again_completely(near_lead: Lead, repository: Path, how: str) -> None:
    agent = await run_and_merge(near_lead, "echo first > x.txt", strategy="squash")
    if how == "by hand":
        git(repository, "reset", "-q", "--hard", "HEAD^")
    else:
        if how == "reverted":
            commit(repository, {"person": "x\n"})
        await near_lead.call("undo_merge")
    await send(near_lead, agent, "echo second > y.txt")
    await near_lead.call("merge_worktree", ids=[agent], strategy="squash")
    assert (repository / "x.txt").exists()
    assert (repository / "y.txt").exists()


async def test_a_message_is_refused_while_the_agents_merge_is_reverted(near_lead: Lead, repository: Path) -> None:
    agent = await run_and_merge(near_lead, "echo first > x.txt")
    commit(repository, {"person": "x\n"})
    revert = (await near_lead.call("undo_merge"))["commit"]
    words = await near_lead.refusal("message_agent", id=agent, text="true")
    assert f"git revert {revert[:10]}" in words
    git(repository, "revert", "--no-edit", revert)
    await send(near_lead, agent, "echo second > y.txt")
    await near_lead.call("merge_worktree", ids=[agent])
    assert (repository / "x.txt").exists()
    assert (repository / "y.txt").exists()


async def test_a_merged_agent_that_adds_nothing_stays_merged(near_lead: Lead) -> None:
    agent = await run_and_merge(near_lead, "echo first > x.txt")
    await send(near_lead, agent, "true")
    assert (await near_lead.listed(agent))["merge"] == "merged"
    await send(near_lead, agent, "echo second > x.txt")
    assert (await near_lead.listed(agent))["merge"] == "unmerged"
    await send(near_lead, agent, "true")
    assert (await near_lead.listed(agent))["merge"] == "unmerged"
