"""The database: opened, migrated, and asked by named queries."""

import sqlite3
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import aiosql

from forkjoin.error import CallerError
from forkjoin.record.rows import as_dict

_HERE = resources.files("forkjoin.record")


class Queries:
    """The named queries, on one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        file = str(_HERE / "queries.sql")
        self._named: Any = aiosql.from_path(file, "sqlite3", mandatory_parameters=False)  # pyright: ignore[reportUnknownMemberType]
        self._connection = connection

    def __call__(self, query: str, values: dict[str, object]) -> Any:
        return getattr(self._named, query)(self._connection, **values)

    def __getattr__(self, query: str) -> Callable[..., Any]:
        def ask(**values: object) -> Any:
            return self(query, values)

        return ask


def open_database(file: Path) -> sqlite3.Connection:
    """The database at `file`, made or migrated first where that is due. Blocks.

    Raises:
        CallerError: It was written by a newer forkjoin, or is damaged.
    """
    try:
        connection = _connect(file)
        _migrate(connection, file)
    except sqlite3.DatabaseError as error:
        raise CallerError(f"{file} can't be read ({error}); move it away to begin anew. Worktrees stay.") from error
    return connection


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.row_factory = as_dict
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    for name in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        if name.exists():
            name.chmod(0o600)
    return connection


def _migrate(connection: sqlite3.Connection, file: Path) -> None:
    """Apply the migrations that these records lack, each in a transaction of its own."""
    steps = sorted(path.name for path in (_HERE / "migrations").iterdir() if path.name.endswith(".sql"))
    version: int = connection.execute("PRAGMA user_version").fetchone()["user_version"]
    if version > len(steps):
        raise CallerError(
            f"{file} was written by a newer forkjoin (schema {version}, this one knows {len(steps)}). "
            "Install that version again; nothing was changed."
        )
    for number, name in enumerate(steps[version:], version + 1):
        script = (_HERE / "migrations" / name).read_text("utf-8")
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
