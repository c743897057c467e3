"""The decisions of the scheduler, for examples and for generated agents."""

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
    """Generate up to twenty agents of three leads and two accounts.

    They depend on older agents, and share keys.
    """
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
    """Generate the input of a decision. Some of the agents have ended."""
    made = draw(agents())
    ended = {agent.number: draw(st.sampled_from(sorted(FINAL))) for agent in made if draw(st.integers(0, 3)) == 0}
    live = [agent for agent in made if agent.number not in ended]
    without_environment = draw(st.sets(st.integers(1, 20), max_size=2))
    return SchedulerInput(live, draw(st.integers(1, 6)), ended, without_environment, NOW, draw(rate_limits))


@given(scheduler_inputs())
def test_the_properties_of_a_decision_hold_for_every_input(inputs: SchedulerInput) -> None:
    """Check the properties together, because generating an input is the slow part."""
    each_queued_or_paused_agent_starts_or_is_skipped_or_has_a_reason_to_wait(inputs)
    no_more_than_max_running_agents_run_and_only_one_per_key(inputs)
    an_agent_that_waits_for_its_nested_agents_takes_no_slot(inputs)
    no_agent_starts_beyond_the_rate_limit_of_its_account_or_before_its_pause_ends(inputs)
    only_the_youngest_agents_of_an_account_pause_and_only_for_a_rate_limit(inputs)
    no_agent_starts_before_its_dependencies_have_ended_or_after_one_has_failed(inputs)
    no_slot_stays_free_while_an_agent_could_start(inputs)


def each_queued_or_paused_agent_starts_or_is_skipped_or_has_a_reason_to_wait(inputs: SchedulerInput) -> None:
    decision = decide(inputs)
    resting = sorted(agent.number for agent in inputs.live if agent.state in (State.QUEUED, State.PAUSED))
    assert sorted([*decision.start, *decision.skip, *decision.waiting]) == resting
    assert all([*decision.skip.values(), *decision.waiting.values()])


def no_more_than_max_running_agents_run_and_only_one_per_key(inputs: SchedulerInput) -> None:
    after = _apply(inputs, decide(inputs).start)
    before = sum(agent.state in ACTIVE for agent in inputs.live)
    assert sum(agent.state in ACTIVE for agent in after) <= max(inputs.max_running, before)
    held = Counter(agent.spec.exclusive for agent in after if agent.has_begun)
    taken = Counter(agent.spec.exclusive for agent in inputs.live if agent.has_begun)
    assert all(held[key] <= max(1, taken[key]) for key in held if key)


def an_agent_that_waits_for_its_nested_agents_takes_no_slot(inputs: SchedulerInput) -> None:
    awaiting = {agent.number for agent in inputs.live if agent.state is State.RUNNING}
    decision = decide(replace(inputs, waiting_for_nested=awaiting))
    after = [agent for agent in _apply(inputs, decision.start) if agent.number not in awaiting]
    before = sum(agent.state in ACTIVE and agent.number not in awaiting for agent in inputs.live)
    assert sum(agent.state in ACTIVE for agent in after) <= max(inputs.max_running, before)
    assert not awaiting & decision.pause.keys()


def test_a_nested_agent_starts_when_its_waiting_parent_has_the_only_slot_and_call() -> None:
    parent = make_agent(1, state=State.RUNNING, account="here")
    child = make_agent(2, account="here", lead="agent:a1", above=("lead",))
    inputs = SchedulerInput([parent, child], 1, now=NOW, rate_limits={"here": RateLimit(1, 0, changed_at=NOW)})
    assert decide(inputs).start == ()
    assert decide(replace(inputs, waiting_for_nested={1})).start == (2,)


def test_nested_agents_share_the_turns_of_the_lead_above() -> None:
    nested = [make_agent(number, lead=f"agent:a{number}", above=("x",)) for number in (3, 4)]
    live = [make_agent(1, lead="x", state=State.RUNNING), *nested, make_agent(5, lead="y")]
    assert decide(SchedulerInput(live, 2)).start == (5,)


def no_agent_starts_beyond_the_rate_limit_of_its_account_or_before_its_pause_ends(
    inputs: SchedulerInput,
) -> None:
    decision = decide(inputs)
    after = _apply(inputs, decision.start, decision.pause)
    closed = {name for name, known in inputs.rate_limits.items() if known.closed_until > NOW}
    for name, known in inputs.rate_limits.items():
        calling = [agent for agent in after if agent.account == name and agent.state in CALLING]
        assert (
            sum(agent.state is State.RUNNING for agent in calling) <= known.max_running
        )  # an agent that is being prepared can't pause yet
        assert len(calling) <= known.max_running or not {agent.number for agent in calling} & set(decision.start)
    for agent in (agent for agent in inputs.live if agent.number in decision.start):
        assert agent.pause.not_before <= NOW
        assert agent.account not in closed
    assert decision.decide_again_at > NOW


def only_the_youngest_agents_of_an_account_pause_and_only_for_a_rate_limit(inputs: SchedulerInput) -> None:
    by_number = {agent.number: agent for agent in inputs.live}
    for number in decide(inputs).pause:
        paused = by_number[number]
        assert paused.state in RUNS
        others = [agent for agent in inputs.live if agent.account == paused.account and agent.state in CALLING]
        assert sum(other.number < number for other in others) >= inputs.rate_limits[paused.account].max_running


def no_agent_starts_before_its_dependencies_have_ended_or_after_one_has_failed(inputs: SchedulerInput) -> None:
    by_number = {agent.number: agent for agent in inputs.live}
    decision = decide(inputs)
    for number in decision.start:
        agent = by_number[number]
        if agent.has_begun:
            continue
        assert not any(older in by_number for older in agent.dependencies.after)
        failed = [older for older in agent.dependencies.after if inputs.ended[older] is not State.SUCCEEDED]
        assert not failed or agent.spec.on_failed_dependency == "run"
    for number in decision.skip:
        assert any(
            inputs.ended.get(older, State.SUCCEEDED) is not State.SUCCEEDED
            for older in by_number[number].dependencies.after
        )


def no_slot_stays_free_while_an_agent_could_start(inputs: SchedulerInput) -> None:
    decision = decide(inputs)
    again = decide(replace(inputs, live=_apply(inputs, decision.start, decision.pause)))
    assert again.start == ()


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(-2, 2)), max_size=40), st.integers(1, 12))
def test_leads_share_the_slots_and_the_agents_of_a_lead_start_in_order(rows: list[tuple[str, int]], most: int) -> None:
    queued = [make_agent(n, lead=lead, priority=priority) for n, (lead, priority) in enumerate(rows, 1)]
    start = decide(SchedulerInput(queued, most)).start
    started = Counter(queued[number - 1].lead for number in start)
    for lead in {agent.lead for agent in queued}:
        own = [agent for agent in queued if agent.lead == lead]
        first = sorted(own, key=lambda agent: (-agent.spec.priority, agent.number))[: started[lead]]
        assert [agent.number for agent in first] == [n for n in start if queued[n - 1].lead == lead]
        if started[lead] < len(own):  # agents are left, so no other lead has started 2 more
            assert all(started[lead] >= started[other] - 1 for other in started)


@given(agents(), st.integers(1, 6))
def test_each_agent_is_in_one_wave_after_the_waves_of_its_dependencies(made: list[Agent], most: int) -> None:
    queued = [change(agent, state=State.QUEUED, attempt=1, started=None) for agent in made]
    waves = plan_waves(SchedulerInput(queued, most), {agent.number for agent in queued})
    place = {number: wave for wave, numbers in enumerate(waves) for number in numbers}
    assert sorted(place) == [agent.number for agent in queued]
    assert all(len(numbers) <= most for numbers in waves)
    for agent in queued:
        assert all(place[older] < place[agent.number] for older in agent.dependencies.after if older in place)


def test_agents_with_circular_dependencies_wait_and_are_in_no_wave() -> None:
    circle = [make_agent(1, after=[2]), make_agent(2, after=[1]), make_agent(3)]
    assert plan_waves(SchedulerInput(circle, 4), {1, 2, 3}) == [(3,)]
    assert decide(SchedulerInput(circle, 4)).waiting == {
        1: "it comes after a2 (agent-2)",
        2: "it comes after a1 (agent-1)",
    }


def test_a_lead_with_a_hundred_agents_does_not_delay_another_lead_with_one_agent() -> None:
    many = [make_agent(n, lead="x", state=State.RUNNING if n <= 8 else State.QUEUED) for n in range(1, 101)]
    assert decide(SchedulerInput([*many, make_agent(101, lead="y")], 9)).start == (101,)


def test_the_lead_with_the_oldest_last_turn_is_first_among_leads_with_equally_many_active_agents() -> None:
    many = [make_agent(n, lead="x", priority=9) for n in range(2, 9)]
    live = [*many, make_agent(9, lead="y"), make_agent(10, lead="z")]
    turns = {(1, "x"): 300.0, (1, "y"): 200.0, (1, "z"): 250.0}
    assert decide(SchedulerInput(live, 1, last_turns=turns)).start == (9,)
    assert decide(SchedulerInput(live, 4, last_turns=turns)).start == (9, 10, 2, 3)
    assert decide(SchedulerInput(live, 1, last_turns={(1, "x"): 300.0, (1, "y"): 200.0})).start == (10,)


def test_priority_comes_first_in_the_queue_and_then_the_number_of_dependents() -> None:
    chain = [make_agent(4), make_agent(5, after=[4]), make_agent(6, after=[5]), make_agent(7, after=[5])]
    live = [make_agent(1), make_agent(2, priority=1), make_agent(3), *chain, make_agent(8, after=[3])]
    assert queue_order(SchedulerInput(live, 1)) == [2, 4, 5, 3, 1, 6, 7, 8]


def test_the_reasons_name_the_agents_that_others_wait_for() -> None:
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


def test_a_paused_agent_keeps_its_key() -> None:
    live = [make_agent(1, state=State.PAUSED, exclusive="port", not_before=60), make_agent(2, exclusive="port")]
    assert decide(SchedulerInput(live, 8, now=59)).start == ()
    assert decide(SchedulerInput(live, 8, now=60)).start == (1,)


def test_a_queued_next_attempt_does_not_take_the_key_of_an_active_agent() -> None:
    for state in (State.RUNNING, State.PAUSED):
        holder, other = make_agent(1, state=state, exclusive="port", not_before=60), make_agent(2, exclusive="port")
        live = [holder, replace(other, attempt=2)]
        assert 2 not in decide(SchedulerInput(live, 8, now=59)).start


def test_agents_that_have_begun_continue_before_others_start() -> None:
    begun = [make_agent(3, state=State.PAUSED, kind=PauseKind.FROZEN), make_agent(4, attempt=2)]
    live = [make_agent(1), make_agent(2, priority=1), *begun]
    assert decide(SchedulerInput(live, 3)).start == (3, 4, 2)
    assert queue_order(SchedulerInput(live, 3)) == [4, 2, 1]


#: Six running agents: four of one account, two of another.
RUNNING = [make_agent(n, state=State.RUNNING, account="here" if n < 5 else "there") for n in range(1, 7)]
#: The same agents after the two youngest of the first account were frozen.
PAUSED = [
    change(agent, state=State.PAUSED, kind=PauseKind.FROZEN) if agent.number in (3, 4) else agent for agent in RUNNING
]
TWO = RateLimit(2, closed_until=100, changed_at=90, reason="429")


def test_a_rate_limit_pauses_the_youngest_agents_of_its_account_and_of_no_other() -> None:
    live = [*RUNNING, make_agent(7, account="there")]
    decision = decide(SchedulerInput(live, 9, now=95, rate_limits={"here": TWO}))
    assert decision.start == (7,)
    assert {number: pause.why for number, pause in decision.pause.items()} == {3: "429", 4: "429"}
    assert all(pause.kind is PauseKind.FROZEN for pause in decision.pause.values())


def test_no_agent_is_frozen_for_long() -> None:
    long = {"here": replace(TWO, closed_until=5000)}
    assert decide(SchedulerInput(RUNNING, 9, now=95, rate_limits=long)).pause == {}
    assert decide(SchedulerInput(PAUSED, 9, now=95, rate_limits=long)).start == (3, 4)


def test_the_next_decision_is_due_when_agents_of_an_account_that_is_closed_for_long_should_pause() -> None:
    long = {"here": replace(TWO, closed_until=5000)}
    assert decide(SchedulerInput(RUNNING, 9, now=95, rate_limits=long)).decide_again_at == 3800
    assert decide(SchedulerInput(RUNNING, 9, now=3800, rate_limits=long)).pause.keys() == {3, 4}
    assert decide(SchedulerInput(RUNNING[:2], 9, now=95, rate_limits=long)).decide_again_at == math.inf


def test_frozen_agents_continue_one_by_one_once_the_vendor_accepts_more() -> None:
    closed = decide(SchedulerInput(PAUSED, 9, now=95, rate_limits={"here": TWO}))
    assert (closed.start, closed.decide_again_at) == ((), 100)
    assert closed.waiting[3].startswith("here takes no more until ")
    limited = decide(SchedulerInput(PAUSED, 9, now=100, rate_limits={"here": TWO}))
    assert (limited.waiting[3], limited.decide_again_at) == ("here takes 2 at once for now: 429", 110)
    more = {"here": replace(TWO, max_running=3)}
    assert decide(SchedulerInput(PAUSED, 9, now=110, rate_limits=more)).start == (3,)


def test_the_next_decision_is_due_when_the_first_pause_ends() -> None:
    live = [make_agent(1, state=State.PAUSED, not_before=70), make_agent(2, state=State.PAUSED, not_before=65)]
    decision = decide(SchedulerInput(live, 9, now=60))
    assert decision.decide_again_at == 65
    assert decision.waiting[2].startswith("it rests until ")


def _apply(inputs: SchedulerInput, start: Sequence[int], pause: Collection[int] = ()) -> list[Agent]:
    """Return the agents as they are after the decision was applied."""
    states = {**dict.fromkeys(pause, State.PAUSED), **dict.fromkeys(start, State.PREPARING)}
    return [replace(agent, state=states.get(agent.number, agent.state)) for agent in inputs.live]
