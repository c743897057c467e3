"""Room: agents start where there is memory for them, and pause where it runs short."""

import math
from dataclasses import replace

from agents import make_agent
from forkjoin.decision.machine import Machine, learn
from forkjoin.decision.scheduler import Decision, Situation, decide
from forkjoin.model import Agent, State

GB = 1_000_000_000
NOW = 1_000.0
#: Eight of ten gigabytes free, of which one is kept; an agent takes one until it is known.
MACHINE = Machine(free=8 * GB, kept_free=1 * GB)


def decide_on(machine: Machine, *agents: Agent) -> Decision:
    return decide(Situation(agents, 100, now=NOW, machine=machine))


def at_work(number: int, account: str = "claude", state: State = State.RUNNING) -> Agent:
    return make_agent(number, state=state, account=account, agent="claude")


def queued(*numbers: int) -> list[Agent]:
    return [make_agent(number, account="claude", agent="claude") for number in numbers]


def test_as_many_start_as_there_is_memory_for_and_the_others_are_told() -> None:
    decision = decide_on(MACHINE, *queued(*range(1, 11)))
    assert decision.start == (1, 2, 3, 4, 5, 6, 7)
    assert set(decision.waiting.values()) == {"0.0 GB of memory free, 1.0 GB needed"}
    assert decision.next_look < NOW + 60


def test_what_those_at_work_have_yet_to_take_is_not_given_to_others() -> None:
    machine = replace(MACHINE, free=3 * GB, taken={1: GB // 4})
    assert decide_on(machine, at_work(1), *queued(2, 3)).start == (2,)


def test_a_kind_of_agent_needs_what_was_seen_of_it() -> None:
    machine = replace(MACHINE, needs={(1, "claude"): 3 * GB})
    decision = decide_on(machine, *queued(1, 2, 3))
    assert decision.start == (1, 2)
    assert decision.waiting == {3: "1.0 GB of memory free, 3.0 GB needed"}


def test_the_only_one_starts_though_the_machine_may_be_too_small() -> None:
    decision = decide_on(replace(MACHINE, free=GB // 2, load=50, most_load=8), *queued(1, 2))
    assert decision.start == (1,)


def test_nobody_starts_beside_others_while_the_load_is_high() -> None:
    decision = decide_on(replace(MACHINE, load=9.5, most_load=8), at_work(1), *queued(2))
    assert decision.waiting == {2: "the machine's load is 9.5: above 8.0"}
    assert decision.next_look < NOW + 60


def test_where_memory_is_short_the_youngest_ends_to_be_resumed_and_no_other_meanwhile() -> None:
    short = replace(MACHINE, free=GB // 4)
    agents = [at_work(1), at_work(2), at_work(3)]
    pause = decide_on(short, *agents).pause
    assert [(number, one.ending, one.frozen) for number, one in pause.items()] == [(3, True, False)]
    paused = replace(agents[2], state=State.PAUSED, paused_why="memory is short", not_before=NOW + 5)
    assert decide_on(short, *agents[:2], paused).pause == {}
    assert decide_on(short, *agents[:2], replace(paused, not_before=NOW)).pause.keys() == {2}


def test_what_can_not_be_resumed_is_frozen() -> None:
    pause = decide_on(replace(MACHINE, free=GB // 4), at_work(1), at_work(2, account="")).pause
    assert [(number, one.ending, one.frozen) for number, one in pause.items()] == [(2, False, True)]


def test_the_only_one_is_never_paused() -> None:
    assert decide_on(replace(MACHINE, free=0), at_work(1)).pause == {}


def test_one_that_paused_goes_on_once_there_is_room_for_it() -> None:
    paused = replace(at_work(2), state=State.PAUSED, paused_why="memory is short")
    assert decide_on(replace(MACHINE, free=GB), at_work(1), paused).start == ()
    assert decide_on(replace(MACHINE, free=3 * GB), at_work(1), paused).start == (2,)


def test_memory_is_looked_at_again_while_several_run_and_never_where_nobody_does() -> None:
    assert decide_on(MACHINE, at_work(1), at_work(2)).next_look < NOW + 60
    assert decide_on(MACHINE).next_look == math.inf


def test_a_need_follows_a_larger_peak_at_once_and_smaller_ones_slowly() -> None:
    assert learn(None, 100) == 100
    assert learn(100, 300) == 300
    assert learn(300, 100) == 250
