"""Fault 18: damaged records. They are set aside untouched, and whatever can be read in them is right."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from forkjoin.core.error import RecordsError
from forkjoin.store import salvage
from forkjoin.store.damaged_database import find_trouble, set_aside, set_aside_copies
from forkjoin.store.rows import NewMergeJob
from forkjoin.store.store import Store, open_store
from support.records import DAMAGES, NOBODY, damage, fill, new_agent, place

COUNT = 80


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A database of many pages, closed."""
    file = tmp_path / "records.sqlite"
    store = await open_store(file)
    await fill(store, COUNT)
    await store.close()
    return file


def _scramble_middle(file: Path) -> None:
    """Write over a tenth of the pages in the middle."""
    data = bytearray(file.read_bytes())
    begin, end = len(data) // 2, len(data) // 2 + len(data) // 10
    data[begin:end] = random.Random(1).randbytes(end - begin)
    file.write_bytes(data)


async def _check_what_is_left(store: Store, whole: Store) -> int:
    """See that each agent that was read is as it was; how many those are."""
    _, numbers = await store.restored_agents.known_numbers()
    for number in numbers:
        assert await store.agents.get(number) == await whole.agents.get(number)
        assert set(await store.events.page(number, 0, 100)) <= set(await whole.events.page(number, 0, 100))
    assert store.database.connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert store.database.connection.execute("PRAGMA integrity_check").fetchone() == {"integrity_check": "ok"}
    return len(numbers)


@pytest.fixture
async def whole(file: Path, tmp_path: Path) -> Store:
    """The same database, undamaged."""
    shutil.copy(file, tmp_path / "whole.sqlite")
    return await open_store(tmp_path / "whole.sqlite")


@pytest.mark.parametrize("how", ["halved", "random"])
async def test_a_damaged_database_is_set_aside_untouched_and_a_new_one_begun(
    file: Path, whole: Store, how: str
) -> None:
    left = damage(file, how)
    store = await open_store(file)
    (copy,) = set_aside_copies(file)
    assert copy.read_bytes() == left
    await _check_what_is_left(store, whole)
    await store.projects.get_or_add("/repository/.git")
    await store.lifecycle.spawn([new_agent("next")], place, NOBODY)
    await store.close()
    await whole.close()
    again = await open_store(file)
    assert set_aside_copies(file) == [copy]
    await again.close()


async def test_most_agents_are_read_around_damage_in_the_middle(file: Path, whole: Store) -> None:
    _scramble_middle(file)
    store = await open_store(file)
    assert len(set_aside_copies(file)) == 1
    assert await _check_what_is_left(store, whole) > COUNT // 2
    (agent,) = await store.lifecycle.spawn([new_agent("next")], place, NOBODY)
    assert agent.number > COUNT
    await store.close()
    await whole.close()


async def test_what_a_half_read_database_held_is_read_where_only_its_end_is_gone(file: Path, whole: Store) -> None:
    file.write_bytes(file.read_bytes()[:-4096])
    store = await open_store(file)
    assert await _check_what_is_left(store, whole) == COUNT
    assert await store.agents.task(7) == await whole.agents.task(7)
    await store.close()
    await whole.close()


async def test_a_landing_is_read_of_which_there_were_many_more_than_of_agents(file: Path) -> None:
    store = await open_store(file)
    await store.merges.add(NewMergeJob(1, "lead", (1,), "refs/heads/main", None, False, ""), NOBODY)
    store.database.connection.execute("UPDATE landing SET number = 5000")
    await store.close()
    file.write_bytes(file.read_bytes()[:-4096])
    store = await open_store(file)
    assert [landing.number for landing in await store.merges.open()] == [5000]
    await store.close()


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_damaged_log_leaves_what_the_database_has(file: Path, whole: Store, how: str) -> None:
    store = await open_store(file)
    await store.lifecycle.spawn([new_agent("in-the-log")], place, NOBODY)
    for name in ("records.sqlite", "records.sqlite-wal"):
        shutil.copy(file.with_name(name), file.with_name(f"killed-{name.removeprefix('records.')}"))
    await store.close()
    killed = file.with_name("killed-sqlite")
    left = damage(file.with_name("killed-sqlite-wal"), how)
    store = await open_store(killed)
    _, numbers = await store.restored_agents.known_numbers()
    assert numbers - {COUNT + 1} == set(range(1, COUNT + 1))
    if how == "random":
        (copy,) = set_aside_copies(killed)
        assert copy.with_name(f"{copy.name}-wal").read_bytes() == left
    await store.close()
    await whole.close()


async def test_an_empty_database_beside_a_log_is_set_aside(file: Path) -> None:
    store = await open_store(file)
    await store.lifecycle.spawn([new_agent("in-the-log")], place, NOBODY)
    killed = file.with_name("killed")
    killed.touch()
    shutil.copy(file.with_name(f"{file.name}-wal"), killed.with_name("killed-wal"))
    await store.close()
    await (await open_store(killed)).close()
    (copy,) = set_aside_copies(killed)
    assert copy.stat().st_size == 0


async def test_no_number_of_a_damaged_database_is_handed_out_again(file: Path) -> None:
    store = await open_store(file)
    await store.retention.delete_agent(COUNT)
    await store.close()
    file.write_bytes(file.read_bytes()[:-4096])
    store = await open_store(file)
    (agent,) = await store.lifecycle.spawn([new_agent("next")], place, NOBODY)
    assert agent.number == COUNT + 1
    await store.close()


async def test_rows_that_hold_nonsense_are_left(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE agent SET state = 'runnimg' WHERE number = 3")
        connection.execute("UPDATE agent SET spec = '{' WHERE number = 4")
        connection.execute("UPDATE agent SET frozen = 2 WHERE number = 5")
        connection.execute("UPDATE agent SET not_before = 1e300 WHERE number = 6")
    connection.close()
    file.write_bytes(file.read_bytes()[:-4096])
    store = await open_store(file)
    assert (await store.restored_agents.known_numbers())[1] == set(range(1, COUNT + 1)) - {3, 4, 5, 6}
    await store.close()


async def test_rows_of_a_table_whose_columns_are_damaged_are_left(file: Path) -> None:
    data = file.read_bytes()[:-4096]
    assert data.count(b"  conversation  TEXT") == 1
    file.write_bytes(data.replace(b"  conversation  TEXT", b"  conversatjon  TEXT"))
    store = await open_store(file)
    assert await store.restored_agents.known_numbers() == (COUNT, set())
    assert (await store.projects.get_or_add("/repository/.git")).number == 1
    await store.close()


async def test_a_log_that_a_kill_kept_from_being_set_aside_follows_its_database(file: Path) -> None:
    first = set_aside(file)
    log = file.with_name(f"{file.name}-wal")
    log.write_bytes(b"\x37\x7f\x06\x82 the rest of a log")
    store = await open_store(file)
    assert set_aside_copies(file) == [first]
    assert first.with_name(f"{first.name}-wal").read_bytes() == b"\x37\x7f\x06\x82 the rest of a log"
    assert (await store.restored_agents.known_numbers())[1] == set(range(1, COUNT + 1))
    await store.close()


async def test_a_kill_before_the_new_database_is_whole_is_made_good(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(file.read_bytes()[:-4096])
    with monkeypatch.context() as patched:
        patched.setattr("forkjoin.store.open_database.salvage", _be_killed)
        with pytest.raises(InterruptedError):
            await open_store(file)
    store = await open_store(file)
    assert (await store.restored_agents.known_numbers())[1] == set(range(1, COUNT + 1))
    await store.close()


def _be_killed(*_: object) -> int:
    raise InterruptedError


async def test_damage_that_is_met_in_use_is_nobodys_failure_and_is_seen_to_at_the_next_start(file: Path) -> None:
    store = await open_store(file)
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(random.Random(1).randbytes(file.stat().st_size - 4096))
    with pytest.raises(RecordsError):
        for number in range(1, COUNT + 1):
            await store.events.page(number, 0, 100)
    assert store.database.damaged.is_set()
    await store.close()


async def test_all_tables_are_read_but_the_days_which_are_counted_anew(file: Path) -> None:
    connection = sqlite3.connect(file)
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    assert {name for (name,) in names} - {"day"} == set(salvage._TABLES)
    connection.close()


async def test_the_copy_is_told_of_until_it_is_removed(file: Path) -> None:
    damage(file, "random")
    await (await open_store(file)).close()
    (copy,) = set_aside_copies(file)
    (line,) = [line for line in find_trouble(file) if "damaged" in line]
    assert line.endswith(f"then remove {copy}")
    assert "\n" not in line
    copy.unlink()
    assert "damaged" not in str(find_trouble(file))


async def test_a_locked_database_is_not_taken_for_a_damaged_one(file: Path) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    store = await open_store(file)
    assert set_aside_copies(file) == []
    other.close()
    await store.close()
