"""The pause before the next attempt."""

from forkjoin.scheduling.backoff import backoff_s


def test_each_pause_is_twice_as_long_as_the_previous_one_up_to_a_limit() -> None:
    assert [backoff_s(tries, 5, 300, 0) for tries in range(9)] == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert backoff_s(1, 5, 300, 0.5) == 15
    assert backoff_s(10**9, 5, 300, 1) == 600
