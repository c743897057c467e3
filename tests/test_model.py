"""The words: names, tasks, states."""

import re

import pytest
from forkjoin.model import FINAL, TRANSITIONS, Outcome, Spec, State, check_name, slug
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError


@given(st.text())
def test_what_is_made_of_any_text_may_be_a_name_or_is_empty(text: str) -> None:
    made = slug(text)
    assert made == "" or check_name(made) == made
    assert len(made) <= 34


@given(st.text(max_size=80))
def test_a_name_is_taken_as_it_is_or_refused_with_the_rule(name: str) -> None:
    try:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", check_name(name))
    except ValueError as error:
        assert "a name is 1 to 64" in str(error)


@pytest.mark.parametrize("name", ["a1", "a12", "x/y", "x.lock", "", "-x", "x y", "é", "x\0", "@{-1}"])
def test_a_name_that_is_an_id_or_no_ref_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name is 1 to 64"):
        check_name(name)


@pytest.mark.parametrize("task", ["", "  \n", "a\0b", "\ud800", 5, None])
def test_a_task_that_no_program_could_be_fed_is_refused(task: object) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate({"task": task})


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
