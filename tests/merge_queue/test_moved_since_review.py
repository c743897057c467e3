"""Branches that moved after their agent's end: they are skipped, unless the call names the new commit."""

from pathlib import Path

import pytest
from support.branches import commit, contents
from support.harness import Lead, git
from support.merges import ids_of

MOVE = "git update-ref refs/heads/forkjoin/a1-echo-one"


def add(repository: Path, branch: str, name: str) -> str:
    """Add a file to a branch, as another agent or a person does. Return the commit."""
    work = repository.parent / "by-hand"
    git(repository, "worktree", "add", "-q", "--detach", str(work), branch)
    made = commit(work, {name: "x\n"})
    git(repository, "worktree", "remove", "--force", str(work))
    git(repository, "update-ref", f"refs/heads/{branch}", made)
    return made


async def test_a_branch_that_another_agent_moved_after_the_end_is_skipped(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo > one")
    reviewed = git(repository, "rev-parse", "forkjoin/a1-echo-one")
    moves = "git switch -q --detach forkjoin/a1-echo-one; echo > evil; git add evil; git commit -qm evil"
    await quick_lead.run(f"{moves}; {MOVE} HEAD; git switch -q $FORKJOIN_BRANCH")
    moved = git(repository, "rev-parse", "forkjoin/a1-echo-one")
    answer = await quick_lead.call("merge_worktree", ids=["a1"])
    assert answer["merged"] == []
    (skipped,) = answer["skipped"]
    assert f"its branch moved from {reviewed[:12]} to {moved[:12]} since its end" in skipped["why"]
    assert f"a1@{moved[:12]}" in skipped["why"]
    assert "evil" not in contents(repository)
    assert (await quick_lead.call("get_result", id="a1"))["merge"] == "unmerged"


async def test_read_diff_shows_the_reviewed_commit_and_says_that_the_branch_has_moved(
    quick_lead: Lead, repository: Path
) -> None:
    await quick_lead.run("echo > one")
    assert not any("moved" in one for one in (await quick_lead.call("get_result", id="a1"))["warnings"])
    moved = add(repository, "forkjoin/a1-echo-one", "two")
    diff = await quick_lead.call("read_diff", id="a1")
    assert f"a1@{moved[:12]} names the branch as it is now" in diff.splitlines()[0]
    assert "+++ b/two" not in diff
    assert "+++ b/two" in await quick_lead.call("read_diff", id=f"a1@{moved[:7]}")
    assert f"a1@{moved[:12]}" in (await quick_lead.call("get_result", id="a1"))["warnings"][0]


async def test_a_moved_branch_is_merged_if_the_call_names_its_commit(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo > one", verify="true")
    moved = add(repository, "forkjoin/a1-echo-one", "two")
    answer = await quick_lead.call("merge_worktree", ids=[f"a1@{moved[:7]}"])
    assert ids_of(answer, "merged") == ["a1"]
    assert {"one", "two"} <= contents(repository).keys()
    result = await quick_lead.call("get_result", id="a1")
    assert (result["files_changed"], result["verify"], result["merge"]) == (2, "none", "merged")
    assert any("Its branch moved after its end" in one for one in result["warnings"])


@pytest.mark.parametrize("named", ["a1@{old}", "a1@{new:.6}", "a1@", "a1@HEAD"])
async def test_a_call_that_names_another_commit_than_the_branchs_is_refused(
    quick_lead: Lead, repository: Path, named: str
) -> None:
    await quick_lead.run("echo > one")
    old = git(repository, "rev-parse", "forkjoin/a1-echo-one")
    new = add(repository, "forkjoin/a1-echo-one", "two")
    refused = await quick_lead.refusal("merge_worktree", ids=[named.format(old=old, new=new)])
    assert f"is at {new[:12]}, not at that commit" in refused
    assert "one" not in contents(repository)


async def test_a_branch_that_was_reset_to_its_base_counts_as_moved(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo > one")
    git(repository, "update-ref", "refs/heads/forkjoin/a1-echo-one", "main")
    (skipped,) = (await quick_lead.call("merge_worktree", ids=["a1"]))["skipped"]
    assert "its branch moved" in skipped["why"]
    assert (await quick_lead.call("get_result", id="a1"))["merge"] == "unmerged"


async def test_a_moved_branch_that_a_person_merged_counts_as_merged_before(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo > one")
    add(repository, "forkjoin/a1-echo-one", "two")
    git(repository, "merge", "-q", "forkjoin/a1-echo-one")
    answer = await quick_lead.call("merge_worktree", ids=["a1"])
    assert answer["skipped"] == [{"id": "a1", "why": "merged before"}]


async def test_work_that_forkjoin_merged_into_an_ended_agents_branch_is_merged_with_it(
    quick_lead: Lead, repository: Path
) -> None:
    ids = await quick_lead.run("echo > one", "echo > two")
    into = (await quick_lead.call("get_result", id="a1"))["branch"]
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a2"], into=into), "merged") == ["a2"]
    assert ids_of(await quick_lead.call("merge_worktree", ids=ids[:1]), "merged") == ["a1"]
    assert {"one", "two"} <= contents(repository).keys()


async def test_an_agent_starts_from_the_reviewed_commit_of_its_dependency(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo > one")
    add(repository, "forkjoin/a1-echo-one", "evil")
    await quick_lead.run("ls > listed", base="a1")
    await quick_lead.run("ls > listed", after=["a1"])
    for agent in ("a2", "a3"):
        diff = await quick_lead.call("read_diff", id=agent)
        assert "+one" in diff
        assert "evil" not in diff


async def test_the_conflict_preview_compares_reviewed_commits(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo > one", "echo x > two")
    add(repository, "forkjoin/a1-echo-one", "two")
    assert (await quick_lead.call("check_conflicts", ids=["a1", "a2"]))["conflicts"] == []
