"""Phases, pauses and outcomes."""

from forkjoin.core.model import FINAL, TRANSITIONS, Pause, PauseKind, PauseReason, State
from forkjoin.core.outcome import Outcome


def test_every_phase_is_reachable_and_only_final_and_resting_agents_are_queued_again() -> None:
    phases = {*State, *PauseKind} - {State.PAUSED}
    assert TRANSITIONS.keys() == phases
    assert {State.QUEUED}.union(*TRANSITIONS.values()) == phases
    assert {phase for phase, to in TRANSITIONS.items() if State.QUEUED in to} == FINAL | {PauseKind.RESTING}
    assert all(TRANSITIONS.values())


def test_a_pause_explains_itself_by_its_reason_or_by_its_details() -> None:
    assert Pause(PauseReason.MEMORY).why == "memory is short"
    assert Pause(PauseReason.RATE_LIMIT, "429 too many requests").why == "429 too many requests"
    assert Pause(details="a reason that version 0.1 recorded").why == "a reason that version 0.1 recorded"
    assert Pause().why == ""


def test_an_outcome_is_described_in_words() -> None:
    assert str(Outcome("exited", 3)) == "exit 3"
    assert str(Outcome("signalled", 9)) == "killed by signal 9"
    assert str(Outcome("limited", 9, "by its memory limit")) == "ended by its memory limit"
    assert str(Outcome("not_started", error="no such file")) == "could not be started: no such file"
