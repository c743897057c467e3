"""The governor: how much a vendor takes is found out by its refusals."""

from dataclasses import replace

import pytest
from forkjoin.decision.governor import GROWS_EVERY_S, Account, Refusal, grow, next_growth, refuse
from hypothesis import given
from hypothesis import strategies as st

KNOWN = Account(most=4, closed_until=100, halved=90, changed=90, refusals=1, why="429")


def test_a_refusal_halves_what_runs_and_closes_for_as_long_as_was_said() -> None:
    known = refuse(None, Refusal(50, "429", wait_s=3), running=12)
    assert known == Account(most=6, closed_until=53, halved=50, changed=50, refusals=1, why="429")
    again = refuse(known, Refusal(60, "429", wait_s=1), running=5)
    assert (again.most, again.refusals) == (2, 2)
    assert refuse(again, Refusal(70, "429"), running=1).most == 1


def test_refusals_of_calls_that_were_under_way_count_once() -> None:
    known = refuse(KNOWN, Refusal(94, "529", wait_s=10), running=4)
    assert known == replace(KNOWN, closed_until=104)
    assert refuse(KNOWN, Refusal(94, "529", wait_s=1), running=4) == KNOWN


def test_without_a_time_the_rest_is_doubled_each_time_to_ten_minutes() -> None:
    assert refuse(None, Refusal(0, "429"), 8).closed_until == 5
    assert refuse(replace(KNOWN, refusals=3), Refusal(1000, "429"), 8).closed_until == 1040
    assert refuse(replace(KNOWN, refusals=900), Refusal(1000, "429"), 8).closed_until == 1600
    assert refuse(replace(KNOWN, refusals=900), Refusal(1000, "429", jitter=1), 8).closed_until == 2200


@pytest.mark.parametrize(("until", "closed"), [(4600, 4600), (1e300, 1000 + 8 * 24 * 3600)])
def test_a_limit_of_use_closes_until_it_is_reset_but_no_longer_than_any_lasts(until: float, closed: float) -> None:
    assert refuse(None, Refusal(1000, "limit", until=until), 8).closed_until == closed
    later = refuse(None, Refusal(1000, "limit", until=4600, jitter=0.5), 8)
    assert later.closed_until == 4605


def test_each_while_without_a_refusal_lets_one_more_run_until_that_is_enough() -> None:
    assert grow(KNOWN, 109.9, enough=16) == KNOWN
    assert next_growth(KNOWN) == 110
    assert grow(KNOWN, 110, enough=16) == replace(KNOWN, most=5, changed=110, refusals=0)
    later = grow(KNOWN, 139, enough=16)
    assert later == replace(KNOWN, most=7, changed=130, refusals=0)
    assert grow(KNOWN, 140, enough=8) is None


@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.floats(0.1, 100), st.booleans(), st.none() | st.floats(0, 120)), max_size=60),
)
def test_one_may_always_run_and_never_more_than_would_without_a_limit(
    enough: int, history: list[tuple[float, bool, float | None]]
) -> None:
    known, now = None, 0.0
    for pause, refused, wait in history:
        now += pause
        known = known and grow(known, now, enough)
        if refused:
            known = refuse(known, Refusal(now, "429", wait), running=known.most if known else enough)
        if known:
            assert 1 <= known.most <= enough
            assert known.closed_until <= now + 1200


@pytest.mark.parametrize("takes", [1, 3, 7])
def test_what_runs_settles_at_what_the_vendor_takes(takes: int) -> None:
    """Whatever runs calls once a second; more than `takes` are refused."""
    known, history = None, list[int]()
    for second in range(1200):
        known = known and grow(known, second, 12)
        running = known.most if known else 12
        if known is None or second >= known.closed_until:
            history.append(running)
            if running > takes:
                known = refuse(known, Refusal(second, "429", wait_s=2), running)
    late = history[len(history) // 4 :]
    assert max(late) <= takes + 1
    assert sum(running > takes for running in late) < len(late) / GROWS_EVERY_S
    assert sum(late) / len(late) > takes / 2
