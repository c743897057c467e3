"""A damaged database: found out, and set aside with its log, untouched, for a person to look at.

Its copy stays until the person removes it, and as long as it is there, status and doctor tell of it.
"""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from forkjoin.store.rows import as_dict

#: Beside the database, SQLite's log and its index.
_BESIDE = ("", "-wal", "-shm")
#: Up to this size a database is looked through at each start, which takes a second for a gigabyte; beyond it only after
#: an end that left a log.
_LOOKED_THROUGH = 256 * 1024 * 1024
#: Bytes; a disk with less free is soon too full to record anything.
_LEAST_FREE = 100 * 1024 * 1024
#: How SQLite's log begins (the file format's section 4.1).
_WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite complains of what is in the file, and not of what it may do with it now."""
    code = getattr(error, "sqlite_errorcode", None)  # errors that Python's own module raises have none
    return code is not None and code & 0xFF in _DAMAGED


def open_read_only(file: Path, *, damaged: bool = False) -> sqlite3.Connection:
    """A connection that changes nothing; with `damaged`, to what SQLite would refuse to look at, as it is cut short."""
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    connection.row_factory = as_dict
    if damaged:
        connection.execute("PRAGMA writable_schema = ON")  # of all it allows, this is what we want of it
    return connection


def find_damage(file: Path, *, thorough: bool = False) -> str | None:
    """What is wrong with the database at `file`; none where it is sound, or not there. Changes nothing.

    Args:
        thorough: Whether to look through it whatever its size, and compare its indexes too.
    """
    log = _beside(file, "-wal")
    if _beside(file, ".suspect").exists():
        return "it was found to be damaged while it was in use"
    if not _size(file):
        return "it is empty, and its log is not" if _size(log) else None
    if _size(log) and (head := _read_head(log)) not in _WAL_MAGIC and head.strip(b"\0"):
        return "its log is no log"
    question = "integrity_check(1)" if thorough else "quick_check(1)"
    if not thorough and _size(file) > _LOOKED_THROUGH and not _size(log):
        question = "schema_version"
    try:
        with closing(open_read_only(file)) as connection:
            (answer,) = connection.execute(f"PRAGMA {question}").fetchone().values()
    except sqlite3.Error as error:
        if is_damage(error):
            return str(error)
        raise
    return answer if isinstance(answer, str) and answer != "ok" else None


def suspect(file: Path) -> None:
    """Leave word that the database was found to be damaged in use: the next start sets it aside."""
    _beside(file, ".suspect").touch(0o600)


def set_aside(file: Path) -> Path:
    """Move the database away with its log; where it is now. A kill in between is made good by doing it again."""
    copies = set_aside_copies(file)
    aside = _aside(file) if file.exists() or not copies else copies[-1]  # what is left belongs to the last one
    for end in _BESIDE:
        if _beside(file, end).exists():
            _beside(file, end).rename(_beside(aside, end))
    _beside(file, ".suspect").unlink(missing_ok=True)
    return aside


def note_damage(file: Path) -> None:
    """Leave word that records were lost, where there is no damaged database to set aside."""
    _aside(file).touch(0o600)


def set_aside_copies(file: Path) -> list[Path]:
    """The damaged databases that were set aside, oldest first."""
    found = file.parent.glob(f"{file.name}.damaged-*")
    return sorted(copy for copy in found if not copy.name.endswith(_BESIDE[1:]))


def find_trouble(file: Path) -> list[str]:
    """What is wrong with the records at `file` and their disk, a line each, with what to do about it. Blocks."""
    told = [
        f"the records were damaged and begun anew with all that could still be read; see that no agent is missing "
        f"(forkjoin ps --all), then remove {copy}"
        for copy in set_aside_copies(file)
    ]
    free = shutil.disk_usage(file.parent).free
    if free < _LEAST_FREE:
        told.append(f"only {free // 1024 // 1024} MB are free on the disk of {file.parent}; free space there")
    return told


def _aside(file: Path) -> Path:
    return file.with_name(f"{file.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")


def _beside(file: Path, end: str) -> Path:
    return file.with_name(f"{file.name}{end}")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _read_head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(4)
