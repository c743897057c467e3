"""The scheduler: any history keeps its promises."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from forkjoin.core.model import ACTIVE, CALLING, FINAL, RUNS, Agent, PauseKind, State
from forkjoin.scheduling.rate_limit_policy import RateLimit
from forkjoin.scheduling.scheduler import SchedulerInput, decide, plan_waves, queue_order
from hypothesis import given
from hypothesis import strategies as st
from support.agent_records import change, make_agent

#: Seconds since the epoch.
NOW = 1_000_000_000
LIVE = [state for state in State if state not in FINAL]


@st.composite
def agents(draw: st.DrawFn) -> list[Agent]:
    """Up to twenty agents of three leads and two accounts, that come after older ones and share keys."""
    made: list[Agent] = []
    for number in range(1, draw(st.integers(0, 20)) + 1):
        after = draw(st.sets(st.integers(1, number - 1), max_size=2)) if number > 1 else ()
        state = draw(st.sampled_from([State.QUEUED, State.QUEUED, *LIVE]))
        made.append(
            make_agent(
                number,
                state=state,
                account=draw(st.sampled_from(["", "here", "there"])),
                kind=draw(st.sampled_from([PauseKind.FROZEN, PauseKind.RESTING])),
                not_before=draw(st.sampled_from([0, 0, NOW + 60])),
                attempt=draw(st.integers(1, 2)),
                lead=draw(st.sampled_from("xyz")),
                after=sorted(after),
                priority=draw(st.integers(-2, 2)),
                exclusive=draw(st.sampled_from([None, None, "database", "port"])),
                on_failed_dependency=draw(st.sampled_from(["skip", "run"])),
            )
        )
    return made


rate_limits = st.dictionaries(
    st.sampled_from(["here", "there"]),
    st.builds(RateLimit, st.integers(1, 4), st.sampled_from([0, NOW + 30]), changed_at=st.just(NOW - 5)),
)


@st.composite
def scheduler_inputs(draw: st.DrawFn) -> SchedulerInput:
    """Some of the agents have ended, in one way or another."""
    made = draw(agents())
    over = {agent.number: draw(st.sampled_from(sorted(FINAL))) for agent in made if draw(st.integers(0, 3)) == 0}
    live = [agent for agent in made if agent.number not in over]
    homeless = draw(st.sets(st.integers(1, 20), max_size=2))
    return SchedulerInput(live, draw(st.integers(1, 6)), over, homeless, NOW, draw(rate_limits))


@given(scheduler_inputs())
def test_whoever_rests_starts_or_is_skipped_or_is_told_why_it_waits(inputs: SchedulerInput) -> None:
    decision = decide(inputs)
    resting = sorted(agent.number for agent in inputs.live if agent.state in (State.QUEUED, State.PAUSED))
    assert sorted([*decision.start, *decision.skip, *decision.waiting]) == resting
    assert all([*decision.skip.values(), *decision.waiting.values()])


@given(scheduler_inputs())
def test_no_more_run_than_may_and_of_those_that_share_a_key_one(inputs: SchedulerInput) -> None:
    begun = _begun(inputs, decide(inputs).start)
    before = sum(agent.state in ACTIVE for agent in inputs.live)
    assert sum(agent.state in ACTIVE for agent in begun) <= max(inputs.max_running, before)
    held = Counter(agent.spec.exclusive for agent in begun if agent.has_begun)
    taken = Counter(agent.spec.exclusive for agent in inputs.live if agent.has_begun)
    assert all(held[key] <= max(1, taken[key]) for key in held if key)


@given(scheduler_inputs())
def test_those_that_only_wait_for_their_own_are_counted_as_if_they_were_not_there(inputs: SchedulerInput) -> None:
    awaiting = {agent.number for agent in inputs.live if agent.state is State.RUNNING}
    decision = decide(replace(inputs, waiting_for_nested=awaiting))
    begun = [one for one in _begun(inputs, decision.start) if one.number not in awaiting]
    before = sum(agent.state in ACTIVE and agent.number not in awaiting for agent in inputs.live)
    assert sum(agent.state in ACTIVE for agent in begun) <= max(inputs.max_running, before)
    assert not awaiting & decision.pause.keys()


def test_one_starts_for_which_another_waits_that_has_the_only_slot_and_call() -> None:
    parent = make_agent(1, state=State.RUNNING, account="here")
    child = make_agent(2, account="here", lead="agent:a1", above=("lead",))
    inputs = SchedulerInput([parent, child], 1, now=NOW, rate_limits={"here": RateLimit(1, 0, changed_at=NOW)})
    assert decide(inputs).start == ()
    assert decide(replace(inputs, waiting_for_nested={1})).start == (2,)


def test_what_agents_spawn_has_no_turns_beside_those_of_the_lead_above() -> None:
    nested = [make_agent(number, lead=f"agent:a{number}", above=("x",)) for number in (3, 4)]
    live = [make_agent(1, lead="x", state=State.RUNNING), *nested, make_agent(5, lead="y")]
    assert decide(SchedulerInput(live, 2)).start == (5,)


@given(scheduler_inputs())
def test_of_an_account_no_more_call_than_its_vendor_takes_and_none_starts_before_its_time(
    inputs: SchedulerInput,
) -> None:
    decision = decide(inputs)
    begun = _begun(inputs, decision.start, decision.pause)
    closed = {name for name, known in inputs.rate_limits.items() if known.closed_until > NOW}
    for name, known in inputs.rate_limits.items():
        calling = [one for one in begun if one.account == name and one.state in CALLING]
        assert (
            sum(one.state is State.RUNNING for one in calling) <= known.max_running
        )  # whoever prepares can't pause yet
        assert len(calling) <= known.max_running or not {one.number for one in calling} & set(decision.start)
    for agent in (one for one in inputs.live if one.number in decision.start):
        assert agent.pause.not_before <= NOW
        assert agent.account not in closed
    assert decision.decide_again_at > NOW


@given(scheduler_inputs())
def test_who_pauses_is_the_youngest_and_only_where_a_limit_says_so(inputs: SchedulerInput) -> None:
    by_number = {agent.number: agent for agent in inputs.live}
    for number in decide(inputs).pause:
        paused = by_number[number]
        assert paused.state in RUNS
        others = [one for one in inputs.live if one.account == paused.account and one.state in CALLING]
        assert sum(one.number < number for one in others) >= inputs.rate_limits[paused.account].max_running


@given(scheduler_inputs())
def test_nothing_starts_before_those_that_it_comes_after_or_once_they_have_failed(inputs: SchedulerInput) -> None:
    by_number = {agent.number: agent for agent in inputs.live}
    decision = decide(inputs)
    for number in decision.start:
        agent = by_number[number]
        if agent.has_begun:
            continue
        assert not any(one in by_number for one in agent.dependencies.after)
        failed = [one for one in agent.dependencies.after if inputs.ended[one] is not State.SUCCEEDED]
        assert not failed or agent.spec.on_failed_dependency == "run"
    for number in decision.skip:
        assert any(
            inputs.ended.get(one, State.SUCCEEDED) is not State.SUCCEEDED
            for one in by_number[number].dependencies.after
        )


@given(scheduler_inputs())
def test_no_slot_stays_free_while_one_could_start(inputs: SchedulerInput) -> None:
    decision = decide(inputs)
    again = decide(replace(inputs, live=_begun(inputs, decision.start, decision.pause)))
    assert again.start == ()


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(-2, 2)), max_size=40), st.integers(1, 12))
def test_leads_share_the_slots_and_each_has_its_own_in_order(rows: list[tuple[str, int]], most: int) -> None:
    queued = [make_agent(n, lead=lead, priority=priority) for n, (lead, priority) in enumerate(rows, 1)]
    start = decide(SchedulerInput(queued, most)).start
    started = Counter(queued[number - 1].lead for number in start)
    for lead in {agent.lead for agent in queued}:
        own = [agent for agent in queued if agent.lead == lead]
        first = sorted(own, key=lambda agent: (-agent.spec.priority, agent.number))[: started[lead]]
        assert [agent.number for agent in first] == [n for n in start if queued[n - 1].lead == lead]
        if started[lead] < len(own):  # whoever has some left has no fewer than another has, but for one
            assert all(started[lead] >= started[other] - 1 for other in started)


@given(agents(), st.integers(1, 6))
def test_everybody_is_in_one_wave_and_after_those_that_it_comes_after(made: list[Agent], most: int) -> None:
    queued = [change(agent, state=State.QUEUED, attempt=1, started=None) for agent in made]
    waves = plan_waves(SchedulerInput(queued, most), {agent.number for agent in queued})
    place = {number: wave for wave, numbers in enumerate(waves) for number in numbers}
    assert sorted(place) == [agent.number for agent in queued]
    assert all(len(numbers) <= most for numbers in waves)
    for agent in queued:
        assert all(place[one] < place[agent.number] for one in agent.dependencies.after if one in place)


def test_a_circle_waits_and_is_in_no_wave() -> None:
    circle = [make_agent(1, after=[2]), make_agent(2, after=[1]), make_agent(3)]
    assert plan_waves(SchedulerInput(circle, 4), {1, 2, 3}) == [(3,)]
    assert decide(SchedulerInput(circle, 4)).waiting == {
        1: "it comes after a2 (agent-2)",
        2: "it comes after a1 (agent-1)",
    }


def test_a_lead_with_a_hundred_agents_does_not_hold_up_another_with_one() -> None:
    many = [make_agent(n, lead="x", state=State.RUNNING if n <= 8 else State.QUEUED) for n in range(1, 101)]
    assert decide(SchedulerInput([*many, make_agent(101, lead="y")], 9)).start == (101,)


def test_of_leads_with_as_many_at_work_the_one_goes_on_whose_last_turn_is_longest_ago() -> None:
    many = [make_agent(n, lead="x", priority=9) for n in range(2, 9)]
    live = [*many, make_agent(9, lead="y"), make_agent(10, lead="z")]
    turns = {(1, "x"): 300.0, (1, "y"): 200.0, (1, "z"): 250.0}
    assert decide(SchedulerInput(live, 1, last_turns=turns)).start == (9,)
    assert decide(SchedulerInput(live, 4, last_turns=turns)).start == (9, 10, 2, 3)
    assert decide(SchedulerInput(live, 1, last_turns={(1, "x"): 300.0, (1, "y"): 200.0})).start == (10,)


def test_of_equals_the_one_starts_first_that_most_others_wait_for_and_priority_counts_before_that() -> None:
    chain = [make_agent(4), make_agent(5, after=[4]), make_agent(6, after=[5]), make_agent(7, after=[5])]
    live = [make_agent(1), make_agent(2, priority=1), make_agent(3), *chain, make_agent(8, after=[3])]
    assert queue_order(SchedulerInput(live, 1)) == [2, 4, 5, 3, 1, 6, 7, 8]


def test_the_reasons_name_who_is_in_the_way() -> None:
    running = make_agent(1, state=State.RUNNING, exclusive="port")
    late = make_agent(3, after=[1, 2, 4, 5, 6])
    live = [running, make_agent(2, exclusive="port"), late, make_agent(4), make_agent(5)]
    decision = decide(SchedulerInput(live, 2, {6: State.SUCCEEDED}))
    assert decision.start == (4,)
    assert decision.waiting == {
        2: "a1 (agent-1) has 'port' to itself",
        3: "it comes after a1 (agent-1), a2 (agent-2), a4 (agent-4) and 1 more",
        5: "all 2 slots are taken",
    }
    skipped = decide(SchedulerInput([make_agent(7, after=[1, 2])], 2, {1: State.SUCCEEDED, 2: State.TIMED_OUT})).skip
    assert skipped == {7: "skipped: a2 timed_out"}


def test_who_is_paused_keeps_its_key() -> None:
    live = [make_agent(1, state=State.PAUSED, exclusive="port", not_before=60), make_agent(2, exclusive="port")]
    assert decide(SchedulerInput(live, 8, now=59)).start == ()
    assert decide(SchedulerInput(live, 8, now=60)).start == (1,)


def test_whose_next_attempt_is_queued_takes_no_key_from_who_is_at_work() -> None:
    for state in (State.RUNNING, State.PAUSED):
        holder, other = make_agent(1, state=state, exclusive="port", not_before=60), make_agent(2, exclusive="port")
        live = [holder, replace(other, attempt=2)]
        assert 2 not in decide(SchedulerInput(live, 8, now=59)).start


def test_who_has_begun_goes_on_before_others_start() -> None:
    begun = [make_agent(3, state=State.PAUSED, kind=PauseKind.FROZEN), make_agent(4, attempt=2)]
    live = [make_agent(1), make_agent(2, priority=1), *begun]
    assert decide(SchedulerInput(live, 3)).start == (3, 4, 2)
    assert queue_order(SchedulerInput(live, 3)) == [4, 2, 1]


#: Four run of one account, two of another.
RUNNING = [make_agent(n, state=State.RUNNING, account="here" if n < 5 else "there") for n in range(1, 7)]
#: The same, of which the youngest of the one were frozen.
PAUSED = [change(one, state=State.PAUSED, kind=PauseKind.FROZEN) if one.number in (3, 4) else one for one in RUNNING]
TWO = RateLimit(2, closed_until=100, changed_at=90, reason="429")


def test_a_rate_limit_pauses_the_youngest_of_its_account_and_holds_no_other() -> None:
    live = [*RUNNING, make_agent(7, account="there")]
    decision = decide(SchedulerInput(live, 9, now=95, rate_limits={"here": TWO}))
    assert decision.start == (7,)
    assert {number: pause.why for number, pause in decision.pause.items()} == {3: "429", 4: "429"}
    assert all(pause.kind is PauseKind.FROZEN for pause in decision.pause.values())


def test_nobody_is_frozen_for_long() -> None:
    long = {"here": replace(TWO, closed_until=5000)}
    assert decide(SchedulerInput(RUNNING, 9, now=95, rate_limits=long)).pause == {}
    assert decide(SchedulerInput(PAUSED, 9, now=95, rate_limits=long)).start == (3, 4)


def test_it_is_looked_again_when_those_that_an_account_closed_for_long_let_run_are_to_pause() -> None:
    long = {"here": replace(TWO, closed_until=5000)}
    assert decide(SchedulerInput(RUNNING, 9, now=95, rate_limits=long)).decide_again_at == 3800
    assert decide(SchedulerInput(RUNNING, 9, now=3800, rate_limits=long)).pause.keys() == {3, 4}
    assert decide(SchedulerInput(RUNNING[:2], 9, now=95, rate_limits=long)).decide_again_at == math.inf


def test_what_is_frozen_goes_on_one_by_one_once_the_vendor_takes_more() -> None:
    closed = decide(SchedulerInput(PAUSED, 9, now=95, rate_limits={"here": TWO}))
    assert (closed.start, closed.decide_again_at) == ((), 100)
    assert closed.waiting[3].startswith("here takes no more until ")
    limited = decide(SchedulerInput(PAUSED, 9, now=100, rate_limits={"here": TWO}))
    assert (limited.waiting[3], limited.decide_again_at) == ("here takes 2 at once for now: 429", 110)
    more = {"here": replace(TWO, max_running=3)}
    assert decide(SchedulerInput(PAUSED, 9, now=110, rate_limits=more)).start == (3,)


def test_it_is_looked_again_when_the_first_has_rested() -> None:
    live = [make_agent(1, state=State.PAUSED, not_before=70), make_agent(2, state=State.PAUSED, not_before=65)]
    decision = decide(SchedulerInput(live, 9, now=60))
    assert decision.decide_again_at == 65
    assert decision.waiting[2].startswith("it rests until ")


def _begun(inputs: SchedulerInput, start: Sequence[int], pause: Collection[int] = ()) -> list[Agent]:
    to = {**dict.fromkeys(pause, State.PAUSED), **dict.fromkeys(start, State.PREPARING)}
    return [replace(agent, state=to.get(agent.number, agent.state)) for agent in inputs.live]
