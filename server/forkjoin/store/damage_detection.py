"""Detection of a damaged database, and moving it aside.

The database and its log are set aside unchanged, under another name, for a person to inspect. The status and
`forkjoin doctor` mention these files until the person removes them.
"""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from forkjoin.store.rows import as_dict

#: Suffixes of the files of one database: the database, SQLite's write-ahead log, and the index of that log.
_SUFFIXES = ("", "-wal", "-shm")
#: Bytes. Smaller databases are checked at each start, at about a gigabyte per second. Larger databases are checked only
#: if the last daemon left a log.
_ALWAYS_CHECKED = 256 * 1024 * 1024
#: Bytes. With less free space, nothing can be recorded soon.
_LEAST_FREE = 100 * 1024 * 1024
#: The first bytes of SQLite's write-ahead log (section 4.1 of the file format).
_WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the error means that the database file is damaged."""
    code = getattr(error, "sqlite_errorcode", None)  # an error that the sqlite3 module raises itself has no code
    return code is not None and code & 0xFF in _DAMAGED


def open_read_only(file: Path, *, damaged: bool = False) -> sqlite3.Connection:
    """Return a connection that can't change the database.

    Args:
        damaged: Whether to read the parts of a damaged database that SQLite can still read.
    """
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    connection.row_factory = as_dict
    if damaged:
        connection.execute("PRAGMA writable_schema = ON")  # without this, SQLite refuses to open a truncated file
    return connection


def find_damage(file: Path, *, thorough: bool = False) -> str | None:
    """Return a description of the damage of the database at `file`, or None.

    None means that the database is undamaged or missing. The database is never changed.

    Args:
        thorough: Whether to check a database of any size, including its indexes.

    Raises:
        sqlite3.Error: The database can't be read now, for a reason other than damage.
    """
    log = _with_suffix(file, "-wal")
    if _with_suffix(file, ".suspect").exists():
        return "damage was found while the database was in use"
    if not _file_size(file):
        return "the database is empty, but its log is not" if _file_size(log) else None
    if _file_size(log) and (head := _read_head(log)) not in _WAL_MAGIC and head.strip(b"\0"):
        return "its log file is not an SQLite log"
    pragma = "integrity_check(1)" if thorough else "quick_check(1)"
    if not thorough and _file_size(file) > _ALWAYS_CHECKED and not _file_size(log):
        pragma = "schema_version"
    try:
        with closing(open_read_only(file)) as connection:
            (answer,) = connection.execute(f"PRAGMA {pragma}").fetchone().values()
    except sqlite3.Error as error:
        if is_damage(error):
            return str(error)
        raise
    return answer if isinstance(answer, str) and answer != "ok" else None


def suspect(file: Path) -> None:
    """Mark the database as damaged, so that the next start sets it aside."""
    _with_suffix(file, ".suspect").touch(0o600)


def set_aside(file: Path) -> Path:
    """Rename the database and its log, and return the database's new path.

    A second call completes a call that a kill interrupted.
    """
    copies = set_aside_copies(file)
    # A log without a database belongs to the database that was set aside last.
    aside = _new_aside_path(file) if file.exists() or not copies else copies[-1]
    for suffix in _SUFFIXES:
        if _with_suffix(file, suffix).exists():
            _with_suffix(file, suffix).rename(_with_suffix(aside, suffix))
    _with_suffix(file, ".suspect").unlink(missing_ok=True)
    return aside


def note_damage(file: Path) -> None:
    """Record that records were lost without a damaged database.

    An empty file takes the place of the database that would have been set aside.
    """
    _new_aside_path(file).touch(0o600)


def set_aside_copies(file: Path) -> list[Path]:
    """Return the damaged databases that were set aside, oldest first."""
    found = file.parent.glob(f"{file.name}.damaged-*")
    return sorted(copy for copy in found if not copy.name.endswith(_SUFFIXES[1:]))


def find_trouble(file: Path) -> list[str]:
    """Return problems of the records at `file` and of their disk. Blocks.

    Each problem is one line, and includes its remedy.
    """
    problems = [
        f"the records were damaged, and a new database holds all that could be read; check that no agent is missing "
        f"(forkjoin ps --all), then remove {copy}"
        for copy in set_aside_copies(file)
    ]
    free = shutil.disk_usage(file.parent).free
    if free < _LEAST_FREE:
        problems.append(f"only {free // 1024 // 1024} MB are free on the disk of {file.parent}; free space there")
    return problems


def _new_aside_path(file: Path) -> Path:
    return file.with_name(f"{file.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")


def _with_suffix(file: Path, suffix: str) -> Path:
    return file.with_name(f"{file.name}{suffix}")


def _file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _read_head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4)
