"""Budgets of nested agents, which come out of their parent's grant."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.harness import GIVE_UP_S, Lead, lead_of, open_reconciler_in_memory, program_of
from support.nested_agents import TALK, WAITS, begin


async def test_the_budget_of_nested_agents_comes_out_of_their_parents_budget(
    in_process_reconciler: Reconciler, near_lead: Lead
) -> None:
    assert "must be smaller" in await near_lead.refusal(
        "spawn_agent", task="true", agent="claude", budget_usd=4, nesting={"agents": 3, "budget_usd": 4}
    )
    parent = await begin(near_lead, agents=5, budget_usd=3)
    async with program_of(in_process_reconciler, parent) as program:
        refused = await program.refusal("spawn_agents", agents=[{"task": "x", "budget_usd": 2}] * 2)
    assert "was granted 3.00 USD for its agents: 3.00 USD are left, and 4.00 USD were asked for" in refused


async def test_a_budget_that_the_lead_sets_includes_the_nested_agents(
    talkers: None, in_process_reconciler: Reconciler, near_lead: Lead
) -> None:
    (parent,) = await near_lead.spawn(TALK, agent="talker", budget_usd=3, nesting={"agents": 3, "budget_usd": 1})
    await near_lead.until(parent, state="running")
    assert "was granted 1.00 USD for its own agents" in await near_lead.refusal("set_budget", id=parent, budget_usd=1)
    async with program_of(in_process_reconciler, parent) as program:
        await program.run("succeed('done', 0.25)", agent="talker")
    funded = await near_lead.call("set_budget", id=parent, budget_usd=5)
    spent = (await in_process_reconciler.store.agents.get(1)).money.spent_usd
    assert (funded["budget_usd"], funded["spent_usd"]) == (5, pytest.approx(spent + 0.25))
    assert (await in_process_reconciler.store.agents.get(1)).money.budget_usd == 4


async def test_nested_agents_have_no_default_budget(talkers: None, home: Home, repository: Path) -> None:
    home.config_file.write_text(f"{home.config_file.read_text()}\n[budget]\nagent_usd = 2\n")
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (parent,) = await lead.spawn(TALK, agent="talker", nesting={"agents": 3})
        await lead.until(parent, state="running")
        async with program_of(reconciler, parent) as program:
            results = await program.run("succeed('done', 0.25)", "succeed('done', 0.25)", agent="talker")
        budgets = [(await reconciler.store.agents.get(number)).money.budget_usd for number in (1, 2, 3)]
        await lead.call("stop_agents", ids=[parent])
    assert (len(results), budgets) == (2, [1, None, None])


async def test_a_command_that_may_spawn_has_no_default_budget(home: Home, repository: Path) -> None:
    home.config_file.write_text(f"{home.config_file.read_text()}\n[budget]\nagent_usd = 2\n")
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.run("true", "true", nesting={"agents": 3, "budget_usd": 5})
        assert {budget.lead: budget.limit_usd for budget in await reconciler.store.budgets.of_project(1)} == {
            "agent:a1": 5,
            "agent:a2": 5,
        }


async def test_the_budget_of_a_command_is_for_its_nested_agents(
    talkers: None, in_process_reconciler: Reconciler, near_lead: Lead
) -> None:
    assert "must be smaller" in await near_lead.refusal(
        "spawn_agent", task="true", budget_usd=4, nesting={"agents": 3, "budget_usd": 5}
    )
    answer = await near_lead.call("spawn_agent", task=WAITS, name="parent", budget_usd=3, nesting={"agents": 3})
    assert "note" not in answer
    await near_lead.until("parent", state="running")
    async with program_of(in_process_reconciler, "a1") as program:
        refused = await program.refusal("spawn_agent", task=TALK, agent="talker", budget_usd=4)
    assert "was granted 3.00 USD for its agents: 3.00 USD are left, and 4.00 USD were asked for" in refused


async def test_a_nested_grant_is_reserved_once(
    talkers: None, in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    parent = await begin(near_lead, agents=5, depth=3, budget_usd=3)
    async with program_of(in_process_reconciler, parent) as program:
        nesting = {"agents": 2, "budget_usd": 1}
        (child,) = await program.spawn(TALK, agent="talker", budget_usd=2, nesting=nesting)
        await near_lead.until(child, state="running")
        async with program_of(in_process_reconciler, child) as below:
            await below.spawn(TALK, agent="talker", budget_usd=1)
        refused = await program.refusal("spawn_agent", task=TALK, agent="talker", budget_usd=1.5)
        assert ": 1.00 USD are left, and 1.50 USD were asked for" in refused
    answer = (await near_lead.call("get_status"))["budgets"]
    assert f"{repository}/.git, lead agent:a1: 0 USD of 3.00 USD spent, 2.00 USD reserved" in answer


async def test_a_parent_whose_nested_agent_spent_its_budget_gets_advice(
    talkers: None, in_process_reconciler: Reconciler, near_lead: Lead
) -> None:
    parent = await begin(near_lead, agents=5)
    async with program_of(in_process_reconciler, parent) as program:
        (child,) = await program.spawn("spend(0.4)\nhear()", agent="talker", budget_usd=0.3)
        await near_lead.last_event(child, "is used up")
        waited = await program.call("wait_agents", ids=[child])
    assert (waited["timed_out"], [agent["id"] for agent in waited["pending"]]) == (False, [child])
    assert f"{child}: waiting won't help, and you can't raise" in waited["waiting"][-1]


async def test_a_parent_whose_grant_is_spent_gets_advice_and_a_person_the_command_to_raise_it(
    talkers: None, in_process_reconciler: Reconciler, near_lead: Lead
) -> None:
    parent = await begin(near_lead, agents=5, budget_usd=0.4)
    async with program_of(in_process_reconciler, parent) as program:
        await program.run("succeed('done', 0.35)", agent="talker")
        (other,) = await program.spawn(TALK, agent="talker")
        why = await near_lead.last_event(other, "has 0.05 USD left, and it needs 0.1 USD")
        assert why.endswith("a person raises it with: forkjoin budget --lead agent:a1")
        waited = await program.call("wait_agents", timeout_s=GIVE_UP_S)
        assert (waited["timed_out"], [agent["id"] for agent in waited["pending"]]) == (False, [other])
        assert f"{other}: waiting won't help, and you can't raise" in waited["waiting"][-1]
