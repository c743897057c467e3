"""Tables, colours and durations on a terminal."""

import math
import os
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from forkjoin.cli.safe_output import escape_controls

#: The colour of each state of an agent, its merge, and its verify.
COLOURS = {
    "queued": "dim",
    "preparing": "cyan",
    "running": "bold cyan",
    "waiting": "bold yellow",
    "paused": "yellow",
    "finishing": "cyan",
    "succeeded": "green",
    "failed": "bold red",
    "stopped": "yellow",
    "timed_out": "red",
    "lost": "bold red",
    "merged": "green",
    "conflicted": "bold red",
    "rejected": "red",
    "passed": "green",
}

#: The fields of agents that fit a terminal with fewer columns than this.
_FIELDS_BY_WIDTH = (
    (50, ("id", "state", "name")),
    (100, ("id", "name", "state", "merge", "elapsed_s", "last_event")),
    (math.inf, ("id", "name", "agent", "state", "merge", "elapsed_s", "cost_usd", "last_event")),
)
#: The fields of candidates for one task.
_CANDIDATE_FIELDS = ("id", "agent", "model", "state", "verify", "score", "lines", "cost_usd", "duration_s", "won")
#: Titles of columns that are not named like their field.
_TITLES = {"elapsed_s": "time", "duration_s": "time", "cost_usd": "cost", "last_event": "last"}


def console(*, stderr: bool = False) -> Console:
    return Console(highlight=False, emoji=False, stderr=stderr, width=80 if os.environ.get("COLUMNS") == "0" else None)


def coloured(word: str) -> str:
    colour = COLOURS.get(word)
    return f"[{colour}]{plain(word)}[/]" if colour else plain(word)


def plain(text: str) -> str:
    """Return rich markup that shows the text, with control characters escaped."""
    return escape(escape_controls(text))


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: bool = True) -> Table:
    """Return a table whose last column takes the remaining width, wrapped or cut.

    Cells are rich markup, so text from outside must be made `plain` before.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=True)
    for name in columns[:-1]:
        made.add_column(name, no_wrap=True)
    made.add_column(columns[-1], no_wrap=not wrap, ratio=1, overflow="fold" if wrap else "ellipsis")
    for row in rows:
        made.add_row(*row)
    return made


def agents_table(rows: Sequence[dict[str, Any]], width: int, rest: int = 0) -> Table:
    """Return a table of agents that fits the terminal's width.

    A note says that `rest` agents are left out, if any.
    """
    fields = next(fields for limit, fields in _FIELDS_BY_WIDTH if width < limit)
    named = [row | {"name": f"{row['name']} (of {row['parent']})"} if "parent" in row else row for row in rows]
    made = _table_of(fields, named, wrap=False)
    made.columns[fields.index("name")].max_width = width // 4
    if rest:
        made.caption = f"… and {rest} more: forkjoin ps --limit 0 lists all"
        made.caption_justify = "left"
    return made


def candidates_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return a table of candidates, with the fields that at least one of them has."""
    return _table_of([field for field in _CANDIDATE_FIELDS if any(field in row for row in rows)], rows, wrap=True)


def _table_of(fields: Sequence[str], rows: Sequence[dict[str, Any]], *, wrap: bool) -> Table:
    cells = [[_cell(field, row[field]) if field in row else "" for field in fields] for row in rows]
    return make_table([_TITLES.get(field, field) for field in fields], cells, wrap=wrap)


def _cell(field: str, value: Any) -> str:
    match field:
        case "state" | "merge" | "verify":
            return coloured(value)
        case "elapsed_s" | "duration_s":
            return duration(value)
        case "cost_usd":
            return f"${value:.2f}"
        case "won":
            return "yes"
        case _:
            return plain(f"{value:g}" if isinstance(value, float) else str(value))
