"""The records of agents that agents have spawned."""

from dataclasses import replace

import pytest
from forkjoin.core.agent_spec import Nesting, Spec
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent, Merge, State
from forkjoin.core.result import Result
from forkjoin.store.rows import About, Asked, Cost, NewAgent, Restored
from forkjoin.store.store import Store
from support.records import NOBODY, new_agent, place


def granting(new: NewAgent, **nesting: float) -> NewAgent:
    return replace(new, spec=Spec(task="a task", nesting=Nesting.model_validate({"agents": 3, **nesting})))


def below(parent: Agent, name: str) -> NewAgent:
    return granting(replace(new_agent(name), lead=parent.as_lead, parent=parent.number, above=parent.leads))


async def tree(store: Store) -> tuple[Agent, Agent, Agent]:
    (first,) = await store.lifecycle.spawn([granting(new_agent("first"), budget_usd=2)], place, NOBODY)
    (second,) = await store.lifecycle.spawn([below(first, "second")], place, NOBODY)
    (third,) = await store.lifecycle.spawn([below(second, "third")], place, NOBODY)
    return first, second, third


async def test_spending_counts_for_all_leads_above_and_is_limited_by_grants(store: Store) -> None:
    *_, third = await tree(store)
    assert third.leads == ("agent:a2", "agent:a1", "lead")
    await store.events.add(third, [], costs=[Cost("part", "model", 0.5)])
    budgets = {one.lead: (one.limit_usd, one.spent_usd) for one in await store.budgets.of_live_agents()}
    assert budgets == {
        "": (None, 0.5),
        "agent:a1": (2, 0.5),
        "agent:a2": (None, 0.5),
        "lead": (None, 0.5),
    }
    await store.retention.delete_agent(3)
    await store.retention.delete_agent(2)
    await store.retention.prune(0, [])
    assert {one.lead for one in await store.budgets.of_project(1)} == {"", "agent:a1", "lead"}
    await store.retention.delete_agent(1)
    await store.retention.prune(0, [])
    assert [one.lead for one in await store.budgets.of_project(1)] == [""]


async def test_deleted_agents_still_count_as_spawned_for_all_ancestors(store: Store) -> None:
    first, second, _ = await tree(store)
    assert [(await store.agents.get(number)).lineage.spawned for number in (1, 2, 3)] == [2, 1, 0]
    await store.retention.delete_agent(3)
    await store.lifecycle.spawn([below(second, "fourth")], place, NOBODY)
    with pytest.raises(CallerError, match=r"a1 \(first\) was granted 3 .* 0 are left, and 1 were asked for"):
        await store.lifecycle.spawn([below(second, "fifth")], place, NOBODY)
    assert [(await store.agents.get(number)).lineage.spawned for number in (1, 2)] == [3, 2], "all or none"
    with pytest.raises(CallerError, match="0 are left, and 2 were asked for"):
        await store.lifecycle.spawn([below(first, "sixth"), below(first, "seventh")], place, NOBODY)


async def test_the_end_of_an_agent_stops_its_descendants(store: Store) -> None:
    first, *_ = await tree(store)
    for state in (State.PREPARING, State.RUNNING, State.FINISHING):
        first = await store.lifecycle.move(first, state)
    second = await store.lifecycle.move(await store.agents.get(2), State.PREPARING)
    await store.lifecycle.finish(first, Result(1, State.SUCCEEDED, "", ""), Merge.NOTHING)
    assert (await store.agents.get(second.number)).stop_asked
    assert (await store.agents.get(3)).state is State.STOPPED
    with pytest.raises(CallerError, match="has ended or is being stopped"):
        await store.lifecycle.spawn([below(first, "late")], place, NOBODY)


async def test_stopping_an_agent_and_its_descendant_stops_each_agent_once(store: Store) -> None:
    first, _, third = await tree(store)
    assert [agent.number for agent in await store.lifecycle.ask_stop([first, third])] == [1, 3, 2]
    assert {(await store.agents.get(number)).state for number in (1, 2, 3)} == {State.STOPPED}


async def test_restored_agents_keep_their_grants_and_counts(store: Store) -> None:
    spec = {"task": "a task", "nesting": {"agents": 3, "budget_usd": 2}}
    about = {"project": "/repository/.git", "base": "0", "branch": "b", "worktree": "/w", "lead": "lead", "spec": spec}
    child = {**about, "name": "second", "parent": 1, "lead": "agent:a1", "above": ["lead"]}
    grandchild = {**about, "name": "third", "parent": 2, "lead": "agent:a2", "above": ["agent:a1", "lead"]}
    found = [About.model_validate(one) for one in ({**about, "name": "first"}, child, grandchild)]
    await store.restored_agents.add([Restored(n, 1, one, Asked(), removed=False) for n, one in enumerate(found, 1)], 3)
    assert [(await store.agents.get(number)).lineage.spawned for number in (1, 2, 3)] == [2, 1, 0]
    assert ("agent:a1", 2) in {(one.lead, one.limit_usd) for one in await store.budgets.of_live_agents()}
