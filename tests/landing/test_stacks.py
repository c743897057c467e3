"""A stack, of agents each of which started from the one before it, lands from the ground up."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
from branches import contents
from harness import GIVE_UP_S, Lead, git
from landings import check_sound, ids_of


async def stack(lead: Lead, *tasks: str) -> list[str]:
    """Agents of one call, each with the one before it as base; their ids, once all have ended."""
    agents = [{"name": f"s{n}", "task": task, **({"base": f"s{n - 1}"} if n else {})} for n, task in enumerate(tasks)]
    ids = [one["id"] for one in (await lead.call("spawn_agents", agents=agents))["agents"]]
    assert not (await lead.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S))["timed_out"]
    return ids


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("strategy", ["merge", "squash"])
async def test_it_lands_in_one_call_in_whatever_order_it_is_named(
    near_lead: Lead, repository: Path, strategy: Literal["merge", "squash"], order: Sequence[int]
) -> None:
    ids = await stack(near_lead, "echo 1 > new", "echo 2 > new", "echo 3 > new")
    answer = await near_lead.call("merge_worktree", ids=[ids[n] for n in order], strategy=strategy)
    assert (ids_of(answer, "merged"), answer["skipped"]) == (ids, [])
    assert contents(repository)["new"] == b"3\n"
    if strategy == "squash":
        assert git(repository, "rev-list", "--count", "main") == "4"
    check_sound(repository)


async def test_its_top_alone_is_skipped_naming_what_is_missing(near_lead: Lead, repository: Path) -> None:
    first, second, third = await stack(near_lead, "echo > one", "echo > two", "echo > three")
    answer = await near_lead.call("merge_worktree", ids=[third])
    assert answer["skipped"] == [
        {"id": third, "why": f"it has the work of {second} (s1), which is not merged: name that one too"}
    ]
    answer = await near_lead.call("merge_worktree", ids=[second, third])
    assert answer["skipped"][0] == {
        "id": second,
        "why": f"it has the work of {first} (s0), which is not merged: name that one too",
    }
    assert answer["merged"] == []
    await near_lead.call("merge_worktree", ids=[first])
    assert ids_of(await near_lead.call("merge_worktree", ids=[third, second]), "merged") == [second, third]


@pytest.mark.parametrize("strategy", ["merge", "squash"])
async def test_where_its_ground_is_rejected_the_others_are_skipped(near_lead: Lead, strategy: str) -> None:
    first, second, third = await stack(near_lead, "echo > bad", "echo > two", "echo > three")
    ids = [third, second, first]
    answer = await near_lead.call("merge_worktree", ids=ids, verify="test ! -e bad", strategy=strategy)
    assert (answer["merged"], ids_of(answer, "rejected")) == ([], [first])
    assert sorted(one["id"] for one in answer["skipped"]) == [second, third]


async def test_one_that_changed_nothing_does_not_hide_what_it_stands_on(near_lead: Lead) -> None:
    first, _, third = await stack(near_lead, "echo > one", "true", "echo > three")
    answer = await near_lead.call("merge_worktree", ids=[third])
    assert answer["skipped"][0]["why"].startswith(f"it has the work of {first} (s0), which is not merged")
    assert ids_of(await near_lead.call("merge_worktree", ids=[first, third]), "merged") == [first, third]
