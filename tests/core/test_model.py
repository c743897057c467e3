"""The words: states and ends."""

from forkjoin.core.model import FINAL, TRANSITIONS, Outcome, State


def test_every_state_can_be_reached_and_only_final_ones_lead_back_to_the_queue() -> None:
    reached = {State.QUEUED}.union(*TRANSITIONS.values())
    assert reached == set(State)
    assert {state for state, to in TRANSITIONS.items() if State.QUEUED in to} == FINAL | {State.PAUSED}
    assert all(TRANSITIONS[state] for state in State)


def test_an_outcome_says_in_words_how_it_ended() -> None:
    assert str(Outcome("exited", 3)) == "exit 3"
    assert str(Outcome("signalled", 9)) == "killed by signal 9"
    assert str(Outcome("limited", 9, "by its memory limit")) == "ended by its memory limit"
    assert str(Outcome("not_started", error="no such file")) == "could not be started: no such file"
