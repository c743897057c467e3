"""Copying of the readable and plausible rows of a damaged database into a new one."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import get_args

from forkjoin.core.merge_job import MergeJobState
from forkjoin.core.model import Merge, PauseReason, State
from forkjoin.core.request import RequestKind
from forkjoin.store.damage_detection import open_read_only
from forkjoin.store.rows import Row

#: The tables to read, each after the tables that it refers to.
_TABLES = (
    *("project", "agent", "landing", "scratch"),
    *("task", "message", "mail", "request", "result", "progress", "event", "token", "spent", "finding"),
    *("refs_before", "set_up", "budget", "peak", "verdict", "told", "request_told", "call", "deferred"),
)
_JSON = frozenset(
    {*("spec", "recipe", "result", "agents", "answer", "move", "after", "best_of", "base_agents", "above", "arguments")}
)
_FLAGS = frozenset({"frozen", "ending", "was_merged", "retired", "cancelled", "failed"})
_CODES: dict[str, dict[str, frozenset[object]]] = {
    "agent": {"state": frozenset(State), "merge": frozenset(Merge), "pause_reason": frozenset({None, *PauseReason})},
    "landing": {"state": frozenset(MergeJobState)},
    "request": {"kind": frozenset(get_args(RequestKind))},
}
#: The largest plausible agent number. A larger number in a row is damage.
_MOST_AGENTS = 1_000_000
#: The latest plausible end of a pause, in seconds since the epoch. A later time in a row is damage.
_LATEST = 1e11


def salvage_rows(connection: sqlite3.Connection, copy: Path) -> int:
    """Copy the readable rows of a damaged database, and return the number of agents.

    No agent number that appears in a readable row is used for a new agent.

    Args:
        connection: The new database, with empty tables of the same schema.
        copy: The damaged database that was set aside.
    """
    highest = 0
    with closing(open_read_only(copy, damaged=True)) as damaged:
        for table in ("sqlite_sequence", *_TABLES):
            columns = {column["name"] for column in connection.execute(f"PRAGMA table_info({table})")}
            for row in _read_table(damaged, table):
                highest = max(highest, _agent_number(table, row))
                if table in _TABLES and row.keys() == columns and _is_sound(table, row):
                    _insert(connection, table, row)
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'agent'")
    connection.execute("INSERT INTO sqlite_sequence VALUES ('agent', ?)", (highest,))
    found: int = connection.execute("SELECT count(*) AS found FROM agent").fetchone()["found"]
    return found


def _read_table(damaged: sqlite3.Connection, table: str) -> Iterator[Row]:
    """Yield the readable rows of a table. Rows may be yielded twice.

    The table is read from its beginning, and if that meets damage, backwards from its end too.
    """
    for order in ("", "ORDER BY rowid DESC", "ORDER BY 1 DESC"):  # a table without rowids is ordered by its key
        try:
            yield from damaged.execute(f"SELECT * FROM {table} {order}")  # noqa: S608 - the names above
        except sqlite3.Error:
            continue
        return


def _agent_number(table: str, row: Row) -> int:
    """Return the agent number in a row, or 0 if there is no plausible one."""
    match table:
        case "sqlite_sequence":
            number = row["seq"] if row["name"] == "agent" else 0
        case "agent":
            number = row.get("number")
        case _:
            number = row.get("agent")
    return number if isinstance(number, int) and number <= _MOST_AGENTS else 0


def _insert(connection: sqlite3.Connection, table: str, row: Row) -> None:
    values = ", ".join(f":{column}" for column in row)
    with suppress(sqlite3.IntegrityError):  # the row is there already, or what it refers to could not be read
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})", row)  # noqa: S608


def _is_sound(table: str, row: Row) -> bool:
    """Return whether a row holds only values that forkjoin writes."""
    try:
        for column in _JSON & row.keys():
            if row[column] is not None:
                json.loads(row[column])
        has_known_codes = all(row[column] in known for column, known in _CODES.get(table, {}).items() if column in row)
        has_flags = all(row[flag] in (0, 1) for flag in _FLAGS & row.keys())
        return has_known_codes and has_flags and row.get("not_before", 0) < _LATEST
    except (ValueError, TypeError):
        return False
