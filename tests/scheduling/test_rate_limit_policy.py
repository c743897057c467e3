"""The rate-limit policy, which learns from refusals how many agents a vendor accepts."""

from dataclasses import replace

import pytest
from forkjoin.core.event import RateLimited
from forkjoin.scheduling.rate_limit_policy import RECOVERY_INTERVAL_S, RateLimit, record_refusal, recover
from hypothesis import given
from hypothesis import strategies as st

LIMIT = RateLimit(max_running=4, closed_until=100, halved_at=90, changed_at=90, refusals=1, reason="429")
UNTIMED = RateLimited("429")


def timed(wait_s: float) -> RateLimited:
    return RateLimited("429", wait_s=wait_s)


def test_a_refusal_halves_the_running_agents_and_closes_the_account_for_the_given_time() -> None:
    known = record_refusal(None, timed(3), 50, running=12, jitter=0)
    assert known == RateLimit(max_running=6, closed_until=53, halved_at=50, changed_at=50, refusals=1, reason="429")
    again = record_refusal(known, timed(1), 60, running=5, jitter=0)
    assert (again.max_running, again.refusals) == (2, 2)
    assert record_refusal(again, UNTIMED, 70, running=1, jitter=0).max_running == 1
    assert record_refusal(None, UNTIMED, 70, running=0, jitter=0).max_running == 1


def test_a_printed_refusal_is_shortened_to_a_line_and_closes_the_account_for_ten_minutes_at_most() -> None:
    known = record_refusal(None, RateLimited("no\n" * 10**6, wait_s=1e12), 1000, running=8, jitter=0)
    assert known.reason == "no " * 40
    assert known.closed_until == 1600


def test_refusals_shortly_after_another_refusal_do_not_halve_again() -> None:
    assert record_refusal(LIMIT, timed(10), 94, running=4, jitter=0) == replace(LIMIT, closed_until=104)
    assert record_refusal(LIMIT, timed(1), 94, running=4, jitter=0) == LIMIT


@pytest.mark.parametrize(
    ("refusals", "jitter", "closed_until"), [(0, 0, 1005), (3, 0, 1040), (900, 0, 1600), (900, 1, 2200)]
)
def test_without_a_given_time_each_refusal_doubles_the_pause_up_to_ten_minutes(
    refusals: int, jitter: float, closed_until: float
) -> None:
    known = replace(LIMIT, refusals=refusals)
    assert record_refusal(known, UNTIMED, 1000, running=8, jitter=jitter).closed_until == closed_until


@pytest.mark.parametrize(("until", "closed"), [(4600, 4605), (1e300, 1000 + 8 * 24 * 3600)])
def test_a_usage_limit_closes_the_account_until_its_reset_but_no_longer_than_eight_days(
    until: float, closed: float
) -> None:
    assert record_refusal(None, RateLimited("limit", until=until), 1000, running=8, jitter=0.5).closed_until == closed


def test_each_interval_without_a_refusal_allows_one_more_agent_until_there_is_no_limit() -> None:
    assert recover(LIMIT, 109.9, unlimited=16) == LIMIT
    assert LIMIT.recovers_at == 110
    assert recover(LIMIT, 110, unlimited=16) == replace(LIMIT, max_running=5, changed_at=110, refusals=0)
    later = recover(LIMIT, 139, unlimited=16)
    assert later == replace(LIMIT, max_running=7, changed_at=130, refusals=0)
    assert recover(LIMIT, 140, unlimited=8) is None


@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.floats(0.1, 100), st.booleans(), st.none() | st.floats(0, 120)), max_size=60),
)
def test_the_limit_is_at_least_1_and_at_most_the_number_without_a_limit(
    unlimited: int, history: list[tuple[float, bool, float | None]]
) -> None:
    known, now = None, 0.0
    for pause, refused, wait in history:
        now += pause
        known = known and recover(known, now, unlimited)
        if refused:
            known = record_refusal(
                known, RateLimited("429", wait), now, running=known.max_running if known else unlimited, jitter=0
            )
        if known:
            assert 1 <= known.max_running <= unlimited
            assert known.closed_until <= now + 1200


@pytest.mark.parametrize("accepted", [1, 3, 7])
def test_the_number_of_running_agents_settles_at_the_vendors_limit(accepted: int) -> None:
    """Each running agent calls once a second. Calls beyond `accepted` are refused."""
    known, history = None, list[int]()
    for second in range(1200):
        known = known and recover(known, second, 12)
        running = known.max_running if known else 12
        if known is None or second >= known.closed_until:
            history.append(running)
            if running > accepted:
                known = record_refusal(known, timed(2), second, running, jitter=0)
    late = history[len(history) // 4 :]
    assert max(late) <= accepted + 1
    assert sum(running > accepted for running in late) < len(late) / RECOVERY_INTERVAL_S
    assert sum(late) / len(late) > accepted / 2
