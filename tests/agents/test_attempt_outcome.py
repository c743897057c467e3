"""The final states of attempts."""

import pytest
from forkjoin.agents.finish import final_state
from forkjoin.agents.wait_for_agents import divide_by_end
from forkjoin.core.model import State
from forkjoin.core.outcome import Outcome
from forkjoin.core.result import Verify
from support.agent_records import make_agent

EXITED = Outcome("exited", 0)

CASES = [
    (EXITED, False, True, Verify.PASSED, State.SUCCEEDED),
    (EXITED, False, True, Verify.NONE, State.SUCCEEDED),
    (EXITED, False, True, Verify.FAILED, State.FAILED),
    (EXITED, False, False, Verify.NONE, State.FAILED),
    (EXITED, True, True, Verify.NONE, State.STOPPED),
    (Outcome("signalled", 9), False, False, Verify.NONE, State.FAILED),
    (Outcome("signalled", 9), True, False, Verify.NONE, State.STOPPED),
    (Outcome("timed_out"), False, False, Verify.NONE, State.TIMED_OUT),
    (Outcome("limited", 9, "by its memory limit"), False, False, Verify.NONE, State.FAILED),
    (Outcome("lost"), False, True, Verify.NONE, State.LOST),
    (Outcome("not_started", error="no such file"), False, False, Verify.NONE, State.FAILED),
]


@pytest.mark.parametrize(("outcome", "stop_asked", "ok", "verify", "state"), CASES)
def test_the_final_state_says_why_an_attempt_ended(
    outcome: Outcome, stop_asked: bool, ok: bool, verify: Verify, state: State
) -> None:
    assert final_state(outcome, stop_asked=stop_asked, concluded_ok=ok, verify=verify) is state


def test_a_wait_for_any_ends_with_the_first_agent_and_a_wait_for_all_with_the_last() -> None:
    waited = divide_by_end([make_agent(1, state=State.RUNNING), make_agent(2, state=State.FAILED)])
    assert [agent.number for agent in waited.finished] == [2]
    assert waited.is_over("any")
    assert not waited.is_over("all")
    assert divide_by_end([make_agent(1, state=State.LOST)]).is_over("all")


def test_a_wait_for_no_agent_ends_at_once() -> None:
    assert divide_by_end([]).is_over("all")
    assert divide_by_end([]).is_over("any")
