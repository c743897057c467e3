"""Stacked agents, each based on the agent before it: they are merged in the order of the stack."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from support.branches import contents
from support.dependent_agents import fork
from support.harness import GIVE_UP_S, Lead, git
from support.merges import check_sound, ids_of


async def stack(lead: Lead, *tasks: str) -> list[str]:
    """Spawn a stack of agents in one call. Return their ids after all have ended."""
    agents = [{"name": f"s{n}", "task": task, **({"base": f"s{n - 1}"} if n else {})} for n, task in enumerate(tasks)]
    ids = [one["id"] for one in (await lead.call("spawn_agents", agents=agents))["agents"]]
    assert not (await lead.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S))["timed_out"]
    return ids


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("strategy", ["merge", "squash"])
async def test_a_stack_is_merged_in_its_order_no_matter_how_it_is_named(
    quick_lead: Lead, repository: Path, strategy: Literal["merge", "squash"], order: Sequence[int]
) -> None:
    ids = await stack(quick_lead, "echo 1 > new", "echo 2 > new", "echo 3 > new")
    answer = await quick_lead.call("merge_worktree", ids=[ids[n] for n in order], strategy=strategy)
    assert (ids_of(answer, "merged"), answer["skipped"]) == (ids, [])
    assert contents(repository)["new"] == b"3\n"
    if strategy == "squash":
        assert git(repository, "rev-list", "--count", "main") == "4"
    check_sound(repository)


async def test_the_top_of_a_stack_alone_is_skipped_and_the_missing_agent_is_named(
    quick_lead: Lead, repository: Path
) -> None:
    first, second, third = await stack(quick_lead, "echo > one", "echo > two", "echo > three")
    answer = await quick_lead.call("merge_worktree", ids=[third])
    assert answer["skipped"] == [
        {"id": third, "why": f"it has the work of {second} (s1), which is not in main: name that agent too"}
    ]
    answer = await quick_lead.call("merge_worktree", ids=[second, third])
    assert answer["skipped"][0] == {
        "id": second,
        "why": f"it has the work of {first} (s0), which is not in main: name that agent too",
    }
    assert answer["merged"] == []
    await quick_lead.call("merge_worktree", ids=[first])
    assert ids_of(await quick_lead.call("merge_worktree", ids=[third, second]), "merged") == [second, third]


@pytest.mark.parametrize("strategy", ["merge", "squash"])
async def test_agents_are_skipped_when_their_base_agent_is_rejected(quick_lead: Lead, strategy: str) -> None:
    first, second, third = await stack(quick_lead, "echo > bad", "echo > two", "echo > three")
    ids = [third, second, first]
    answer = await quick_lead.call("merge_worktree", ids=ids, verify="test ! -e bad", strategy=strategy)
    assert (answer["merged"], ids_of(answer, "rejected")) == ([], [first])
    assert sorted(one["id"] for one in answer["skipped"]) == [second, third]


async def test_an_agent_without_commits_does_not_hide_its_base_agent(quick_lead: Lead) -> None:
    first, _, third = await stack(quick_lead, "echo > one", "true", "echo > three")
    answer = await quick_lead.call("merge_worktree", ids=[third])
    assert answer["skipped"][0]["why"].startswith(f"it has the work of {first} (s0), which is not in main")
    assert ids_of(await quick_lead.call("merge_worktree", ids=[third, first]), "merged") == [first, third]


async def test_each_of_many_agents_without_commits_is_checked_once(quick_lead: Lead) -> None:
    width, layers = 3, 12
    agents: list[dict[str, Any]] = [{"name": "bottom", "task": "echo > bottom"}]
    names = ["bottom"]
    for layer in range(layers):
        following = [f"l{layer}-{n}" for n in range(width)]
        agents += [{"name": name, "task": "true", "after": names} for name in following]
        names = following
    agents.append({"name": "top", "task": "echo > top", "after": names})
    await fork(quick_lead, *agents)
    assert not (await quick_lead.call("wait_agents", ids=["top"], timeout_s=GIVE_UP_S))["timed_out"]
    with anyio.fail_after(GIVE_UP_S):  # there are 3 to the power of 12 paths to the bottom
        answer = await quick_lead.call("merge_worktree", ids=["top", "bottom"])
    assert [one["id"] for one in answer["merged"]] == ["a1", f"a{len(agents)}"]


@pytest.mark.parametrize("named", ["the winner", "another"])
async def test_either_of_two_candidates_at_the_same_commit_can_be_named_with_a_dependent_agent(
    quick_lead: Lead, named: str
) -> None:
    date = "export GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'"
    same = f"{date}; echo x > x; git add x; git -c user.name=x -c user.email=x@x commit -qm x"
    ids = await fork(quick_lead, {"name": "fix", "task": same, "candidates": 2})
    ids += await fork(quick_lead, {"name": "next", "task": "echo > y", "after": ["fix"]})
    assert not (await quick_lead.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S))["timed_out"]
    answer = await quick_lead.call("merge_worktree", ids=["next", "fix" if named == "the winner" else "fix-2"])
    assert ids_of(answer, "merged") == ["a1" if named == "the winner" else "a2", "a3"]


@pytest.mark.parametrize("how", ["elsewhere", "elsewhere squashed", "taken away by hand"])
async def test_the_top_is_skipped_if_its_base_agent_is_only_in_another_branch(
    quick_lead: Lead, repository: Path, how: str
) -> None:
    git(repository, "branch", "release")
    first, second = await stack(quick_lead, "echo > one", "echo > two")
    into = {"into": "release"} if how != "taken away by hand" else {}
    strategy = "squash" if "squashed" in how else "merge"
    assert ids_of(await quick_lead.call("merge_worktree", ids=[first], strategy=strategy, **into), "merged") == [first]
    git(repository, "reset", "-q", "--hard", "main" if into else "HEAD^")
    answer = await quick_lead.call("merge_worktree", ids=[second])
    why = f"it has the work of {first} (s0), which is not in main: name that agent too"
    assert (answer["merged"], answer["skipped"]) == ([], [{"id": second, "why": why}])
    assert ids_of(await quick_lead.call("merge_worktree", ids=[second, first]), "merged") == [first, second]
    assert {"one", "two"} <= contents(repository).keys()
    check_sound(repository)


async def test_the_top_brings_the_work_of_a_removed_base_agent(quick_lead: Lead, repository: Path) -> None:
    git(repository, "branch", "release")
    first, second = await stack(quick_lead, "echo > one", "echo > two")
    await quick_lead.call("merge_worktree", ids=[first], into="release")
    await quick_lead.call("remove_worktrees", ids=[first])
    assert ids_of(await quick_lead.call("merge_worktree", ids=[second]), "merged") == [second]
    assert {"one", "two"} <= contents(repository).keys()
