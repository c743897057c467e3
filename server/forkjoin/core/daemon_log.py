"""The daemon's log: a line of JSON for each thing that happened, with whom it concerns; bounded, and its owner's alone.

`time` is UTC; `what` is the room that speaks, `words` what it says. `agent`, `landing` and `connection` stand where one
of these is concerned. What Python itself writes to stderr, as it does when it falls, stands between, as it is.
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

#: Bytes of the log; then it is begun anew, and the last one is kept beside it.
LIMIT = 8 * 1024 * 1024
#: Bytes of one thing that is said, and of its traceback.
_WORDS = 8_000

_concerned: ContextVar[dict[str, str]] = ContextVar("concerned", default={})  # noqa: B039


@contextmanager
def concerning(**ids: object) -> Generator[None]:
    """What is logged meanwhile, here and in tasks that begin here, names these."""
    token = _concerned.set(_concerned.get() | {name: str(value) for name, value in ids.items()})
    try:
        yield
    finally:
        _concerned.reset(token)


def open_journal(file: Path, redact: Callable[[str], str]) -> None:
    """Let all that this process logs or prints go to the file; what it logs goes through `redact`."""
    handler = _File(file, maxBytes=LIMIT, backupCount=1, encoding="utf-8", errors="replace")
    handler.setFormatter(_Formatter(redact))
    logging.raiseExceptions = False  # a full disk, say: what can't be logged is not said
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("mcp").setLevel(logging.WARNING)


class _File(RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        private = partial(os.open, mode=0o600)
        file = open(self.baseFilename, "a", encoding="utf-8", errors="replace", opener=private)  # noqa: SIM115
        for descriptor in (1, 2):  # whoever started us: a shim's own log is not where one looks
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
    """What a line says that a daemon could not go on for; '' if it says something else."""
    entry = _entry(line)
    if entry is None:
        return line
    return str(entry.get("words")) if entry.get("level") in ("error", "critical") else ""


def show(line: str) -> str:
    """A line as a person reads it."""
    entry = _entry(line)
    if entry is None:
        return line
    concerned = (f"{entry[name]}:" for name in ("agent", "landing", "connection") if name in entry)
    told = " ".join(map(str, (entry.get("time"), entry.get("level"), *concerned, entry.get("words"))))
    trace = str(entry.get("traceback", "")).strip()
    return "\n    ".join((told, *trace.splitlines()))
