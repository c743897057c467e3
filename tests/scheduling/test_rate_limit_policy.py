"""The rate-limit policy: how much a vendor takes is found out by its refusals."""

from dataclasses import replace

import pytest
from forkjoin.core.event import RateLimited
from forkjoin.scheduling.rate_limit_policy import RECOVERY_INTERVAL_S, RateLimit, record_refusal, recover
from hypothesis import given
from hypothesis import strategies as st

KNOWN = RateLimit(max_running=4, closed_until=100, halved_at=90, changed_at=90, refusals=1, reason="429")
UNTIMED = RateLimited("429")


def timed(wait_s: float) -> RateLimited:
    return RateLimited("429", wait_s=wait_s)


def test_a_refusal_halves_what_runs_and_closes_for_as_long_as_was_said() -> None:
    known = record_refusal(None, timed(3), 50, running=12, jitter=0)
    assert known == RateLimit(max_running=6, closed_until=53, halved_at=50, changed_at=50, refusals=1, reason="429")
    again = record_refusal(known, timed(1), 60, running=5, jitter=0)
    assert (again.max_running, again.refusals) == (2, 2)
    assert record_refusal(again, UNTIMED, 70, running=1, jitter=0).max_running == 1
    assert record_refusal(None, UNTIMED, 70, running=0, jitter=0).max_running == 1


def test_what_a_program_prints_is_told_in_a_line_and_holds_nobody_for_long() -> None:
    known = record_refusal(None, RateLimited("no\n" * 10**6, wait_s=1e12), 1000, running=8, jitter=0)
    assert known.reason == "no " * 40
    assert known.closed_until == 1600


def test_refusals_of_calls_that_were_under_way_count_once() -> None:
    assert record_refusal(KNOWN, timed(10), 94, running=4, jitter=0) == replace(KNOWN, closed_until=104)
    assert record_refusal(KNOWN, timed(1), 94, running=4, jitter=0) == KNOWN


@pytest.mark.parametrize(
    ("refusals", "jitter", "closed_until"), [(0, 0, 1005), (3, 0, 1040), (900, 0, 1600), (900, 1, 2200)]
)
def test_without_a_time_the_rest_is_doubled_each_time_to_ten_minutes(
    refusals: int, jitter: float, closed_until: float
) -> None:
    known = replace(KNOWN, refusals=refusals)
    assert record_refusal(known, UNTIMED, 1000, running=8, jitter=jitter).closed_until == closed_until


@pytest.mark.parametrize(("until", "closed"), [(4600, 4605), (1e300, 1000 + 8 * 24 * 3600)])
def test_a_limit_of_use_closes_until_it_is_reset_but_no_longer_than_any_lasts(until: float, closed: float) -> None:
    assert record_refusal(None, RateLimited("limit", until=until), 1000, running=8, jitter=0.5).closed_until == closed


def test_each_while_without_a_refusal_lets_one_more_run_until_that_is_enough() -> None:
    assert recover(KNOWN, 109.9, unlimited=16) == KNOWN
    assert KNOWN.recovers_at == 110
    assert recover(KNOWN, 110, unlimited=16) == replace(KNOWN, max_running=5, changed_at=110, refusals=0)
    later = recover(KNOWN, 139, unlimited=16)
    assert later == replace(KNOWN, max_running=7, changed_at=130, refusals=0)
    assert recover(KNOWN, 140, unlimited=8) is None


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
        known = known and recover(known, now, enough)
        if refused:
            known = record_refusal(
                known, RateLimited("429", wait), now, running=known.max_running if known else enough, jitter=0
            )
        if known:
            assert 1 <= known.max_running <= enough
            assert known.closed_until <= now + 1200


@pytest.mark.parametrize("takes", [1, 3, 7])
def test_what_runs_settles_at_what_the_vendor_takes(takes: int) -> None:
    """Whatever runs calls once a second; more than `takes` are refused."""
    known, history = None, list[int]()
    for second in range(1200):
        known = known and recover(known, second, 12)
        running = known.max_running if known else 12
        if known is None or second >= known.closed_until:
            history.append(running)
            if running > takes:
                known = record_refusal(known, timed(2), second, running, jitter=0)
    late = history[len(history) // 4 :]
    assert max(late) <= takes + 1
    assert sum(running > takes for running in late) < len(late) / RECOVERY_INTERVAL_S
    assert sum(late) / len(late) > takes / 2
