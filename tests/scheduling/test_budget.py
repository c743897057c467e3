"""Budgets: money is reserved before it is spent, and an agent that waits for money says so."""

from dataclasses import replace

import pytest
from forkjoin.core.model import Agent, Budget, PauseKind, State
from forkjoin.scheduling.budget import BudgetGate, format_usd, sum_reserved
from forkjoin.scheduling.gates import Hold
from forkjoin.scheduling.scheduler import SchedulerDecision, SchedulerInput, decide
from hypothesis import given
from hypothesis import strategies as st
from support.agent_records import change, make_agent

REPOSITORY = Budget(1, "", 1.0)
#: The amount that is reserved at a time for an agent without its own budget.
STEP = 0.5


def decide_with(*agents: Agent, budgets: tuple[Budget, ...] = (REPOSITORY,)) -> SchedulerDecision:
    return decide(SchedulerInput(agents, 100, budgets=budgets, step_usd=STEP))


def queued(number: int, budget_usd: float | None = 0.3, lead: str = "lead") -> Agent:
    return make_agent(number, budget_usd=budget_usd, lead=lead, account="claude")


def running(number: int, spent: float, given: float, budget_usd: float | None = None) -> Agent:
    return make_agent(
        number,
        state=State.RUNNING,
        account="claude",
        cost_usd=spent,
        reserved_usd=given,
        budget_usd=budget_usd,
    )


def test_three_agents_of_30_cents_start_with_a_budget_of_one_dollar_and_others_say_why_they_wait() -> None:
    agents = [queued(number, lead=lead) for lead in ("x", "y") for number in (1, 3, 5)]
    agents = [replace(agent, number=number) for number, agent in enumerate(agents, 1)]
    decision = decide_with(*agents)
    assert len(decision.start) == 3
    assert decision.reserve == dict.fromkeys(decision.start, 0.3)
    short = "the repository's budget of 1.00 USD has 0.1 USD left, and it needs 0.3 USD"
    assert set(decision.waiting.values()) == {f"{short}; a person raises it with: forkjoin budget"}


def test_the_budget_of_a_lead_limits_only_its_own_agents() -> None:
    decision = decide_with(
        queued(1, lead="x"), queued(2, lead="x"), queued(3, lead="y"), budgets=(Budget(1, "x", 0.5),)
    )
    assert decision.start == (1, 3)


def test_nested_agents_are_limited_by_the_budgets_of_their_parent_and_of_all_leads_above() -> None:
    nested = [change(queued(number, 0.3, lead="agent:a1"), above=("x",)) for number in (2, 3)]
    granted, above = Budget(1, "agent:a1", 0.5), Budget(1, "x", 0.2)
    assert decide_with(*nested, budgets=(granted,)).start == (2,)
    assert decide_with(*nested, budgets=(granted, above)).start == ()
    assert sum_reserved(above, [change(running(2, 0.1, 0.3), lead="agent:a1", above=("x",))], ()) == pytest.approx(0.2)


def parent(number: int, state: State = State.QUEUED, account: str = "claude") -> Agent:
    """Return an agent with a budget of 0.5 USD, and 0.5 USD for nested agents."""
    nesting = {"agents": 4, "budget_usd": 0.5}
    own = 0.5 if account else None
    given = 0.5 if account and state is State.RUNNING else 0
    return make_agent(number, state=state, account=account, budget_usd=own, reserved_usd=given, nesting=nesting)


GRANTS = (Budget(1, "agent:a1", 0.5), Budget(1, "agent:a2", 0.5))


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
def test_an_agent_starts_once_the_budget_also_covers_its_grant_to_nested_agents(state: State) -> None:
    decision = decide_with(parent(1, state), parent(2), budgets=(*GRANTS, Budget(1, "lead", 1.0)))
    assert 2 not in decision.start
    assert "budget of 1.00 USD has 0 USD left, and it needs 1.00 USD" in decision.waiting[2]
    richer = decide_with(parent(1, state), parent(2), budgets=(*GRANTS, Budget(1, "lead", 2.0)))
    assert 2 in richer.start


def test_a_grant_stays_reserved_for_nested_agents_when_other_agents_start() -> None:
    child = change(queued(3, 0.5, "agent:a1"), above=("lead",))
    live = [parent(1, State.RUNNING), queued(2, 0.1), child]
    lead = Budget(1, "lead", 1.0)
    assert decide_with(*live, budgets=(lead, *GRANTS)).start == (3,)
    begun = [live[0], change(running(3, 0.1, 0.3), lead="agent:a1", above=("lead",))]
    spent = (replace(lead, spent_usd=0.1), replace(GRANTS[0], spent_usd=0.1))
    assert [sum_reserved(budget, begun, spent) for budget in spent] == [pytest.approx(0.9), pytest.approx(0.2)]


def test_a_grant_reserves_no_more_than_the_budget_above_has_left() -> None:
    grant = replace(GRANTS[0], limit_usd=50.0)  # raised by a person
    child = change(queued(3, 20.0, "agent:a1"), above=("lead",))
    lead = Budget(1, "lead", 10.0)
    decision = decide_with(parent(1, State.RUNNING), child, budgets=(lead, grant))
    assert decision.start == ()
    assert "budget of 10.00 USD has 10.00 USD left, and it needs 20.00 USD" in decision.waiting[3]
    smaller = change(child, budget_usd=9.0)
    assert decide_with(parent(1, State.RUNNING), smaller, budgets=(lead, grant)).start == (3,)
    assert sum_reserved(lead, [parent(1, State.RUNNING)], (lead, grant)) == pytest.approx(10.5)


def test_the_reason_of_a_pause_mentions_the_grant_that_is_reserved_for_nested_agents() -> None:
    agent = change(parent(1, State.RUNNING), budget_usd=None, reserved_usd=0.5, cost_usd=0.5)
    (pause,) = decide_with(agent, budgets=(Budget(1, "lead", 1.0, 0.5), GRANTS[0])).pause.values()
    assert "in addition to the 0.5 USD held for its own agents" in pause.why


def test_only_the_grant_is_reserved_for_a_command() -> None:
    commands = [parent(number, account="") for number in (1, 2)]
    assert decide_with(*commands, budgets=(*GRANTS, Budget(1, "lead", 0.7))).start == (1,)


def test_an_unused_grant_is_free_after_the_end_and_needed_again_for_the_next_attempt() -> None:
    again = change(parent(1), started=0.0, attempt=2)
    lead, other = Budget(1, "lead", 1.0), queued(3, 0.6)
    assert decide_with(other, budgets=(lead, *GRANTS)).start == (3,)
    assert decide_with(again, running(3, 0, 0.6, 0.6), budgets=(lead, *GRANTS)).start == ()
    paused = change(again, state=State.PAUSED, not_before=1.0)
    assert decide_with(paused, other, budgets=(lead, *GRANTS)).start == ()


def test_a_nested_agent_does_not_start_from_a_grant_if_the_budget_above_is_used_up() -> None:
    child = change(queued(3, 0.3, "agent:a1"), above=("lead",))
    assert decide_with(parent(1, State.RUNNING), child, budgets=(Budget(1, "lead", 1.0, 1.0), *GRANTS)).start == ()


def test_money_that_an_agent_did_not_spend_is_free_after_its_end() -> None:
    spent = replace(REPOSITORY, spent_usd=0.25)
    assert decide_with(queued(1, 0.75), budgets=(spent,)).start == (1,)


def test_reserved_money_that_is_already_spent_is_not_counted_twice() -> None:
    spent = replace(REPOSITORY, spent_usd=0.5)
    assert decide_with(running(1, 0.5, 0.6), queued(2, 0.4), budgets=(spent,)).start == (2,)


def test_an_agent_without_a_budget_reserves_one_step_at_a_time() -> None:
    first = decide_with(queued(1, None))
    assert first.reserve == {1: 0.5}
    assert decide_with(running(1, 0.2, 0.5), budgets=(replace(REPOSITORY, spent_usd=0.2),)).reserve == {}
    assert decide_with(running(1, 0.46, 0.5), budgets=(replace(REPOSITORY, spent_usd=0.46),)).reserve == {1: 1.0}


def test_the_last_step_is_the_rest_of_the_budget() -> None:
    spent = replace(REPOSITORY, spent_usd=0.8)
    assert decide_with(queued(1, None), budgets=(spent,)).reserve == {1: pytest.approx(0.2)}


def test_without_any_limit_no_money_is_reserved_and_no_agent_waits() -> None:
    decision = decide_with(queued(1, None), running(2, 5, 0), budgets=(Budget(1, "", None, 5),))
    assert (decision.start, decision.reserve, decision.pause, decision.wind_up) == ((1,), {}, {}, ())


def test_a_command_needs_no_money() -> None:
    used_up = Budget(1, "", 1.0, 1.0)
    assert decide_with(make_agent(1), budgets=(used_up,)).start == (1,)


def test_an_agent_is_asked_once_to_wind_up_when_its_budget_is_nearly_spent() -> None:
    near = running(1, 0.27, 0.3, 0.3)
    assert decide_with(near).wind_up == (1,)
    assert decide_with(change(near, wind_up=True)).wind_up == ()
    assert decide_with(running(1, 0.26, 0.3, 0.3)).wind_up == ()


def test_an_agent_that_has_spent_its_budget_is_ended_and_waits_until_the_budget_is_raised() -> None:
    decision = decide_with(running(1, 0.31, 0.3, 0.3), budgets=())
    assert decision.pause[1].kind is PauseKind.ENDING
    assert decision.pause[1].why == "its budget of 0.3 USD is used up; set_budget raises it"
    paused = replace(running(1, 0.31, 0.3, 0.3), state=State.PAUSED)
    assert decide_with(paused, budgets=()).waiting == {1: decision.pause[1].why}
    raised = decide_with(change(paused, budget_usd=0.5), budgets=())
    assert (raised.start, raised.reserve) == ((1,), {1: 0.5})


def test_an_agent_whose_program_is_still_ending_does_not_continue() -> None:
    ending = change(running(1, 0.31, 0.3, 0.5), state=State.PAUSED, kind=PauseKind.ENDING, details="no money")
    assert decide_with(ending).waiting == {1: "no money"}


def test_all_agents_pause_when_a_limit_is_lowered_below_the_spent_money() -> None:
    lowered = Budget(1, "", 0.4, 0.5)
    decision = decide_with(running(1, 0.25, 0.5, 0.5), running(2, 0.25, 0.5, 0.5), budgets=(lowered,))
    assert set(decision.pause) == {1, 2}


def test_lowering_a_budget_frees_the_reserved_money_that_is_not_spent() -> None:
    lowered = running(1, 0.1, 0.9, 0.2)
    decision = decide_with(lowered, queued(2, 0.7), budgets=(replace(REPOSITORY, spent_usd=0.1),))
    assert decision.reserve == {1: pytest.approx(0.2), 2: 0.7}


money = st.floats(0, 1.2).map(lambda amount: round(amount, 2))


@st.composite
def agents(draw: st.DrawFn) -> list[Agent]:
    made: list[Agent] = []
    for number in range(1, draw(st.integers(1, 8)) + 1):
        state = draw(st.sampled_from([State.QUEUED, State.RUNNING, State.PAUSED, State.PREPARING]))
        has_begun = state is not State.QUEUED
        above = draw(st.sampled_from([(lead,) for lead in "xy"] + [(agent.as_lead, *agent.leads) for agent in made]))
        made.append(
            make_agent(
                number,
                state=state,
                lead=above[0],
                above=above[1:],
                nesting=draw(st.none() | money.filter(bool).map(lambda usd: {"agents": 9, "budget_usd": usd})),
                account=draw(st.sampled_from(["", "claude"])),
                kind=draw(st.sampled_from([PauseKind.FROZEN, PauseKind.RESTING])),
                cost_usd=draw(money) if has_begun else None,
                reserved_usd=draw(money) if has_begun else 0,
                budget_usd=draw(st.none() | money.filter(bool)),
            )
        )
    return made


@st.composite
def budgets(draw: st.DrawFn, of: list[Agent]) -> tuple[Budget, ...]:
    leads = draw(st.sets(st.sampled_from(["", "x", "y", *(agent.as_lead for agent in of)])))
    spent = {
        lead: sum((a.money.spent_usd for a in of if lead in ("", *a.leads)), draw(money)) for lead in sorted(leads)
    }
    return tuple(Budget(1, lead, draw(st.none() | st.floats(0, 4)), spent[lead]) for lead in spent)


def apply(decision: SchedulerDecision, live: list[Agent]) -> list[Agent]:
    """Return the agents as they are after the decision was applied."""
    return [
        change(
            agent,
            reserved_usd=decision.reserve.get(agent.number, agent.money.reserved_usd),
            state=State.RUNNING if agent.number in decision.start else agent.state,
            kind=PauseKind.RESTING if agent.number in decision.start else agent.pause.kind,
        )
        for agent in live
    ]


@given(st.data())
def test_money_stays_within_budgets_and_holds_name_their_budget(data: st.DataObject) -> None:
    live = data.draw(agents())
    limits = data.draw(budgets(live))
    decision = decide_with(*live, budgets=limits)
    after = apply(decision, live)
    for budget in limits:
        if budget.limit_usd is not None:
            before, now = (budget.spent_usd + sum_reserved(budget, some, limits) for some in (live, after))
            assert now <= max(budget.limit_usd, before) + 1e-6, "the sum grows only up to the limit"
    pauses = decide_with(*after, budgets=limits).pause
    assert not set(decision.start) & pauses.keys(), "an agent that starts pauses at once"
    gate = BudgetGate(live, limits, STEP)
    for agent in live:
        hold = gate.check(agent)
        assert hold is None or (isinstance(hold, Hold) and "budget" in hold.reason)


def test_amounts_are_formatted_for_people() -> None:
    assert [format_usd(amount) for amount in (12.5, 0.3, 0.0123)] == ["12.50 USD", "0.3 USD", "0.0123 USD"]
