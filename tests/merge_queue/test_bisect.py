"""Bisection: the branch that breaks verify is found in few runs of verify."""

import math

import pytest
from forkjoin.merge_queue.bisect import BrokenBeforeError, longest_passing
from hypothesis import given
from hypothesis import strategies as st


@given(length=st.integers(1, 300), data=st.data())
async def test_bisection_finds_the_branch_that_breaks_verify_in_logarithmic_time(
    length: int, data: st.DataObject
) -> None:
    bad = data.draw(st.integers(1, length))
    lengths: list[int] = []

    async def passes(first: int) -> bool:
        lengths.append(first)
        return first < bad

    assert await longest_passing(length, passes) == bad - 1
    assert len(lengths) == len(set(lengths)) <= math.ceil(math.log2(length + 1)) + 1
    assert bad > 1 or 0 in lengths, "the first branch is blamed though the target alone was not verified"


async def test_verify_runs_once_if_all_branches_pass() -> None:
    lengths: list[int] = []

    async def passes(first: int) -> bool:
        lengths.append(first)
        return True

    assert await longest_passing(100, passes) == 100
    assert lengths == [100]


async def test_no_branch_is_blamed_if_verify_fails_without_any_branch() -> None:
    async def passes(_: int) -> bool:
        return False

    with pytest.raises(BrokenBeforeError):
        await longest_passing(5, passes)
