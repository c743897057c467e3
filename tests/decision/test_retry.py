"""Whether passing trouble is followed by another try."""

from forkjoin.decision.retry import pause


def test_each_rest_is_twice_the_one_before_up_to_five_minutes_and_the_last_try_is_the_last() -> None:
    assert [pause(n, 9, 0) for n in range(9)] == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert pause(1, 2, 0.5) == 15
    assert pause(2, 2, 0) is None
    assert pause(0, 0, 0) is None
