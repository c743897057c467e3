"""What can still be read in a damaged database, row by row; all of it is checked, and the rest is left."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import get_args

from forkjoin.core.model import Merge, MergeJobState, RequestKind, State
from forkjoin.store.damaged_database import open_read_only
from forkjoin.store.rows import Row

#: The tables, each after those it refers to, by the number by which a row is looked for on its own. Where there is
#: none, rows are read from both ends until the damage.
_TABLES = {
    "number": ("project", "agent", "landing", "scratch"),
    "agent": (
        *("task", "message", "mail", "request", "result", "progress", "event", "token", "spent", "finding"),
        *("refs_before", "set_up"),
    ),
    "project": ("budget", "peak"),
    "landing": ("verdict",),
    None: ("told", "request_told", "call", "deferred"),
}
_JSON = frozenset(
    {*("spec", "recipe", "result", "agents", "answer", "move", "after", "best_of", "base_agents", "above", "arguments")}
)
_FLAGS = frozenset({"frozen", "ending", "was_merged", "retired", "cancelled"})
_WORDS: dict[str, dict[str, frozenset[object]]] = {
    "agent": {"state": frozenset(State), "merge": frozenset(Merge)},
    "landing": {"state": frozenset(MergeJobState)},
    "request": {"kind": frozenset(get_args(RequestKind))},
}
#: No home has handed out more numbers; a larger one is damage.
_MOST = 1_000_000
#: Nor has one ever paused until then, in seconds since the epoch.
_LATEST = 1e11
#: How far beyond the last number that was read others are looked for.
_BEYOND = 1_000


def salvage(connection: sqlite3.Connection, copy: Path) -> int:
    """Take over whatever can be read in `copy` into empty tables of the same form; how many agents that were."""
    with closing(open_read_only(copy, damaged=True)) as old:
        highest = _highest(old)
        for key, table in ((key, table) for key, tables in _TABLES.items() for table in tables):
            columns = [column["name"] for column in connection.execute(f"PRAGMA table_info({table})")]
            insert = f"INSERT INTO {table} VALUES ({', '.join(f':{column}' for column in columns)})"  # noqa: S608
            for row in _by_number(old, table, key, highest) if key else _from_both_ends(old, table):
                if row.keys() == set(columns) and _is_sound(table, row):
                    with suppress(sqlite3.IntegrityError):  # what it refers to was not read, or it was read before
                        connection.execute(insert, row)
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'agent'")
    handed_out = "INSERT INTO sqlite_sequence SELECT 'agent', max(?, coalesce(max(number), 0)) FROM agent"
    connection.execute(handed_out, (highest,))
    found: int = connection.execute("SELECT count(*) AS found FROM agent").fetchone()["found"]
    return found


def _highest(old: sqlite3.Connection) -> int:
    """The largest number that was handed out, as far as can be told."""
    found: list[object] = [0]
    for question in (
        "SELECT seq AS number FROM sqlite_sequence WHERE name = 'agent'",
        "SELECT number FROM agent ORDER BY number",
        "SELECT number FROM agent ORDER BY number DESC",
        "SELECT DISTINCT agent AS number FROM event ORDER BY agent DESC",
    ):
        with suppress(sqlite3.Error):
            found += [row["number"] for row in old.execute(question)]
    return max(number for number in found if isinstance(number, int) and number <= _MOST)


def _by_number(old: sqlite3.Connection, table: str, key: str, highest: int) -> Iterator[Row]:
    with suppress(sqlite3.Error, TypeError):  # or there is none
        largest = old.execute(f"SELECT max({key}) AS found FROM {table}").fetchone()["found"]  # noqa: S608
        highest = max(highest, min(largest, _MOST))  # of landings there may be more than of agents
    for number in range(1, highest + _BEYOND):
        with suppress(sqlite3.Error):
            yield from old.execute(f"SELECT * FROM {table} WHERE {key} = ?", (number,))  # noqa: S608


def _from_both_ends(old: sqlite3.Connection, table: str) -> Iterator[Row]:
    for order in ("1, 2", "1 DESC, 2 DESC"):  # as the primary key begins
        with suppress(sqlite3.Error):
            yield from old.execute(f"SELECT * FROM {table} ORDER BY {order}")  # noqa: S608


def _is_sound(table: str, row: Row) -> bool:
    words = _WORDS.get(table, {})
    with suppress(ValueError, TypeError):
        for column in _JSON & row.keys():
            if row[column] is not None:
                json.loads(row[column])
        is_told = all(row[column] in allowed for column, allowed in words.items())
        return (
            is_told and row.get("not_before", 0) < _LATEST and all(row[flag] in (0, 1) for flag in _FLAGS & row.keys())
        )
    return False
