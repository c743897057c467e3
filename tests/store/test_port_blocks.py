"""Blocks of ports don't overlap, homes begin at different ports, and freed blocks are used again."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.core.settings import RepositorySettings
from forkjoin.store import port_blocks
from forkjoin.store.port_blocks import END, FIRST, Ports, first_port
from forkjoin.store.rows import NewMergeJob
from forkjoin.store.store import Store
from hypothesis import given
from hypothesis import strategies as st
from support.records import NOBODY, new_agent, place

SIZES = st.integers(1, 1000)


@pytest.fixture
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program listens on any port, so that all ports are free."""
    monkeypatch.setattr(port_blocks, "listening", lambda: ())


@given(
    st.lists(st.tuples(st.integers(FIRST - 100, END), SIZES), max_size=30),
    st.integers(FIRST, END),
    st.lists(SIZES, max_size=30),
)
def test_no_block_overlaps_another_or_leaves_the_range(
    given_out: list[tuple[int, int]], begin: int, sizes: list[int]
) -> None:
    ports, taken = Ports(given_out, begin), [range(first, first + size) for first, size in given_out]
    for size in sizes:
        try:
            base = ports.take(size)
        except CallerError:
            starts = [FIRST, *(block.stop for block in taken)]
            blocks = [range(start, start + size) for start in starts if start >= FIRST and start + size <= END]
            assert all(any(_overlap(one, other) for other in taken) for one in blocks), "there was room"
            continue
        block = range(base, base + size)
        assert FIRST <= base <= END - size
        assert not any(_overlap(block, other) for other in taken)
        taken.append(block)


def test_the_search_starts_at_the_homes_first_port_and_continues_at_the_first_port_of_all() -> None:
    ports = Ports([(FIRST + 5, 5)], END - 30)
    assert [ports.take(size) for size in (20, 20, 10, 10)] == [END - 30, FIRST + 10, END - 10, FIRST + 30]


def test_homes_start_at_different_ports_that_never_change() -> None:
    begins = [first_port(Path(f"/home/user-{n}/.local/state/forkjoin")) for n in range(100)]
    assert len(set(begins)) > 80
    assert all(FIRST <= begin <= END - 1000 for begin in begins)
    assert first_port(Path("/home/me/.local/state/forkjoin")) == 23_800


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


async def test_an_agent_keeps_its_own_block_until_it_is_removed(store: Store) -> None:
    sizes = (10, 25, 10)
    new = [replace(new_agent(f"n{n}"), recipe=RepositorySettings(ports=size)) for n, size in enumerate(sizes)]
    agents, first = await store.lifecycle.spawn(new, place, NOBODY), store.database.first_port
    assert [agent.worktree.port_base for agent in agents] == [first, first + 10, first + 35]
    await store.agents.update(agents[1], removed=1.0)
    with socket.create_server(("127.0.0.1", first + 12)):
        again = await store.lifecycle.spawn([new_agent("a"), new_agent("b"), new_agent("c")], place, NOBODY)
    assert [agent.worktree.port_base for agent in again] == [first + 13, first + 23, first + 45]


async def test_a_scratch_worktree_keeps_its_block_until_its_record_is_deleted(store: Store) -> None:
    first, recipe = store.database.first_port, RepositorySettings(ports=7)
    new = [NewMergeJob(1, "lead", (), f"refs/heads/{name}", "x", False, "") for name in ("main", "main", "side")]
    taken = [await store.scratch_worktrees.take(await store.merges.add(one, NOBODY), recipe) for one in new]
    assert [one.port_base for one in taken] == [first, first, first + 7]
    await store.scratch_worktrees.retire(taken[0].number)
    (agent,) = await store.lifecycle.spawn([new_agent("a")], place, NOBODY)
    assert agent.worktree.port_base == first + 14
    await store.scratch_worktrees.delete(taken[0].number)
    (agent,) = await store.lifecycle.spawn([replace(new_agent("b"), recipe=recipe)], place, NOBODY)
    assert agent.worktree.port_base == first


async def test_without_a_free_block_of_the_requested_size_a_spawn_is_refused(
    store: Store, nobody_listens: None
) -> None:
    store.database.first_port = FIRST
    many = [replace(new_agent(f"n{n}"), recipe=RepositorySettings(ports=1000)) for n in range(13)]
    with pytest.raises(CallerError, match="Call remove_worktrees"):
        await store.lifecycle.spawn(many, place, NOBODY)
    assert await store.agents.live() == []
    assert len(await store.lifecycle.spawn(many[:12], place, NOBODY)) == 12


async def test_an_agent_without_a_requested_size_may_have_no_block(store: Store, nobody_listens: None) -> None:
    store.database.first_port = FIRST
    await store.lifecycle.spawn(
        [replace(new_agent(f"n{n}"), recipe=RepositorySettings(ports=1000)) for n in range(12)], place, NOBODY
    )
    (agent,) = await store.lifecycle.spawn([new_agent("more")], place, NOBODY)
    assert agent.worktree.port_base == 0
