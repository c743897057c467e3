"""Room: agents start where there is memory for them, and pause where it runs short."""

import math
from collections.abc import Mapping
from dataclasses import replace

from forkjoin.core.model import Agent, State
from forkjoin.scheduling.machine_capacity import KEPT_S, PATIENCE_S, MachineState, update_need
from forkjoin.scheduling.scheduler import SchedulerDecision, SchedulerInput, decide
from support.agent_records import change, make_agent

GB = 1_000_000_000
NOW = 1_000.0
#: Eight of ten gigabytes free, of which one is kept; an agent takes one until it is known.
MACHINE = MachineState(free=8 * GB, kept_free_bytes=1 * GB)


def decide_on(
    machine: MachineState, *agents: Agent, short_since: Mapping[int, float] | None = None
) -> SchedulerDecision:
    return decide(SchedulerInput(agents, 100, now=NOW, machine=machine, short_since=short_since or {}))


def at_work(number: int, account: str = "claude", state: State = State.RUNNING) -> Agent:
    return make_agent(number, state=state, account=account, agent="claude")


def queued(*numbers: int) -> list[Agent]:
    return [make_agent(number, account="claude", agent="claude") for number in numbers]


def test_as_many_start_as_there_is_memory_for_and_the_others_are_told() -> None:
    decision = decide_on(MACHINE, *queued(*range(1, 11)))
    assert decision.start == (1, 2, 3, 4, 5, 6, 7)
    assert set(decision.waiting.values()) == {"0.0 GB of memory free, 1.0 GB needed"}
    assert decision.decide_again_at < NOW + 60


def test_what_those_at_work_have_yet_to_take_is_not_given_to_others() -> None:
    machine = replace(MACHINE, free=3 * GB, taken={1: GB // 4})
    assert decide_on(machine, at_work(1), *queued(2, 3)).start == (2,)


def test_a_kind_of_agent_needs_what_was_seen_of_it() -> None:
    machine = replace(MACHINE, needs={(1, "claude"): 3 * GB})
    decision = decide_on(machine, *queued(1, 2, 3))
    assert decision.start == (1, 2)
    assert decision.waiting == {3: "1.0 GB of memory free, 3.0 GB needed"}


#: Two gigabytes are free: enough for those that need one, and not for the first that waits.
CROWDED = [at_work(1), make_agent(2, account="claude", agent="large"), *queued(3, 4)]
CROWD = replace(MACHINE, free=3 * GB, taken={1: GB}, needs={(1, "large"): 4 * GB})


def test_for_one_that_has_waited_long_what_comes_free_is_kept() -> None:
    at_first = decide_on(CROWD, *CROWDED)
    assert (at_first.start, at_first.short_since) == ((3, 4), {2: NOW})
    patient = decide_on(CROWD, *CROWDED, short_since={2: NOW - PATIENCE_S + 1})
    assert (patient.start, patient.decide_again_at) == ((3, 4), NOW + 1)
    kept = decide_on(CROWD, *CROWDED, short_since={2: NOW - PATIENCE_S})
    assert (kept.start, kept.short_since) == ((), {2: NOW - PATIENCE_S})
    assert kept.waiting[2] == "2.0 GB of memory free, 4.0 GB needed"
    assert kept.waiting[3].startswith("what memory comes free is for a2 (agent-2), which waits since ")
    enough = decide_on(replace(CROWD, free=6 * GB), *CROWDED, short_since=kept.short_since)
    assert (enough.start, enough.short_since) == ((2, 3), {4: NOW})


def test_others_do_not_wait_for_hours_for_one_that_an_agent_which_runs_so_long_leaves_no_room() -> None:
    for turn in range(4):
        since = NOW - PATIENCE_S - turn * KEPT_S
        assert bool(decide_on(CROWD, *CROWDED, short_since={2: since}).start) == (turn % 2 == 1)


def test_who_goes_before_one_that_has_waited_long_or_is_frozen_is_not_held_behind_it() -> None:
    urgent = make_agent(5, account="claude", agent="claude", priority=1)
    thawing = make_agent(6, state=State.PAUSED, account="claude", agent="claude", frozen=True, lead="other")
    others = [replace(at_work(number), lead="other") for number in (7, 8, 9)]  # so that its turn is the last
    machine = replace(CROWD, taken=dict.fromkeys((1, 6, 7, 8, 9), GB))
    decision = decide_on(machine, *CROWDED, urgent, thawing, *others, short_since={2: 0})
    assert decision.start == (5, 6)


def test_who_waits_for_something_else_than_room_holds_nobody_back() -> None:
    resting = change(CROWDED[1], state=State.PAUSED, not_before=NOW + 60)
    decision = decide_on(CROWD, CROWDED[0], resting, *CROWDED[2:], short_since={2: 0})
    assert (decision.start, decision.short_since) == ((3, 4), {2: 0})


def test_the_only_one_starts_though_the_machine_may_be_too_small() -> None:
    decision = decide_on(replace(MACHINE, free=GB // 2, load=50, most_load=8), *queued(1, 2))
    assert decision.start == (1,)


def test_nobody_starts_beside_others_while_the_load_is_high() -> None:
    decision = decide_on(replace(MACHINE, load=9.5, most_load=8), at_work(1), *queued(2))
    assert decision.waiting == {2: "the machine's load is 9.5: above 8.0"}
    assert decision.decide_again_at < NOW + 60


def test_where_memory_is_short_the_youngest_ends_to_be_resumed_and_no_other_meanwhile() -> None:
    short = replace(MACHINE, free=GB // 4)
    agents = [at_work(1), at_work(2), at_work(3)]
    pause = decide_on(short, *agents).pause
    assert [(number, one.ending, one.frozen) for number, one in pause.items()] == [(3, True, False)]
    paused = change(agents[2], state=State.PAUSED, why="memory is short", not_before=NOW + 5)
    assert decide_on(short, *agents[:2], paused).pause == {}
    assert decide_on(short, *agents[:2], change(paused, not_before=NOW)).pause.keys() == {2}
    slow = change(paused, not_before=NOW, ending=True)
    assert decide_on(short, *agents[:2], slow).pause == {}, "its memory may yet come free"


def test_one_gives_way_before_what_all_may_take_together_is_taken() -> None:
    limited = replace(MACHINE, left=GB // 2, in_all=8 * GB, taken={1: GB, 2: GB})
    agents = [at_work(1), at_work(2)]
    assert decide_on(limited, *agents).pause == {}
    assert decide_on(limited, *agents, *queued(3)).waiting == {3: "0.5 GB of memory free, 1.0 GB needed"}
    assert decide_on(replace(limited, left=GB // 4), *agents).pause.keys() == {2}


def test_what_can_not_be_resumed_is_frozen() -> None:
    pause = decide_on(replace(MACHINE, free=GB // 4), at_work(1), at_work(2, account="")).pause
    assert [(number, one.ending, one.frozen) for number, one in pause.items()] == [(2, False, True)]


def test_what_is_frozen_and_can_be_resumed_ends_first_even_where_only_one_is_at_work() -> None:
    short = replace(MACHINE, free=GB // 4)
    frozen = [change(at_work(number, state=State.PAUSED), frozen=True) for number in (1, 2)]
    frozen.append(change(at_work(3, account="", state=State.PAUSED), frozen=True))
    decision = decide_on(short, *frozen, at_work(4))
    assert [(number, one.ending, one.frozen) for number, one in decision.pause.items()] == [(2, True, False)]
    assert decide_on(MACHINE, *frozen, at_work(4)).decide_again_at < NOW + 60


def test_the_only_one_is_never_paused() -> None:
    assert decide_on(replace(MACHINE, free=0), at_work(1)).pause == {}


def test_one_that_paused_goes_on_once_there_is_room_for_it() -> None:
    paused = change(at_work(2), state=State.PAUSED, why="memory is short")
    assert decide_on(replace(MACHINE, free=GB), at_work(1), paused).start == ()
    assert decide_on(replace(MACHINE, free=3 * GB), at_work(1), paused).start == (2,)


def test_memory_is_looked_at_again_while_several_run_and_never_where_nobody_does() -> None:
    assert decide_on(MACHINE, at_work(1), at_work(2)).decide_again_at < NOW + 60
    assert decide_on(MACHINE).decide_again_at == math.inf


def test_a_need_follows_a_larger_peak_at_once_and_smaller_ones_slowly() -> None:
    assert update_need(None, 100) == 100
    assert update_need(100, 300) == 300
    assert update_need(300, 100) == 250
