"""What has landed, and was told to go on: what it adds lands, once, in whatever way the rest did."""

from pathlib import Path

import pytest
from support.branches import commit
from support.harness import Lead, git
from support.merges import check_sound, ids_of


async def merged(lead: Lead, task: str, **how: str) -> str:
    """The id of an agent that did this, and was merged."""
    (agent,) = await lead.run(task)
    assert ids_of(await lead.call("merge_worktree", ids=[agent], **how), "merged") == [agent]
    return agent


async def go_on(lead: Lead, agent: str, text: str) -> None:
    await lead.call("message_agent", id=agent, text=text)
    await lead.results(agent)


@pytest.mark.parametrize("then", ["squash", "merge"])
async def test_what_was_squashed_and_goes_on_lands_again(near_lead: Lead, repository: Path, then: str) -> None:
    agent = await merged(near_lead, "echo first > x.txt", strategy="squash")
    await go_on(near_lead, agent, "echo second > x.txt")
    answer = await near_lead.call("merge_worktree", ids=[agent], strategy=then)
    assert [[*one] for one in answer["merged"]] == [["id", "commit"]]
    assert (repository / "x.txt").read_text() == "second\n"
    check_sound(repository)


@pytest.mark.parametrize("how", ["by hand", "undone", "reverted"])
async def test_what_was_squashed_and_undone_lands_whole(near_lead: Lead, repository: Path, how: str) -> None:
    agent = await merged(near_lead, "echo first > x.txt", strategy="squash")
    if how == "by hand":
        git(repository, "reset", "-q", "--hard", "HEAD^")
    else:
        if how == "reverted":
            commit(repository, {"person": "x\n"})
        await near_lead.call("undo_merge")
    await go_on(near_lead, agent, "echo second > y.txt")
    await near_lead.call("merge_worktree", ids=[agent], strategy="squash")
    assert (repository / "x.txt").exists()
    assert (repository / "y.txt").exists()


async def test_one_whose_merge_was_reverted_is_told_nothing_until_that_is_taken_back(
    near_lead: Lead, repository: Path
) -> None:
    agent = await merged(near_lead, "echo first > x.txt")
    commit(repository, {"person": "x\n"})
    revert = (await near_lead.call("undo_merge"))["commit"]
    words = await near_lead.refusal("message_agent", id=agent, text="true")
    assert f"git revert {revert[:10]}" in words
    git(repository, "revert", "--no-edit", revert)
    await go_on(near_lead, agent, "echo second > y.txt")
    await near_lead.call("merge_worktree", ids=[agent])
    assert (repository / "x.txt").exists()
    assert (repository / "y.txt").exists()


async def test_what_is_merged_and_adds_nothing_stays_merged(near_lead: Lead) -> None:
    agent = await merged(near_lead, "echo first > x.txt")
    await go_on(near_lead, agent, "true")
    assert (await near_lead.listed(agent))["merge"] == "merged"
    await go_on(near_lead, agent, "echo second > x.txt")
    assert (await near_lead.listed(agent))["merge"] == "unmerged"
    await go_on(near_lead, agent, "true")
    assert (await near_lead.listed(agent))["merge"] == "unmerged"
