"""The scheduler: any history keeps its promises."""

from dataclasses import replace

from agents import make_agent
from forkjoin.decision.scheduler import decide, default_max_running, in_order
from forkjoin.model import ACTIVE, FINAL, Agent, State
from hypothesis import given
from hypothesis import strategies as st

LIVE = [state for state in State if state not in FINAL]
agents = st.lists(st.tuples(st.sampled_from(LIVE), st.integers(-3, 3)), max_size=30).map(
    lambda rows: [make_agent(n, state=state, priority=priority) for n, (state, priority) in enumerate(rows, 1)]
)


@given(agents, st.integers(1, 10), st.sets(st.integers(1, 30)))
def test_no_more_run_than_may_and_no_slot_stays_free_while_one_could_start(
    live: list[Agent], most: int, homeless: set[int]
) -> None:
    decision = decide(live, most, homeless)
    active = sum(agent.state in ACTIVE for agent in live)
    able = [a for a in live if a.state is State.QUEUED and a.number not in homeless]
    assert len(decision.start) == max(0, min(len(able), most - active))


@given(agents, st.integers(1, 10), st.sets(st.integers(1, 30)))
def test_every_queued_agent_starts_or_is_told_why_not(live: list[Agent], most: int, homeless: set[int]) -> None:
    decision = decide(live, most, homeless)
    queued = {agent.number for agent in live if agent.state is State.QUEUED}
    assert set(decision.start) | set(decision.waiting) == queued
    assert not set(decision.start) & set(decision.waiting)
    assert all(decision.waiting.values())


@given(agents, st.integers(1, 10))
def test_whoever_starts_comes_before_all_who_wait(live: list[Agent], most: int) -> None:
    decision = decide(live, most, frozenset())
    order = [agent.number for agent in in_order(live)]
    assert order == [*decision.start, *decision.waiting]


def test_higher_priority_goes_first_and_then_the_older() -> None:
    queue = [make_agent(1), make_agent(2, priority=1), make_agent(3, priority=1), make_agent(4, priority=-1)]
    assert [agent.number for agent in in_order(queue)] == [2, 3, 1, 4]
    assert in_order([replace(agent, state=State.RUNNING) for agent in queue]) == []


def test_the_machine_carries_at_least_one_agent_and_no_more_than_its_memory() -> None:
    assert default_max_running(1, 0) == 1
    assert default_max_running(2, 64 << 30) == 8
    assert default_max_running(64, 6 << 30) == 6
    assert default_max_running(64, 640 << 30) == 16
