"""The scheduler over whole histories: whatever agents, vendors, people and daemons do, its promises hold.

Each test plays histories of its own. In none does a decision ask for a move that the table of states refuses: the
store would raise.
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
from forkjoin.store.open_database import open_database
from forkjoin.store.rows import as_dict
from forkjoin.store.store import Store
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.agent_records import change
from support.scheduling.script import History, Purse, Restart, Script, Shortage, Tells, Turn, When
from support.scheduling.simulator import AGAIN_S, BEGIN, GRACE_S, Look, World
from support.scheduling.stores import DirectDatabase

PRICE_USD = 0.25
#: USD: less than this is rounding.
NOTHING = 1e-6


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
    stumbles=mostly(0, 1, 3),
    takes_gb=st.sampled_from([0.2, 1, 3]),
    is_secretive=mostly(False, True),
    patience=st.integers(0, 2),
    stopped_s=mostly(None, 0, 4, 50),
    told_s=st.sampled_from([None, None, 10, 60]),
)
afters = st.just(frozenset[int]()) | st.frozensets(st.integers(1, 8), max_size=2)  #: how many places before
moments = [When(0, 20), When(0, 20, Tells.WAIT), When(0, 90)]
hours = [When(30, 4000), When(0, 4000, Tells.RESET), When(3, 4000, Tells.RESET)]
shortages = st.builds(Shortage, accounts, st.sampled_from([*moments, *hours]), st.sampled_from([0, 0, 1, 2]))
restarts = st.builds(Restart, st.sampled_from([1, 12, 70]), st.sampled_from([0, 20]))
spawns = st.lists(st.tuples(mostly(0, 3, 40), scripts, afters), min_size=1, max_size=9)


def _history(
    spawned: Sequence[tuple[float, Script, Iterable[int]]],
    max_running: int,
    shortages: Sequence[Shortage],
    restarts: Sequence[Restart],
    seed: int,
    purse: Purse,
    memory_gb: float | None,
) -> History:
    """That in which agents are spawned so many seconds after each other."""
    times = accumulate(after_s for after_s, _, _ in spawned)
    scripts = [
        replace(
            script,
            spawned=at,
            after=tuple(number - back for back in before if back < number),
            # whose own budget is raised as it runs, without a sum, has spent all of that when it ends for the old one
            is_secretive=script.is_secretive and script.spec.budget_usd is None,
        )
        for number, (at, (_, script, before)) in enumerate(zip(times, spawned, strict=True), 1)
    ]
    return History(scripts, max_running, shortages, restarts, seed=seed, purse=purse, memory_gb=memory_gb)


#: Up to nine agents of three leads and two accounts, that come after each other and share keys.
histories = st.builds(
    _history,
    spawns,
    st.integers(1, 5),
    st.lists(shortages, min_size=1, max_size=2),
    st.lists(restarts, max_size=1),
    st.integers(0, 3),
    st.builds(Purse, st.sampled_from([0.3, 1, 2, 1000]), st.sampled_from([30, 6000])),
    mostly(None, 4, 8),
)


def play(history: History) -> World:
    return World(history).run()


def play_with_glances(history: History) -> World:
    return World(history, glances=True).run()


#: Two are frozen for moments when the account is closed for hours.
CLOSED = [Shortage("here", When(0, 20), 0), Shortage("here", When(3, 4000, Tells.RESET), 0)]


@given(histories.map(play_with_glances))
@example(
    play(History([Script(account="here", turns=(Turn(s, PRICE_USD),), patience=2) for s in (0.5, 7, 45)], 3, CLOSED))
)
@settings(max_examples=250)
def test_the_schedulers_promises_hold_in_whatever_history(world: World) -> None:
    """Each is a function below, named for what it promises; a history costs more to play than all of them to ask."""
    everything_ends_not_long_after_all_has_calmed_down(world)
    no_more_are_ever_at_work_than_may_be_but_those_that_are_being_stopped(world)
    a_key_has_one_holder_even_while_that_pauses(world)
    each_ends_as_its_program_does_or_after_as_many_retries_as_it_has(world)
    nobody_starts_before_those_have_ended_that_it_comes_after_nor_in_its_rest_or_without_its_lead(world)
    who_comes_after_what_has_failed_is_skipped_unless_it_runs_all_the_same(world)
    whoever_waits_is_told_why(world)
    no_lead_starts_one_while_another_with_fewer_at_work_waits_for_a_slot_alone(world)
    no_lead_has_two_turns_while_another_with_as_few_at_work_waits_for_one(world)
    of_an_account_none_starts_or_runs_beyond_what_its_vendor_takes_nor_is_frozen_for_long(world)
    nothing_would_be_decided_otherwise_before_the_next_look_that_was_asked_for(world)
    no_more_is_given_than_there_is_nor_spent_but_for_one_call_of_each_agent(world)
    a_stop_ends_an_agent_at_once_whatever_it_is_at(world)


def everything_ends_not_long_after_all_has_calmed_down(world: World) -> None:
    """No order, key, rest or limit starves anybody, though each may have to wait for all others."""
    agents = world.agents()
    assert {agent.number: agent.state for agent in agents if agent.state not in FINAL} == {}
    assert max(agent.timing.ended or 0 for agent in agents) <= BEGIN + _latest(world)


def _latest(world: World) -> float:
    """When the last may end, in seconds since the beginning: as if one waited for the other with all it does."""
    calm = max(
        *(script.spawned + max(script.stopped_s or 0, script.told_s or 0) for script in world.history.scripts),
        *(short.when.since + short.when.lasts_s for short in world.history.shortages),
        *(restart.at + restart.back_s for restart in world.history.restarts),
        world.history.purse.raised_s if world.history.purse else 0,
        0,
    )
    work = sum(2 * sum(turn.work_s for turn in script.turns) for script in world.history.scripts)
    attempts = sum(2 + script.stumbles for script in world.history.scripts)
    return calm + work + attempts * (2 * world.history.step_s + 2 * AGAIN_S + GRACE_S + 80) + 2 * MAX_DELAY_S + 60


def no_more_are_ever_at_work_than_may_be_but_those_that_are_being_stopped(world: World) -> None:
    for look in world.looks:
        at_work = [agent for agent in look.inputs.live if agent.state in ACTIVE]
        assert sum(not agent.stop_asked for agent in at_work) <= world.history.max_running


def a_key_has_one_holder_even_while_that_pauses(world: World) -> None:
    for look in world.looks:
        holders = Counter(one.spec.exclusive for one in look.inputs.live if one.state is not State.QUEUED)
        assert all(count == 1 for key, count in holders.items() if key)


def each_ends_as_its_program_does_or_after_as_many_retries_as_it_has(world: World) -> None:
    ends = {"ok": State.SUCCEEDED, "failed": State.FAILED, "timed_out": State.TIMED_OUT, "lost": State.LOST}
    for agent, script in zip(world.agents(), world.history.scripts, strict=True):
        if agent.timing.started and not agent.stop_asked:
            most = Limits().retries if script.spec.retries is None else script.spec.retries
            assert agent.history.retried == min(script.stumbles, most)
            assert agent.state is (ends[script.end] if script.stumbles <= most else State.FAILED)
            calls = 0 if script.stumbles > most or not script.account else len(script.turns)
            assert world.spent[agent.number] in (calls * PRICE_USD, 2 * calls * PRICE_USD)  # twice if told again


def nobody_starts_before_those_have_ended_that_it_comes_after_nor_in_its_rest_or_without_its_lead(
    world: World,
) -> None:
    for look in world.looks:
        live = {agent.number for agent in look.inputs.live}
        for agent in _started(look):
            assert agent.has_begun or not live & set(agent.dependencies.after)
            assert agent.pause.not_before <= look.inputs.now
            assert agent.number not in look.inputs.without_environment


def who_comes_after_what_has_failed_is_skipped_unless_it_runs_all_the_same(world: World) -> None:
    for agent in world.agents():
        decided = [look for look in world.looks if agent.number in {*look.decision.start, *look.decision.skip}]
        if decided:
            ended = decided[0].inputs.ended
            failed = any(ended.get(one, State.SUCCEEDED) is not State.SUCCEEDED for one in agent.dependencies.after)
            skipped = agent.number in decided[0].decision.skip
            assert skipped == (failed and agent.spec.on_failed_dependency == "skip")


def whoever_waits_is_told_why(world: World) -> None:
    for look in _at_rest(world):
        resting = [agent.number for agent in look.inputs.live if agent.state in (State.QUEUED, State.PAUSED)]
        assert sorted(look.decision.waiting) == resting
        assert all(look.decision.waiting.values())


def no_lead_starts_one_while_another_with_fewer_at_work_waits_for_a_slot_alone(world: World) -> None:
    """So leads that both have always one that could start differ by one at most in what they start."""
    for look in world.looks:
        at_work = Counter(agent.lead for agent in look.inputs.live if agent.state in ACTIVE)
        waits = {one.lead for one in look.inputs.live if "slot" in look.decision.waiting.get(one.number, "")}
        for agent in _started(look):
            assert all(at_work[agent.lead] <= at_work[other] for other in waits)
            at_work[agent.lead] += 1


def no_lead_has_two_turns_while_another_with_as_few_at_work_waits_for_one(world: World) -> None:
    turns: dict[str, float] = {}
    for look in world.looks:
        if not look.inputs.last_turns:  # a daemon that begins knows of none
            turns = {}
        at_work = Counter(agent.lead for agent in look.inputs.live if agent.state in ACTIVE)
        waits = {one.lead for one in look.inputs.live if "slot" in look.decision.waiting.get(one.number, "")}
        for agent in _started(look):
            equal = [other for other in waits if at_work[other] == at_work[agent.lead]]
            assert all(turns.get(agent.lead, 0) <= turns.get(other, 0) for other in equal)
            at_work[agent.lead] += 1
        turns |= dict.fromkeys((agent.lead for agent in _started(look)), look.inputs.now)


def of_an_account_none_starts_or_runs_beyond_what_its_vendor_takes_nor_is_frozen_for_long(world: World) -> None:
    for look in world.looks:
        for account, known in look.inputs.rate_limits.items():
            calling = sum(one.account == account and one.state in CALLING for one in look.inputs.live)
            started = [one for one in _started(look) if one.account == account]
            for_long = known.closed_until > look.inputs.now + 2 * MAX_DELAY_S
            new = [one for one in started if not (one.phase is PauseKind.FROZEN and for_long)]
            assert not new or (known.closed_until <= look.inputs.now and calling + len(started) <= known.max_running)
    for look in _at_rest(world):
        for account, known in look.inputs.rate_limits.items():
            of_account = [one for one in look.inputs.live if one.account == account]
            running = sum(one.state is State.RUNNING for one in of_account)
            if known.closed_until > look.inputs.now + 2 * MAX_DELAY_S:
                frozen = [one.number for one in of_account if one.phase is PauseKind.FROZEN]
                assert all("slot" in look.decision.waiting[number] for number in frozen)
            else:
                assert running <= known.max_running


def _crowd(smalls: int, work_s: float, every_s: float, leads: str, memory_gb: float) -> History:
    """One that needs much comes in the midst of many that need little, and whose kind is known."""
    large = Script(spec=Spec(task="a task", agent="large"), lead="x", takes_gb=3)
    many = [
        Script(spawned=20 + every_s * n, lead=leads[n % len(leads)], turns=(Turn(work_s),), takes_gb=1)
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
@settings(max_examples=30)
def test_an_agent_that_needs_much_memory_does_not_wait_while_agents_that_need_less_start(world: World) -> None:
    """It waits only for the agents to end that were at work, and for those that had their turns before it."""
    large, script = world.agents()[5], world.history.scripts[5]
    work_s = world.history.scripts[1].turns[0].work_s
    assert (large.timing.started or math.inf) <= BEGIN + script.spawned + 2 * (work_s + 2) + 10


def nothing_would_be_decided_otherwise_before_the_next_look_that_was_asked_for(world: World) -> None:
    for before, look in pairwise(world.looks):
        if look.is_glance and look.inputs.now < before.decision.decide_again_at:
            decision = look.decision
            assert (decision.start, decision.skip, decision.pause) == ((), {}, {})
            assert (decision.reserve, decision.wind_up) == ({}, ())
            assert decision.waiting == before.decision.waiting


def no_more_is_given_than_there_is_nor_spent_but_for_one_call_of_each_agent(world: World) -> None:
    for look in world.looks:
        given = look.decision.reserve
        live = [change(one, reserved_usd=given.get(one.number, one.money.reserved_usd)) for one in look.inputs.live]
        beyond = sum(max(0, agent.money.spent_usd - agent.money.reserved_usd) for agent in live)
        for budget in look.inputs.budgets:
            limit = math.inf if budget.limit_usd is None else budget.limit_usd
            assert budget.spent_usd <= limit + len(world.spent) * PRICE_USD + NOTHING
            under = (agent.money.spent_usd for agent in live if budget.lead in ("", agent.lead))
            assert budget.spent_usd >= sum(under) - NOTHING
            assert budget.spent_usd + sum_reserved(budget, live, ()) <= max(limit, budget.spent_usd) + beyond + NOTHING
        for agent in live:
            assert (
                agent.money.budget_usd is None or agent.money.spent_usd <= agent.money.budget_usd + PRICE_USD + NOTHING
            )


def test_what_tells_nothing_of_its_cost_has_spent_what_it_was_given() -> None:
    secretive = Script(account="here", is_secretive=True, turns=(Turn(1, PRICE_USD),) * 8)
    (agent,) = play(History([secretive], 1, purse=Purse(1, 600))).agents()
    assert (agent.state, agent.attempt) == (State.SUCCEEDED, 2)
    assert (agent.timing.ended or 0) > BEGIN + 600


def test_who_waits_for_its_leads_environment_has_no_slot_and_its_verify_waits_for_no_money() -> None:
    first = Script(spec=Spec(task="a task", verify="true"), account="here", turns=(Turn(1, PRICE_USD),))
    other = Script(spawned=5, lead="other", turns=(Turn(3),))
    world = play(History([first, other], 1, restarts=[Restart(2.5, 40)], purse=Purse(0.2, 6000)))
    verified, went = (agent.timing.ended or 0 for agent in world.agents())
    assert not any(set(look.decision.start) & set(look.inputs.without_environment) for look in world.looks)
    assert went < BEGIN + 20
    assert BEGIN + 42 < verified < BEGIN + 60


def a_stop_ends_an_agent_at_once_whatever_it_is_at(world: World) -> None:
    for agent in (one for one in world.agents() if one.number in world.asked):
        assert agent.state is State.STOPPED
        assert agent.timing.ended is not None
        assert agent.timing.ended <= world.asked[agent.number] + world.history.step_s + GRACE_S + world.history.step_s


@given(histories.map(play))
@settings(max_examples=20)
def test_the_table_of_the_simulator_is_as_sqlite_is(tables: sqlite3.Connection, world: World) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        tables.backup(connection)
        connection.row_factory = as_dict
        again = World(world.history, records=Store(DirectDatabase(connection))).run()
        assert [look.decision for look in again.looks] == [look.decision for look in world.looks]
        assert [_fate(agent) for agent in again.agents()] == [_fate(agent) for agent in world.agents()]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """The tables of the records, empty but for a project."""
    with closing(open_database(tmp_path_factory.mktemp("records") / "records.sqlite")) as connection:
        connection.execute("INSERT INTO project (common_dir) VALUES ('/repository/.git')")
        yield connection


def _fate(agent: Agent) -> tuple[object, ...]:
    return agent.state, agent.attempt, agent.timing.started, agent.timing.ended, agent.history.retried, agent.stop_asked


def _started(look: Look) -> Iterator[Agent]:
    by_number = {agent.number: agent for agent in look.inputs.live}
    return (by_number[number] for number in look.decision.start)


def _at_rest(world: World) -> Iterator[Look]:
    """Looks at which there was nothing to do."""
    decisions = ((look, look.decision) for look in world.looks)
    return (look for look, decided in decisions if not (decided.start or decided.skip or decided.pause))
