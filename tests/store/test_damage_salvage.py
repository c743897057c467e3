"""Fault 18: a damaged database is set aside unchanged, and all salvaged rows are correct."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from forkjoin.core.error import RecordsError
from forkjoin.store import damage_salvage
from forkjoin.store.damage_detection import find_trouble, set_aside, set_aside_copies
from forkjoin.store.rows import NewMergeJob
from forkjoin.store.store import Store, open_store
from support.records import DAMAGES, NOBODY, damage, fill, new_agent, place

COUNT = 80


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A closed database of many pages."""
    file = tmp_path / "records.sqlite"
    store = await open_store(file)
    await fill(store, COUNT)
    await store.close()
    return file


def _scramble_middle(file: Path) -> None:
    """Overwrite a tenth of the file, in its middle."""
    data = bytearray(file.read_bytes())
    begin, end = len(data) // 2, len(data) // 2 + len(data) // 10
    data[begin:end] = random.Random(1).randbytes(end - begin)
    file.write_bytes(data)


async def _check_salvaged(store: Store, whole: Store) -> int:
    """Assert that each salvaged agent is unchanged, and return their number."""
    _, numbers = await store.restored_agents.known_numbers()
    for number in numbers:
        assert await store.agents.get(number) == await whole.agents.get(number)
        assert set(await store.events.page(number, 0, 100)) <= set(await whole.events.page(number, 0, 100))
    assert store.database.connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert store.database.connection.execute("PRAGMA integrity_check").fetchone() == {"integrity_check": "ok"}
    return len(numbers)


@pytest.fixture
async def whole(file: Path, tmp_path: Path) -> Store:
    """An undamaged copy of the database."""
    shutil.copy(file, tmp_path / "whole.sqlite")
    return await open_store(tmp_path / "whole.sqlite")


@pytest.mark.parametrize("how", ["halved", "random"])
async def test_a_damaged_database_is_set_aside_unchanged_and_replaced(file: Path, whole: Store, how: str) -> None:
    left = damage(file, how)
    store = await open_store(file)
    (copy,) = set_aside_copies(file)
    assert copy.read_bytes() == left
    await _check_salvaged(store, whole)
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
    assert await _check_salvaged(store, whole) > COUNT // 2
    (agent,) = await store.lifecycle.spawn([new_agent("next")], place, NOBODY)
    assert agent.number > COUNT
    await store.close()
    await whole.close()


async def test_all_agents_of_a_truncated_database_are_salvaged(file: Path, whole: Store) -> None:
    file.write_bytes(file.read_bytes()[:-4096])
    store = await open_store(file)
    assert await _check_salvaged(store, whole) == COUNT
    assert await store.agents.task(7) == await whole.agents.task(7)
    await store.close()
    await whole.close()


async def test_a_merge_job_with_a_number_above_all_agent_numbers_is_salvaged(file: Path) -> None:
    store = await open_store(file)
    await store.merges.add(NewMergeJob(1, "lead", (1,), "refs/heads/main", None, False, ""), NOBODY)
    store.database.connection.execute("UPDATE landing SET number = 5000")
    await store.close()
    file.write_bytes(file.read_bytes()[:-4096])
    store = await open_store(file)
    assert [landing.number for landing in await store.merges.open()] == [5000]
    await store.close()


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_damaged_log_loses_only_the_changes_in_the_log(file: Path, whole: Store, how: str) -> None:
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


async def test_an_empty_database_with_a_log_is_set_aside(file: Path) -> None:
    store = await open_store(file)
    await store.lifecycle.spawn([new_agent("in-the-log")], place, NOBODY)
    killed = file.with_name("killed")
    killed.touch()
    shutil.copy(file.with_name(f"{file.name}-wal"), killed.with_name("killed-wal"))
    await store.close()
    await (await open_store(killed)).close()
    (copy,) = set_aside_copies(killed)
    assert copy.stat().st_size == 0


async def test_a_new_agent_gets_no_number_that_the_damaged_database_used(file: Path) -> None:
    store = await open_store(file)
    await store.retention.delete_agent(COUNT)
    await store.close()
    file.write_bytes(file.read_bytes()[:-4096])
    store = await open_store(file)
    (agent,) = await store.lifecycle.spawn([new_agent("next")], place, NOBODY)
    assert agent.number == COUNT + 1
    await store.close()


async def test_rows_with_invalid_values_are_not_salvaged(file: Path) -> None:
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


async def test_rows_of_a_table_with_a_damaged_column_name_are_not_salvaged(file: Path) -> None:
    data = file.read_bytes()[:-4096]
    assert data.count(b"  conversation  TEXT") == 1
    file.write_bytes(data.replace(b"  conversation  TEXT", b"  conversatjon  TEXT"))
    store = await open_store(file)
    assert await store.restored_agents.known_numbers() == (COUNT, set())
    assert (await store.projects.get_or_add("/repository/.git")).number == 1
    await store.close()


async def test_a_log_that_was_not_set_aside_because_of_a_kill_joins_its_database(file: Path) -> None:
    first = set_aside(file)
    log = file.with_name(f"{file.name}-wal")
    log.write_bytes(b"\x37\x7f\x06\x82 the rest of a log")
    store = await open_store(file)
    assert set_aside_copies(file) == [first]
    assert first.with_name(f"{first.name}-wal").read_bytes() == b"\x37\x7f\x06\x82 the rest of a log"
    assert (await store.restored_agents.known_numbers())[1] == set(range(1, COUNT + 1))
    await store.close()


async def test_a_kill_during_salvage_loses_no_agents(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(file.read_bytes()[:-4096])
    with monkeypatch.context() as patched:
        patched.setattr("forkjoin.store.database_migration.salvage_rows", _be_killed)
        with pytest.raises(InterruptedError):
            await open_store(file)
    store = await open_store(file)
    assert (await store.restored_agents.known_numbers())[1] == set(range(1, COUNT + 1))
    await store.close()


def _be_killed(*_: object) -> int:
    raise InterruptedError


async def test_damage_that_is_found_in_use_is_reported_as_an_error(file: Path) -> None:
    store = await open_store(file)
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(random.Random(1).randbytes(file.stat().st_size - 4096))
    with pytest.raises(RecordsError):
        for number in range(1, COUNT + 1):
            await store.events.page(number, 0, 100)
    assert store.database.damaged.is_set()
    await store.close()


async def test_all_tables_except_day_are_salvaged(file: Path) -> None:
    connection = sqlite3.connect(file)
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    assert {name for (name,) in names} - {"day"} == set(damage_salvage._TABLES)
    connection.close()


async def test_a_set_aside_database_is_reported_until_it_is_removed(file: Path) -> None:
    damage(file, "random")
    await (await open_store(file)).close()
    (copy,) = set_aside_copies(file)
    (line,) = [line for line in find_trouble(file) if "damaged" in line]
    assert line.endswith(f"then remove {copy}")
    assert "\n" not in line
    copy.unlink()
    assert "damaged" not in str(find_trouble(file))


async def test_a_locked_database_is_not_considered_damaged(file: Path) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    store = await open_store(file)
    assert set_aside_copies(file) == []
    other.close()
    await store.close()
