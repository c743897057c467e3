"""The branch that breaks verify is found in few runs of it."""

import math

import pytest
from forkjoin.merge_queue.bisect import BrokenBeforeError, longest_passing
from hypothesis import given
from hypothesis import strategies as st


@given(length=st.integers(1, 300), data=st.data())
async def test_one_that_breaks_it_is_found_in_as_many_runs_as_halving_takes(length: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(1, length))
    asked: list[int] = []

    async def passes(first: int) -> bool:
        asked.append(first)
        return first < bad

    assert await longest_passing(length, passes) == bad - 1
    assert len(asked) == len(set(asked)) <= math.ceil(math.log2(length + 1)) + 1
    assert bad > 1 or 0 in asked, "the first is blamed without having been found guilty"


async def test_where_all_pass_it_is_run_once() -> None:
    asked: list[int] = []

    async def passes(first: int) -> bool:
        asked.append(first)
        return True

    assert await longest_passing(100, passes) == 100
    assert asked == [100]


async def test_what_was_broken_before_is_nobodys_fault() -> None:
    async def passes(_: int) -> bool:
        return False

    with pytest.raises(BrokenBeforeError):
        await longest_passing(5, passes)
