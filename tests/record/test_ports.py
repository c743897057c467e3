"""Blocks of ports: no two meet, and what is given back is given out again."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from forkjoin.config import Recipe
from forkjoin.error import CallerError
from forkjoin.record.ports import END, FIRST, Ports
from forkjoin.record.rows import NewLanding
from forkjoin.record.store import Store, open_store
from hypothesis import given
from hypothesis import strategies as st
from records import NOBODY, new_agent, place

SIZES = st.integers(1, 1000)


@given(st.lists(st.tuples(st.integers(FIRST - 100, END), SIZES), max_size=30), st.lists(SIZES, max_size=30))
def test_no_block_meets_another_or_leaves_the_range(given_out: list[tuple[int, int]], sizes: list[int]) -> None:
    ports, taken = Ports(given_out), [range(first, first + size) for first, size in given_out]
    for size in sizes:
        try:
            base = ports.take(size)
        except CallerError:
            starts = [FIRST, *(block.stop for block in taken)]
            blocks = [range(start, start + size) for start in starts if start >= FIRST and start + size <= END]
            assert all(any(_meet(one, other) for other in taken) for one in blocks), "there was room"
            continue
        block = range(base, base + size)
        assert FIRST <= base <= END - size
        assert not any(_meet(block, other) for other in taken)
        taken.append(block)


def _meet(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(tmp_path / "records.sqlite")
    await store.project("/repository/.git")
    yield store
    await store.close()


async def test_each_agent_has_a_block_of_its_own_until_it_is_removed(store: Store) -> None:
    sizes = (10, 25, 10)
    new = [replace(new_agent(f"n{n}"), recipe=Recipe(ports=size)) for n, size in enumerate(sizes)]
    agents = await store.spawn(new, place, NOBODY)
    assert [agent.port_base for agent in agents] == [FIRST, FIRST + 10, FIRST + 35]
    await store.set_removed(agents[1].number)
    again = await store.spawn([new_agent("a"), new_agent("b"), new_agent("c")], place, NOBODY, busy=[FIRST + 12])
    assert [agent.port_base for agent in again] == [FIRST + 13, FIRST + 23, FIRST + 45]


async def test_a_landing_that_runs_something_has_a_block_until_it_is_done(store: Store) -> None:
    def new(verify: str | None, *, dry_run: bool = False) -> NewLanding:
        return NewLanding(1, "lead", (), "refs/heads/main", verify, dry_run, "", recipe=Recipe(ports=7))

    found = [await store.add_landing(one, NOBODY) for one in (new("x"), new(None), new("x", dry_run=True), new("x"))]
    assert [landing.port_base for landing in found] == [FIRST, 0, 0, FIRST + 7]
    (agent,) = await store.spawn([new_agent("a")], place, NOBODY)
    assert agent.port_base == FIRST + 14


async def test_where_none_are_left_nothing_is_recorded_and_it_is_said_what_to_do(store: Store) -> None:
    many = [replace(new_agent(f"n{n}"), recipe=Recipe(ports=1000)) for n in range(13)]
    with pytest.raises(CallerError, match="Call remove_worktrees"):
        await store.spawn(many, place, NOBODY)
    assert await store.live() == []
    assert len(await store.spawn(many[:12], place, NOBODY)) == 12


async def test_who_asks_for_none_goes_without_where_none_are_left(store: Store) -> None:
    await store.spawn([replace(new_agent(f"n{n}"), recipe=Recipe(ports=1000)) for n in range(12)], place, NOBODY)
    (agent,) = await store.spawn([new_agent("more")], place, NOBODY)
    assert agent.port_base == 0
