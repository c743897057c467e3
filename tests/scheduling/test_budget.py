"""Budgets: nothing is spent that was not reserved, and nobody waits for money without being told."""

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
#: A step of what is given to those without a budget of their own.
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


def test_of_one_dollar_three_agents_of_thirty_cents_start_and_three_wait_with_the_reason() -> None:
    six = [queued(number, lead=lead) for lead in ("x", "y") for number in (1, 3, 5)]
    agents = [replace(agent, number=number) for number, agent in enumerate(six, 1)]
    decision = decide_with(*agents)
    assert len(decision.start) == 3
    assert decision.reserve == dict.fromkeys(decision.start, 0.3)
    short = "the repository's budget of 1.00 USD has 0.1 USD left, and it needs 0.3 USD"
    assert set(decision.waiting.values()) == {f"{short}; a person raises it with: forkjoin budget"}


def test_a_leads_budget_holds_its_own_agents_alone() -> None:
    decision = decide_with(
        queued(1, lead="x"), queued(2, lead="x"), queued(3, lead="y"), budgets=(Budget(1, "x", 0.5),)
    )
    assert decision.start == (1, 3)


def test_what_agents_spawn_is_held_by_the_budget_of_whoever_has_spawned_them_and_of_all_above() -> None:
    nested = [change(queued(number, 0.3, lead="agent:a1"), above=("x",)) for number in (2, 3)]
    granted, above = Budget(1, "agent:a1", 0.5), Budget(1, "x", 0.2)
    assert decide_with(*nested, budgets=(granted,)).start == (2,)
    assert decide_with(*nested, budgets=(granted, above)).start == ()
    assert sum_reserved(above, [change(running(2, 0.1, 0.3), lead="agent:a1", above=("x",))], ()) == pytest.approx(0.2)


def parent(number: int, state: State = State.QUEUED, account: str = "claude") -> Agent:
    """One that may spend half a dollar, and give as much to those that it spawns."""
    nesting = {"agents": 4, "budget_usd": 0.5}
    own = 0.5 if account else None
    given = 0.5 if account and state is State.RUNNING else 0
    return make_agent(number, state=state, account=account, budget_usd=own, reserved_usd=given, nesting=nesting)


GRANTS = (Budget(1, "agent:a1", 0.5), Budget(1, "agent:a2", 0.5))


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING])
def test_an_agent_starts_once_there_is_also_what_it_may_give_to_its_own(state: State) -> None:
    decision = decide_with(parent(1, state), parent(2), budgets=(*GRANTS, Budget(1, "lead", 1.0)))
    assert 2 not in decision.start
    assert "budget of 1.00 USD has 0 USD left, and it needs 1.00 USD" in decision.waiting[2]
    richer = decide_with(parent(1, state), parent(2), budgets=(*GRANTS, Budget(1, "lead", 2.0)))
    assert 2 in richer.start


def test_what_is_held_for_those_that_an_agent_spawns_is_theirs_whatever_else_starts() -> None:
    child = change(queued(3, 0.5, "agent:a1"), above=("lead",))
    live = [parent(1, State.RUNNING), queued(2, 0.1), child]
    lead = Budget(1, "lead", 1.0)
    assert decide_with(*live, budgets=(lead, *GRANTS)).start == (3,)
    begun = [live[0], change(running(3, 0.1, 0.3), lead="agent:a1", above=("lead",))]
    spent = (replace(lead, spent_usd=0.1), replace(GRANTS[0], spent_usd=0.1))
    assert [sum_reserved(one, begun, spent) for one in spent] == [pytest.approx(0.9), pytest.approx(0.2)]


def test_no_more_of_a_grant_is_given_or_held_than_is_left_above_it() -> None:
    grant = replace(GRANTS[0], limit_usd=50.0)  # a person has raised it
    child = change(queued(3, 20.0, "agent:a1"), above=("lead",))
    lead = Budget(1, "lead", 10.0)
    decision = decide_with(parent(1, State.RUNNING), child, budgets=(lead, grant))
    assert decision.start == ()
    assert "budget of 10.00 USD has 10.00 USD left, and it needs 20.00 USD" in decision.waiting[3]
    smaller = change(child, budget_usd=9.0)
    assert decide_with(parent(1, State.RUNNING), smaller, budgets=(lead, grant)).start == (3,)
    assert sum_reserved(lead, [parent(1, State.RUNNING)], (lead, grant)) == pytest.approx(10.5)


def test_who_waits_for_what_is_held_for_its_own_is_told_so() -> None:
    one = change(parent(1, State.RUNNING), budget_usd=None, reserved_usd=0.5, cost_usd=0.5)
    (pause,) = decide_with(one, budgets=(Budget(1, "lead", 1.0, 0.5), GRANTS[0])).pause.values()
    assert "in addition to the 0.5 USD held for its own agents" in pause.why


def test_of_a_command_only_that_is_held_which_it_may_give_to_its_own() -> None:
    commands = [parent(number, account="") for number in (1, 2)]
    assert decide_with(*commands, budgets=(*GRANTS, Budget(1, "lead", 0.7))).start == (1,)


def test_what_was_not_given_to_its_own_is_free_at_its_end_and_needed_once_more_when_it_goes_on() -> None:
    again = change(parent(1), started=0.0, attempt=2)
    lead, other = Budget(1, "lead", 1.0), queued(3, 0.6)
    assert decide_with(other, budgets=(lead, *GRANTS)).start == (3,)
    assert decide_with(again, running(3, 0, 0.6, 0.6), budgets=(lead, *GRANTS)).start == ()
    paused = change(again, state=State.PAUSED, not_before=1.0)
    assert decide_with(paused, other, budgets=(lead, *GRANTS)).start == ()


def test_one_that_a_used_up_budget_above_would_end_is_not_started_of_what_is_held() -> None:
    child = change(queued(3, 0.3, "agent:a1"), above=("lead",))
    assert decide_with(parent(1, State.RUNNING), child, budgets=(Budget(1, "lead", 1.0, 1.0), *GRANTS)).start == ()


def test_what_an_agent_did_not_spend_is_free_at_its_end() -> None:
    spent = replace(REPOSITORY, spent_usd=0.25)
    assert decide_with(queued(1, 0.75), budgets=(spent,)).start == (1,)


def test_what_is_reserved_and_spent_already_is_not_counted_twice() -> None:
    spent = replace(REPOSITORY, spent_usd=0.5)
    assert decide_with(running(1, 0.5, 0.6), queued(2, 0.4), budgets=(spent,)).start == (2,)


def test_an_agent_without_a_budget_is_given_a_step_at_a_time() -> None:
    first = decide_with(queued(1, None))
    assert first.reserve == {1: 0.5}
    assert decide_with(running(1, 0.2, 0.5), budgets=(replace(REPOSITORY, spent_usd=0.2),)).reserve == {}
    assert decide_with(running(1, 0.46, 0.5), budgets=(replace(REPOSITORY, spent_usd=0.46),)).reserve == {1: 1.0}


def test_the_last_step_is_what_is_left() -> None:
    spent = replace(REPOSITORY, spent_usd=0.8)
    assert decide_with(queued(1, None), budgets=(spent,)).reserve == {1: pytest.approx(0.2)}


def test_without_a_limit_anywhere_nothing_is_given_and_nobody_waits() -> None:
    decision = decide_with(queued(1, None), running(2, 5, 0), budgets=(Budget(1, "", None, 5),))
    assert (decision.start, decision.reserve, decision.pause, decision.wind_up) == ((1,), {}, {}, ())


def test_a_command_that_spends_nothing_needs_no_money() -> None:
    used_up = Budget(1, "", 1.0, 1.0)
    assert decide_with(make_agent(1), budgets=(used_up,)).start == (1,)


def test_near_its_end_an_agent_is_asked_to_wind_up_once() -> None:
    near = running(1, 0.27, 0.3, 0.3)
    assert decide_with(near).wind_up == (1,)
    assert decide_with(change(near, wind_up=True)).wind_up == ()
    assert decide_with(running(1, 0.26, 0.3, 0.3)).wind_up == ()


def test_at_its_end_an_agent_pauses_ending_and_is_held_until_there_is_more() -> None:
    decision = decide_with(running(1, 0.31, 0.3, 0.3), budgets=())
    assert decision.pause[1].kind is PauseKind.ENDING
    assert decision.pause[1].why == "its budget of 0.3 USD is used up; set_budget raises it"
    paused = replace(running(1, 0.31, 0.3, 0.3), state=State.PAUSED)
    assert decide_with(paused, budgets=()).waiting == {1: decision.pause[1].why}
    raised = decide_with(change(paused, budget_usd=0.5), budgets=())
    assert (raised.start, raised.reserve) == ((1,), {1: 0.5})


def test_one_that_is_still_ending_does_not_go_on() -> None:
    ending = change(running(1, 0.31, 0.3, 0.5), state=State.PAUSED, kind=PauseKind.ENDING, details="no money")
    assert decide_with(ending).waiting == {1: "no money"}


def test_where_a_lowered_limit_is_spent_all_under_it_pause() -> None:
    lowered = Budget(1, "", 0.4, 0.5)
    decision = decide_with(running(1, 0.25, 0.5, 0.5), running(2, 0.25, 0.5, 0.5), budgets=(lowered,))
    assert set(decision.pause) == {1, 2}


def test_a_lowered_budget_gives_back_what_is_not_spent() -> None:
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
        above = draw(st.sampled_from([(lead,) for lead in "xy"] + [(one.as_lead, *one.leads) for one in made]))
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


def after(decision: SchedulerDecision, live: list[Agent]) -> list[Agent]:
    """These, as they are once that is done."""
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
def test_never_more_is_given_than_there_is(data: st.DataObject) -> None:
    live = data.draw(agents())
    limits = data.draw(budgets(live))
    decision = decide_with(*live, budgets=limits)
    for budget in limits:
        if budget.limit_usd is not None:
            before, now = (
                budget.spent_usd + sum_reserved(budget, some, limits) for some in (live, after(decision, live))
            )
            assert now <= max(budget.limit_usd, before) + 1e-6, "more than before only up to the limit"


@given(st.data())
def test_who_goes_on_does_not_pause_at_once(data: st.DataObject) -> None:
    live = data.draw(agents())
    limits = data.draw(budgets(live))
    decision = decide_with(*live, budgets=limits)
    now = decide_with(*after(decision, live), budgets=limits)
    assert not set(decision.start) & now.pause.keys()


@given(st.data())
def test_whoever_waits_for_money_is_told(data: st.DataObject) -> None:
    live = data.draw(agents())
    limits = data.draw(budgets(live))
    gate = BudgetGate(live, limits, STEP)
    for agent in live:
        hold = gate.check(agent)
        assert hold is None or (isinstance(hold, Hold) and "budget" in hold.reason)


def test_amounts_are_told_as_people_read_them() -> None:
    assert [format_usd(amount) for amount in (12.5, 0.3, 0.0123)] == ["12.50 USD", "0.3 USD", "0.0123 USD"]
