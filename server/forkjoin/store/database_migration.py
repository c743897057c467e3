"""Opening of the database. A missing one is created, an old one migrated, a damaged one set aside."""

import logging
import os
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

from forkjoin.core.error import CallerError
from forkjoin.store import rows
from forkjoin.store.damage_detection import find_damage, is_damage, open_read_only, set_aside, set_aside_copies
from forkjoin.store.damage_salvage import salvage_rows

log = logging.getLogger(__name__)

#: A larger schema number is damage, because no release has one.
_LAST_VERSION = 10_000
#: Size of SQLite's page cache in KB. By default SQLite would use 2 MB, which gains nothing here.
_CACHE_KB = 512


def open_database(file: Path) -> sqlite3.Connection:
    """Open the database at `file`, creating or migrating it if necessary. Blocks.

    A damaged database is set aside, and its readable rows are copied into a new one.

    Raises:
        CallerError: The file can't be used now, or was written by a newer forkjoin.
    """
    try:
        _refuse_newer(file)
        if damage := find_damage(file):
            log.error("%s is damaged (%s), and was moved to %s", file, damage, set_aside(file))
        return _open(file)
    except sqlite3.Error as error:
        raise CallerError(
            f"{file} can't be used now: {error}. Check that its disk has room and is writable, and call again."
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
    if len(_migrations()) < version < _LAST_VERSION:
        raise CallerError(
            f"{file} was written by a newer forkjoin (schema {version}, this one knows {len(_migrations())}). "
            "Install that version again. Nothing was changed."
        )


def _read_version(file: Path, *, damaged: bool = False) -> int:
    """Return the number of the schema, or 0 if it can't be read.

    Neither the file nor its log is changed.
    """
    if (
        not file.exists() or not file.stat().st_size
    ):  # SQLite deletes the log of an empty database when it opens the database
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
    _make_private(file)  # SQLite gives the log and its index the mode of the database file
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


def _migrations() -> list[str]:
    """Return the SQL of all migrations, in order."""
    folder = resources.files("forkjoin.store") / "migrations"
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(".sql"))
    return [(folder / name).read_text("utf-8") for name in names]


def _migrate(connection: sqlite3.Connection, file: Path) -> None:
    """Apply the migrations that the database lacks, each in a transaction of its own."""
    migrations = _migrations()
    version: int = connection.execute("PRAGMA user_version").fetchone()["user_version"]
    if version == 0:
        version = _take_over_damaged(connection, file, migrations)
    elif version < len(migrations):
        _back_up(connection, file, len(migrations))
    for number, migration in enumerate(migrations[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{migration}\nPRAGMA user_version = {number};\nCOMMIT;")


def _take_over_damaged(connection: sqlite3.Connection, file: Path, migrations: list[str]) -> int:
    """Copy the readable rows of the newest damaged database into the new one.

    This is one transaction.

    Returns:
        The schema version of both databases, or 0 if no damaged database has a usable schema.
    """
    copies = set_aside_copies(file)
    version = _read_version(copies[-1], damaged=True) if copies else 0
    if not 0 < version <= len(migrations):
        return 0
    connection.executescript("\n".join(["BEGIN IMMEDIATE;", *migrations[:version]]))
    log.warning("copied %d agents from %s", salvage_rows(connection, copies[-1]), copies[-1])
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("COMMIT")
    return version


def _back_up(connection: sqlite3.Connection, file: Path, version: int) -> None:
    """Copy the database before it is migrated to `version`, and delete older copies."""
    backup = file.with_name(f"{file.name}.before-{version}")
    unfinished = file.with_name(f"{backup.name}.new")
    for left in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        left.unlink(missing_ok=True)
    _make_private(unfinished)
    with closing(sqlite3.connect(unfinished)) as copy:
        connection.backup(copy)
    unfinished.replace(backup)
    for old in file.parent.glob(f"{file.name}.before-*"):
        if old != backup:
            old.unlink()
