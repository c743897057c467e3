"""The daemon's log: one line of JSON for each entry, in a file of limited size that only its owner can read.

`time` is in UTC, `what` is the logger's name, `words` the message. `agent`, `merge` and `connection` are the ids of
the agent, merge and connection that the entry is about. Text that Python itself writes to stderr, for example at a
crash, is in the file unchanged.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, cast

#: Bytes of the log. A longer log is renamed, and replaces the log that was renamed before.
LIMIT = 8 * 1024 * 1024
#: Characters of one message, and of its traceback.
_WORDS = 8_000

_concerned: ContextVar[dict[str, str]] = ContextVar("concerned", default={})  # noqa: B039


@contextmanager
def concerning(**ids: object) -> Generator[None]:
    """Add these ids to all log entries within the context.

    Entries of tasks that are started within the context get the ids too.
    """
    token = _concerned.set(_concerned.get() | {name: str(value) for name, value in ids.items()})
    try:
        yield
    finally:
        _concerned.reset(token)


def open_journal(file: Path, redact: Callable[[str], str]) -> None:
    """Redirect stdout, stderr and all logging of this process to a file.

    Args:
        redact: Removes secrets from messages and tracebacks.
    """
    handler = _File(file, maxBytes=LIMIT, backupCount=1, encoding="utf-8", errors="replace")
    handler.setFormatter(_Formatter(redact))
    logging.raiseExceptions = (
        False  # an entry that can't be written, e.g. on a full disk, must not raise an exception in its writer
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("mcp").setLevel(logging.WARNING)


class _File(RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        private = partial(os.open, mode=0o600)
        file = open(self.baseFilename, "a", encoding="utf-8", errors="replace", opener=private)  # noqa: SIM115
        for descriptor in (1, 2):  # they may lead to the log of the shim that started the daemon
            os.dup2(file.fileno(), descriptor)
        return file


class _Formatter(logging.Formatter):
    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{moment}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "what": record.name.removeprefix("forkjoin."),
            **_concerned.get(),
            "words": self._redact(record.getMessage())[:_WORDS],
        }
        if record.exc_info:
            entry["traceback"] = self._redact(self.formatException(record.exc_info))[-_WORDS:]
        return json.dumps(entry, ensure_ascii=False)


# -- reading


def _entry(line: str) -> dict[str, Any] | None:
    try:
        found: Any = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def complaint(line: str) -> str:
    """Return the error message in a log line, or an empty string for other lines.

    A line that is not JSON counts as an error, and is returned whole.
    """
    entry = _entry(line)
    if entry is None:
        return line
    return str(entry.get("words")) if entry.get("level") in ("error", "critical") else ""


def format_entry(line: str) -> str:
    """Return a log line in a form for people."""
    entry = _entry(line)
    if entry is None:
        return line
    concerned = (f"{entry[name]}:" for name in ("agent", "merge", "connection") if name in entry)
    first_line = " ".join(map(str, (entry.get("time"), entry.get("level"), *concerned, entry.get("words"))))
    trace = str(entry.get("traceback", "")).strip()
    return "\n    ".join((first_line, *trace.splitlines()))
