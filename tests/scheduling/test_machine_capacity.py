"""Agents start if the machine has memory for them, and give way if memory runs short."""

import math
from dataclasses import replace

from forkjoin.core.model import Agent, PauseKind, PauseReason, State
from forkjoin.scheduling.machine_capacity import MachineState, update_need
from forkjoin.scheduling.scheduler import SchedulerDecision, SchedulerInput, decide
from support.agent_records import change, make_agent

GB = 1_000_000_000
NOW = 1_000.0
#: Eight gigabytes are free, of which one is kept free. A program needs one until its use is known.
MACHINE = MachineState(free_bytes=8 * GB, kept_free_bytes=1 * GB)


def decide_on(machine: MachineState, *agents: Agent) -> SchedulerDecision:
    return decide(SchedulerInput(agents, 100, now=NOW, machine=machine))


def at_work(number: int, account: str = "claude", state: State = State.RUNNING) -> Agent:
    return make_agent(number, state=state, account=account, agent="claude")


def queued(*numbers: int) -> list[Agent]:
    return [make_agent(number, account="claude", agent="claude") for number in numbers]


def test_as_many_agents_start_as_fit_in_memory_and_the_others_say_why_they_wait() -> None:
    decision = decide_on(MACHINE, *queued(*range(1, 11)))
    assert decision.start == (1, 2, 3, 4, 5, 6, 7)
    assert decision.waiting == {
        8: "0.0 GB of memory free, 1.0 GB needed",
        9: "memory that becomes free is reserved for a8 (agent-8)",
        10: "memory that becomes free is reserved for a8 (agent-8)",
    }
    assert decision.decide_again_at < NOW + 60


def test_memory_that_running_agents_are_still_expected_to_take_is_not_free() -> None:
    machine = replace(MACHINE, free_bytes=3 * GB, used_bytes={1: GB // 4})
    assert decide_on(machine, at_work(1), *queued(2, 3)).start == (2,)


def test_an_agent_needs_the_memory_that_its_program_used_before() -> None:
    machine = replace(MACHINE, needed_bytes={(1, "claude"): 3 * GB})
    decision = decide_on(machine, *queued(1, 2, 3))
    assert decision.start == (1, 2)
    assert decision.waiting == {3: "1.0 GB of memory free, 3.0 GB needed"}


#: Two gigabytes are free: enough for agents that need one, but not for the first agent in the queue.
CROWDED = [at_work(1), make_agent(2, account="claude", agent="large"), *queued(3, 4)]
CROWD = replace(MACHINE, free_bytes=3 * GB, used_bytes={1: GB}, needed_bytes={(1, "large"): 4 * GB})


def test_memory_that_becomes_free_is_reserved_for_the_first_agent_that_does_not_fit() -> None:
    decision = decide_on(CROWD, *CROWDED)
    assert decision.start == ()
    assert decision.waiting == {
        2: "2.0 GB of memory free, 4.0 GB needed",
        3: "memory that becomes free is reserved for a2 (agent-2)",
        4: "memory that becomes free is reserved for a2 (agent-2)",
    }
    assert decide_on(replace(CROWD, free_bytes=6 * GB), *CROWDED).start == (2, 3)


def test_agents_before_the_one_that_does_not_fit_start_and_so_do_frozen_agents_behind_it() -> None:
    urgent = make_agent(5, account="claude", agent="claude", priority=1)
    frozen = make_agent(6, state=State.PAUSED, account="claude", agent="claude", kind=PauseKind.FROZEN, lead="other")
    others = [replace(at_work(number), lead="other") for number in (7, 8, 9)]  # so that the turn of a6 is the last
    machine = replace(CROWD, used_bytes=dict.fromkeys((1, 6, 7, 8, 9), GB))
    assert decide_on(machine, *CROWDED, urgent, frozen, *others).start == (5, 6)


def test_an_agent_that_waits_for_something_other_than_memory_reserves_none() -> None:
    resting = change(CROWDED[1], state=State.PAUSED, not_before=NOW + 60)
    assert decide_on(CROWD, CROWDED[0], resting, *CROWDED[2:]).start == (3, 4)


def test_the_only_agent_starts_even_if_the_machine_is_too_small() -> None:
    decision = decide_on(replace(MACHINE, free_bytes=GB // 2, load=50, max_load=8), *queued(1, 2))
    assert decision.start == (1,)


def test_no_further_agent_starts_while_the_load_is_high() -> None:
    decision = decide_on(replace(MACHINE, load=9.5, max_load=8), at_work(1), *queued(2))
    assert decision.waiting == {2: "the machine's load is 9.5: above 8.0"}
    assert decision.decide_again_at < NOW + 60


def test_the_youngest_agent_is_ended_when_memory_is_short_and_no_other_before_that_took_effect() -> None:
    short = replace(MACHINE, free_bytes=GB // 4)
    agents = [at_work(1), at_work(2), at_work(3)]
    pause = decide_on(short, *agents).pause
    assert [(number, paused.kind) for number, paused in pause.items()] == [(3, PauseKind.ENDING)]
    paused = change(agents[2], state=State.PAUSED, reason=PauseReason.MEMORY, not_before=NOW + 5)
    assert decide_on(short, *agents[:2], paused).pause == {}
    assert decide_on(short, *agents[:2], change(paused, not_before=NOW)).pause.keys() == {2}
    slow = change(paused, not_before=NOW, kind=PauseKind.ENDING)
    assert decide_on(short, *agents[:2], slow).pause == {}, "memory of the first agent may still become free"


def test_an_agent_gives_way_before_the_memory_limit_for_all_agents_is_reached() -> None:
    limited = replace(MACHINE, left_bytes=GB // 2, limit_bytes=8 * GB, used_bytes={1: GB, 2: GB})
    agents = [at_work(1), at_work(2)]
    assert decide_on(limited, *agents).pause == {}
    assert decide_on(limited, *agents, *queued(3)).waiting == {3: "0.5 GB of memory free, 1.0 GB needed"}
    assert decide_on(replace(limited, left_bytes=GB // 4), *agents).pause.keys() == {2}


def test_an_agent_that_can_not_be_resumed_is_frozen_when_memory_is_short() -> None:
    pause = decide_on(replace(MACHINE, free_bytes=GB // 4), at_work(1), at_work(2, account="")).pause
    assert [(number, paused.kind) for number, paused in pause.items()] == [(2, PauseKind.FROZEN)]


def test_a_frozen_agent_that_can_be_resumed_is_ended_first_even_if_only_one_agent_is_at_work() -> None:
    short = replace(MACHINE, free_bytes=GB // 4)
    frozen = [change(at_work(number, state=State.PAUSED), kind=PauseKind.FROZEN) for number in (1, 2)]
    frozen.append(change(at_work(3, account="", state=State.PAUSED), kind=PauseKind.FROZEN))
    decision = decide_on(short, *frozen, at_work(4))
    assert [(number, paused.kind) for number, paused in decision.pause.items()] == [(2, PauseKind.ENDING)]
    assert decide_on(MACHINE, *frozen, at_work(4)).decide_again_at < NOW + 60


def test_the_only_agent_never_gives_way() -> None:
    assert decide_on(replace(MACHINE, free_bytes=0), at_work(1)).pause == {}


def test_an_agent_that_gave_way_goes_on_once_it_fits_in_memory() -> None:
    paused = change(at_work(2), state=State.PAUSED, reason=PauseReason.MEMORY)
    assert decide_on(replace(MACHINE, free_bytes=GB), at_work(1), paused).start == ()
    assert decide_on(replace(MACHINE, free_bytes=3 * GB), at_work(1), paused).start == (2,)


def test_memory_is_checked_again_while_several_agents_run_and_never_if_none_does() -> None:
    assert decide_on(MACHINE, at_work(1), at_work(2)).decide_again_at < NOW + 60
    assert decide_on(MACHINE).decide_again_at == math.inf


def test_an_expected_need_rises_at_once_and_falls_slowly() -> None:
    assert update_need(None, 100) == 100
    assert update_need(100, 300) == 300
    assert update_need(300, 100) == 250
