"""Properties of the scheduler in simulated histories of agents, vendors, people and restarts.

Each test simulates its own histories. The store raises if a decision asks for a transition that does not exist.
"""

import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import pytest
from forkjoin.core.agent_spec import Spec
from forkjoin.core.model import ACTIVE, CALLING, FINAL, Agent, PauseKind, State
from forkjoin.core.settings import Limits
from forkjoin.scheduling.budget import sum_reserved
from forkjoin.scheduling.rate_limit_policy import MAX_DELAY_S
from forkjoin.store.database_migration import open_database
from forkjoin.store.rows import as_dict
from forkjoin.store.store import Store
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.agent_records import change
from support.scheduling.script import History, Period, RefusalHint, Restart, Script, SharedBudget, Shortage, Turn
from support.scheduling.simulator import BEGIN, GRACE_S, RETRY_S, DecisionRecord, World
from support.scheduling.stores import DirectDatabase

PRICE_USD = 0.25
#: Smaller amounts in USD are rounding errors.
ROUNDING_USD = 1e-6


def mostly(usual: object, *others: object) -> st.SearchStrategy[Any]:
    return st.sampled_from([*[usual] * 3 * len(others), *others])


accounts = mostly("here", "there", "")
specs = st.builds(
    Spec,
    task=st.just("a task"),
    priority=st.integers(-1, 1),
    exclusive=st.sampled_from([None, None, "database", "port"]),
    on_failed_dependency=st.sampled_from(["skip", "run"]),
    verify=mostly(None, "true"),
    retries=st.sampled_from([None, 0, 1]),
    budget_usd=mostly(None, 0.2, 0.5),
)
turns = st.lists(st.builds(Turn, st.sampled_from([0.5, 7, 45, 5000]), st.just(PRICE_USD)), min_size=1, max_size=3).map(
    tuple[Turn, ...]
)
scripts = st.builds(
    Script,
    spec=specs,
    lead=st.sampled_from("xyz"),
    account=accounts,
    turns=turns,
    end=mostly("ok", "failed", "timed_out", "lost"),
    failures=mostly(0, 1, 3),
    program_gb=st.sampled_from([0.2, 1, 3]),
    hides_cost=mostly(False, True),
    own_retries=st.integers(0, 2),
    stop_s=mostly(None, 0, 4, 50),
    message_s=st.sampled_from([None, None, 10, 60]),
)
afters = st.just(frozenset[int]()) | st.frozensets(st.integers(1, 8), max_size=2)  #: distances to older agents
moments = [Period(0, 20), Period(0, 20, RefusalHint.WAIT), Period(0, 90)]
hours = [Period(30, 4000), Period(0, 4000, RefusalHint.RESET), Period(3, 4000, RefusalHint.RESET)]
shortages = st.builds(Shortage, accounts, st.sampled_from([*moments, *hours]), st.sampled_from([0, 0, 1, 2]))
restarts = st.builds(Restart, st.sampled_from([1, 12, 70]), st.sampled_from([0, 20]))
spawns = st.lists(st.tuples(mostly(0, 3, 40), scripts, afters), min_size=1, max_size=9)


def _history(
    spawned: Sequence[tuple[float, Script, Iterable[int]]],
    max_running: int,
    shortages: Sequence[Shortage],
    restarts: Sequence[Restart],
    seed: int,
    budget: SharedBudget,
    memory_gb: float | None,
) -> History:
    """Return a history from agents with the seconds since the previous spawn."""
    times = accumulate(after_s for after_s, _, _ in spawned)
    scripts = [
        replace(
            script,
            spawned=at,
            after=tuple(number - back for back in before if back < number),
            # without a known cost, an agent whose budget is raised while it runs has spent the whole new budget
            hides_cost=script.hides_cost and script.spec.budget_usd is None,
        )
        for number, (at, (_, script, before)) in enumerate(zip(times, spawned, strict=True), 1)
    ]
    return History(scripts, max_running, shortages, restarts, seed=seed, budget=budget, memory_gb=memory_gb)


#: Up to nine agents of three leads and two accounts, with dependencies and shared keys.
histories = st.builds(
    _history,
    spawns,
    st.integers(1, 5),
    st.lists(shortages, min_size=1, max_size=2),
    st.lists(restarts, max_size=1),
    st.integers(0, 3),
    st.builds(SharedBudget, st.sampled_from([0.3, 1, 2, 1000]), st.sampled_from([30, 6000])),
    mostly(None, 4, 8),
)


def play(history: History) -> World:
    return World(history).run()


def play_with_probes(history: History) -> World:
    return World(history, probes=True).run()


#: Two agents are frozen for a short limit when the account is closed for hours.
CLOSED = [Shortage("here", Period(0, 20), 0), Shortage("here", Period(3, 4000, RefusalHint.RESET), 0)]


@given(histories.map(play_with_probes))
@example(
    play(History([Script(account="here", turns=(Turn(s, PRICE_USD),), own_retries=2) for s in (0.5, 7, 45)], 3, CLOSED))
)
@settings(max_examples=60)
def test_the_properties_of_the_scheduler_hold_in_every_history(world: World) -> None:
    check_properties(world)


@pytest.mark.soak
@given(histories.map(play_with_probes))
@settings(max_examples=1000)
def test_the_properties_of_the_scheduler_hold_in_a_thousand_histories(world: World) -> None:
    check_properties(world)


def check_properties(world: World) -> None:
    """Check the properties together, because the simulation is the slow part."""
    all_agents_end_soon_after_the_last_disturbance(world)
    no_more_than_max_running_agents_are_active_apart_from_agents_being_stopped(world)
    a_key_has_one_holder_even_while_the_holder_is_paused(world)
    each_agent_ends_like_its_program_or_after_its_last_retry(world)
    no_agent_starts_before_its_dependencies_end_or_during_its_pause_or_without_its_environment(world)
    an_agent_is_skipped_after_a_failed_dependency_unless_it_should_run_anyway(world)
    each_waiting_agent_has_a_reason(world)
    no_lead_starts_an_agent_while_a_lead_with_fewer_active_agents_waits_only_for_a_slot(world)
    no_lead_has_two_turns_while_a_lead_with_equally_few_active_agents_waits_for_one(world)
    no_agent_starts_or_runs_beyond_its_rate_limit_or_is_frozen_for_long(world)
    no_decision_changes_before_the_time_of_the_next_decision(world)
    no_budget_is_exceeded_by_more_than_one_call_of_each_agent(world)
    a_stopped_agent_ends_at_once_in_every_state(world)


def all_agents_end_soon_after_the_last_disturbance(world: World) -> None:
    """No agent starves because of an order, key, pause or limit."""
    agents = world.agents()
    assert {agent.number: agent.state for agent in agents if agent.state not in FINAL} == {}
    assert max(agent.timing.ended or 0 for agent in agents) <= BEGIN + _latest(world)


def _latest(world: World) -> float:
    """Return the end in seconds if all agents ran one after the other."""
    calm = max(
        *(script.spawned + max(script.stop_s or 0, script.message_s or 0) for script in world.history.scripts),
        *(short.period.since + short.period.lasts_s for short in world.history.shortages),
        *(restart.at + restart.reconnect_s for restart in world.history.restarts),
        world.history.budget.raised_s if world.history.budget else 0,
        0,
    )
    work = sum(2 * sum(turn.work_s for turn in script.turns) for script in world.history.scripts)
    attempts = sum(2 + script.failures for script in world.history.scripts)
    return calm + work + attempts * (2 * world.history.step_s + 2 * RETRY_S + GRACE_S + 80) + 2 * MAX_DELAY_S + 60


def no_more_than_max_running_agents_are_active_apart_from_agents_being_stopped(world: World) -> None:
    for record in world.records:
        at_work = [agent for agent in record.inputs.live if agent.state in ACTIVE]
        assert sum(not agent.stop_asked for agent in at_work) <= world.history.max_running


def a_key_has_one_holder_even_while_the_holder_is_paused(world: World) -> None:
    for record in world.records:
        holders = Counter(agent.spec.exclusive for agent in record.inputs.live if agent.state is not State.QUEUED)
        assert all(count == 1 for key, count in holders.items() if key)


def each_agent_ends_like_its_program_or_after_its_last_retry(world: World) -> None:
    ends = {"ok": State.SUCCEEDED, "failed": State.FAILED, "timed_out": State.TIMED_OUT, "lost": State.LOST}
    for agent, script in zip(world.agents(), world.history.scripts, strict=True):
        if agent.timing.started and not agent.stop_asked:
            most = Limits().retries if script.spec.retries is None else script.spec.retries
            assert agent.history.retried == min(script.failures, most)
            assert agent.state is (ends[script.end] if script.failures <= most else State.FAILED)
            calls = 0 if script.failures > most or not script.account else len(script.turns)
            assert world.spent[agent.number] in (calls * PRICE_USD, 2 * calls * PRICE_USD)  # twice after a message


def no_agent_starts_before_its_dependencies_end_or_during_its_pause_or_without_its_environment(
    world: World,
) -> None:
    for record in world.records:
        live = {agent.number for agent in record.inputs.live}
        for agent in _started(record):
            assert agent.has_begun or not live & set(agent.dependencies.after)
            assert agent.pause.not_before <= record.inputs.now
            assert agent.number not in record.inputs.without_environment


def an_agent_is_skipped_after_a_failed_dependency_unless_it_should_run_anyway(world: World) -> None:
    for agent in world.agents():
        decided = [
            record for record in world.records if agent.number in {*record.decision.start, *record.decision.skip}
        ]
        if decided:
            ended = decided[0].inputs.ended
            failed = any(ended.get(older, State.SUCCEEDED) is not State.SUCCEEDED for older in agent.dependencies.after)
            skipped = agent.number in decided[0].decision.skip
            assert skipped == (failed and agent.spec.on_failed_dependency == "skip")


def each_waiting_agent_has_a_reason(world: World) -> None:
    for record in _idle_decisions(world):
        resting = [agent.number for agent in record.inputs.live if agent.state in (State.QUEUED, State.PAUSED)]
        assert sorted(record.decision.waiting) == resting
        assert all(record.decision.waiting.values())


def no_lead_starts_an_agent_while_a_lead_with_fewer_active_agents_waits_only_for_a_slot(world: World) -> None:
    """Limit the difference between the starts of two busy leads to one."""
    for record in world.records:
        at_work = Counter(agent.lead for agent in record.inputs.live if agent.state in ACTIVE)
        waits = {agent.lead for agent in record.inputs.live if "slot" in record.decision.waiting.get(agent.number, "")}
        for agent in _started(record):
            assert all(at_work[agent.lead] <= at_work[other] for other in waits)
            at_work[agent.lead] += 1


def no_lead_has_two_turns_while_a_lead_with_equally_few_active_agents_waits_for_one(world: World) -> None:
    turns: dict[str, float] = {}
    for record in world.records:
        if not record.inputs.last_turns:  # a new daemon doesn't know earlier turns
            turns = {}
        at_work = Counter(agent.lead for agent in record.inputs.live if agent.state in ACTIVE)
        waits = {agent.lead for agent in record.inputs.live if "slot" in record.decision.waiting.get(agent.number, "")}
        for agent in _started(record):
            equal = [other for other in waits if at_work[other] == at_work[agent.lead]]
            assert all(turns.get(agent.lead, 0) <= turns.get(other, 0) for other in equal)
            at_work[agent.lead] += 1
        turns |= dict.fromkeys((agent.lead for agent in _started(record)), record.inputs.now)


def no_agent_starts_or_runs_beyond_its_rate_limit_or_is_frozen_for_long(world: World) -> None:
    for record in world.records:
        for account, known in record.inputs.rate_limits.items():
            calling = sum(agent.account == account and agent.state in CALLING for agent in record.inputs.live)
            started = [agent for agent in _started(record) if agent.account == account]
            for_long = known.closed_until > record.inputs.now + 2 * MAX_DELAY_S
            new = [agent for agent in started if not (agent.phase is PauseKind.FROZEN and for_long)]
            assert not new or (known.closed_until <= record.inputs.now and calling + len(started) <= known.max_running)
    for record in _idle_decisions(world):
        for account, known in record.inputs.rate_limits.items():
            of_account = [agent for agent in record.inputs.live if agent.account == account]
            running = sum(agent.state is State.RUNNING for agent in of_account)
            if known.closed_until > record.inputs.now + 2 * MAX_DELAY_S:
                frozen = [agent.number for agent in of_account if agent.phase is PauseKind.FROZEN]
                assert all("slot" in record.decision.waiting[number] for number in frozen)
            else:
                assert running <= known.max_running


def _crowd(smalls: int, work_s: float, every_s: float, leads: str, memory_gb: float) -> History:
    """Return a history in which one of many agents needs much memory.

    The program of the large agent has run before, so its need is known.
    """
    large = Script(spec=Spec(task="a task", agent="large"), lead="x", program_gb=3)
    many = [
        Script(spawned=20 + every_s * n, lead=leads[n % len(leads)], turns=(Turn(work_s),), program_gb=1)
        for n in range(smalls)
    ]
    return History([large, *many[:4], replace(large, spawned=many[4].spawned), *many[4:]], 8, memory_gb=memory_gb)


crowds = st.builds(
    _crowd,
    st.integers(20, 60),
    st.sampled_from([20, 45, 100]),
    st.sampled_from([0, 4, 15]),
    st.sampled_from(["x", "y", "xy"]),
    st.sampled_from([4, 5]),
)


@given(crowds.map(play))
@settings(max_examples=12)
def test_an_agent_that_needs_much_memory_does_not_wait_while_agents_that_need_less_start(world: World) -> None:
    """The agent waits only for agents that were active, or whose turn was earlier."""
    large, script = world.agents()[5], world.history.scripts[5]
    work_s = world.history.scripts[1].turns[0].work_s
    assert (large.timing.started or math.inf) <= BEGIN + script.spawned + 2 * (work_s + 2) + 10


def no_decision_changes_before_the_time_of_the_next_decision(world: World) -> None:
    for before, record in pairwise(world.records):
        if record.is_probe and record.inputs.now < before.decision.decide_again_at:
            decision = record.decision
            assert (decision.start, decision.skip, decision.pause) == ((), {}, {})
            assert (decision.reserve, decision.wind_up) == ({}, ())
            assert decision.waiting == before.decision.waiting


def no_budget_is_exceeded_by_more_than_one_call_of_each_agent(world: World) -> None:
    for record in world.records:
        given = record.decision.reserve
        live = [
            change(agent, reserved_usd=given.get(agent.number, agent.money.reserved_usd))
            for agent in record.inputs.live
        ]
        beyond = sum(max(0, agent.money.spent_usd - agent.money.reserved_usd) for agent in live)
        ended = world.spent.keys() - {agent.number for agent in live}
        beyond += len(ended) * PRICE_USD  # each of them may have spent a call too much
        for budget in record.inputs.budgets:
            limit = math.inf if budget.limit_usd is None else budget.limit_usd
            assert budget.spent_usd <= limit + len(world.spent) * PRICE_USD + ROUNDING_USD
            under = (agent.money.spent_usd for agent in live if budget.lead in ("", agent.lead))
            assert budget.spent_usd >= sum(under) - ROUNDING_USD
            assert (
                budget.spent_usd + sum_reserved(budget, live, ())
                <= max(limit, budget.spent_usd) + beyond + ROUNDING_USD
            )
        for agent in live:
            assert (
                agent.money.budget_usd is None
                or agent.money.spent_usd <= agent.money.budget_usd + PRICE_USD + ROUNDING_USD
            )


def test_an_agent_that_reports_no_cost_counts_as_having_spent_its_reserved_money() -> None:
    silent = Script(account="here", hides_cost=True, turns=(Turn(1, PRICE_USD),) * 8)
    (agent,) = play(History([silent], 1, budget=SharedBudget(1, 600))).agents()
    assert (agent.state, agent.attempt) == (State.SUCCEEDED, 2)
    assert (agent.timing.ended or 0) > BEGIN + 600


def test_an_agent_that_waits_for_its_environment_takes_no_slot_and_its_verify_needs_no_money() -> None:
    first = Script(spec=Spec(task="a task", verify="true"), account="here", turns=(Turn(1, PRICE_USD),))
    other = Script(spawned=5, lead="other", turns=(Turn(3),))
    world = play(History([first, other], 1, restarts=[Restart(2.5, 40)], budget=SharedBudget(0.2, 6000)))
    verified, went = (agent.timing.ended or 0 for agent in world.agents())
    assert not any(set(record.decision.start) & set(record.inputs.without_environment) for record in world.records)
    assert went < BEGIN + 20
    assert BEGIN + 42 < verified < BEGIN + 60


def a_stopped_agent_ends_at_once_in_every_state(world: World) -> None:
    for agent in (agent for agent in world.agents() if agent.number in world.stop_requests):
        assert agent.state is State.STOPPED
        assert agent.timing.ended is not None
        assert (
            agent.timing.ended
            <= world.stop_requests[agent.number] + world.history.step_s + GRACE_S + world.history.step_s
        )


@given(histories.map(play))
@settings(max_examples=8)
def test_the_table_in_memory_leads_to_the_same_decisions_as_sqlite(tables: sqlite3.Connection, world: World) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        tables.backup(connection)
        connection.row_factory = as_dict
        again = World(world.history, store=Store(DirectDatabase(connection))).run()
        assert [record.decision for record in again.records] == [record.decision for record in world.records]
        assert [_outcome(agent) for agent in again.agents()] == [_outcome(agent) for agent in world.agents()]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """The tables of the store, which are empty except for one project."""
    with closing(open_database(tmp_path_factory.mktemp("records") / "records.sqlite")) as connection:
        connection.execute("INSERT INTO project (common_dir) VALUES ('/repository/.git')")
        yield connection


def _outcome(agent: Agent) -> tuple[object, ...]:
    return agent.state, agent.attempt, agent.timing.started, agent.timing.ended, agent.history.retried, agent.stop_asked


def _started(record: DecisionRecord) -> Iterator[Agent]:
    by_number = {agent.number: agent for agent in record.inputs.live}
    return (by_number[number] for number in record.decision.start)


def _idle_decisions(world: World) -> Iterator[DecisionRecord]:
    """Yield the decisions that change no agent."""
    decisions = ((record, record.decision) for record in world.records)
    return (record for record, decided in decisions if not (decided.start or decided.skip or decided.pause))
