"""The database: opened, migrated, and asked by named queries.

One that is damaged is set aside before, and what can still be read in it is taken over into the new one.
"""

import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import aiosql

from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.store import rows
from forkjoin.store.damaged_database import find_damage, is_damage, open_read_only, set_aside, set_aside_copies
from forkjoin.store.salvage import salvage

log = logging.getLogger(__name__)

_HERE = resources.files("forkjoin.store")
#: No forkjoin has come this far: a larger schema number is damage.
_LAST_VERSION = 10_000
#: Pages that SQLite keeps: what is asked for again and again. It would fill its 2 MB and take them for nothing.
_CACHE_KB = 512


class Queries:
    """The named queries, on one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        file = str(_HERE / "queries.sql")
        self._named: Any = aiosql.from_path(file, "sqlite3", mandatory_parameters=False)  # pyright: ignore[reportUnknownMemberType]
        self._connection = connection

    def __getattr__(self, query: str) -> Callable[..., Any]:
        return partial(getattr(self._named, query), self._connection)

    def agent(self, number: int) -> Agent:
        """The agent of this number, as it is now."""
        return rows.agent(self.agent_numbered(number=number))


def open_database(file: Path) -> sqlite3.Connection:
    """The database at `file`, made or migrated first where that is due. Blocks."""
    try:
        _refuse_newer(file)
        if damage := find_damage(file):
            log.error("%s is damaged (%s): it is now %s", file, damage, set_aside(file))
        return _open(file)
    except sqlite3.Error as error:
        raise CallerError(
            f"{file} can't be used now: {error}. See that its disk has room and can be written to, and call again."
        ) from error


def _open(file: Path) -> sqlite3.Connection:
    connection = _connect(file)
    try:
        _migrate(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_newer(file: Path) -> None:
    version = _read_version(file)
    if len(_steps()) < version < _LAST_VERSION:
        raise CallerError(
            f"{file} was written by a newer forkjoin (schema {version}, this one knows {len(_steps())}). "
            "Install that version again; nothing was changed."
        )


def _read_version(file: Path, *, damaged: bool = False) -> int:
    """The number of the schema, without a change to the file or its log; 0 where it can't be read."""
    if not file.exists() or not file.stat().st_size:  # beside an empty one SQLite would delete its log
        return 0
    try:
        with closing(open_read_only(file, damaged=damaged)) as connection:
            version: int = connection.execute("PRAGMA user_version").fetchone()["user_version"]
            return version
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return 0
        raise


def _connect(file: Path) -> sqlite3.Connection:
    _make_private(file)  # SQLite gives what it makes beside it the same mode, whatever the umask is
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.row_factory = rows.as_dict
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
    return connection


def _make_private(file: Path) -> None:
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for name in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        if name.exists():
            name.chmod(0o600)


def _steps() -> list[str]:
    """The migrations, in order."""
    folder = _HERE / "migrations"
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(".sql"))
    return [(folder / name).read_text("utf-8") for name in names]


def _migrate(connection: sqlite3.Connection, file: Path) -> None:
    """Apply the migrations that these records lack, each in a transaction of its own."""
    steps = _steps()
    version: int = connection.execute("PRAGMA user_version").fetchone()["user_version"]
    if version == 0:
        version = _begin(connection, file, steps)
    elif version < len(steps):
        _copy(connection, file, len(steps))
    for number, step in enumerate(steps[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;")


def _begin(connection: sqlite3.Connection, file: Path, steps: list[str]) -> int:
    """Make the tables of a damaged database, with what is still read in it, in one transaction; their version."""
    copies = set_aside_copies(file)
    version = _read_version(copies[-1], damaged=True) if copies else 0
    if not 0 < version <= len(steps):
        return 0
    connection.executescript("\n".join(["BEGIN IMMEDIATE;", *steps[:version]]))
    log.warning("%d agents were read in %s", salvage(connection, copies[-1]), copies[-1])
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("COMMIT")
    return version


def _copy(connection: sqlite3.Connection, file: Path, version: int) -> None:
    """Keep the database as it is before it becomes that version; older copies go."""
    kept = file.with_name(f"{file.name}.before-{version}")
    half = file.with_name(f"{kept.name}.new")
    for left in (half, half.with_name(f"{half.name}-journal")):
        left.unlink(missing_ok=True)
    _make_private(half)
    with closing(sqlite3.connect(half)) as copy:
        connection.backup(copy)
    half.replace(kept)
    for old in file.parent.glob(f"{file.name}.before-*"):
        if old != kept:
            old.unlink()
