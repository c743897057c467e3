"""How the command line shows things on a terminal: tables, colours, durations."""

import math
import os
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from forkjoin.cli.safe_output import escape_controls

#: How each state and merge is coloured.
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

#: What is told of agents in a terminal of less than so many columns.
_COLUMNS = (
    (50, ("id", "state", "name")),
    (100, ("id", "name", "state", "merge", "elapsed_s", "last_event")),
    (math.inf, ("id", "name", "agent", "state", "merge", "elapsed_s", "cost_usd", "last_event")),
)
#: What is told of candidates for one task.
_COMPARED = ("id", "agent", "model", "state", "verify", "score", "lines", "cost_usd", "duration_s", "won")
#: What stands above a column that is not called as its field is.
_TITLES = {"elapsed_s": "time", "duration_s": "time", "cost_usd": "cost", "last_event": "last"}


def console(*, stderr: bool = False) -> Console:
    return Console(highlight=False, emoji=False, stderr=stderr, width=80 if os.environ.get("COLUMNS") == "0" else None)


def coloured(word: str) -> str:
    colour = COLOURS.get(word)
    return f"[{colour}]{plain(word)}[/]" if colour else plain(word)


def plain(text: str) -> str:
    """A text as markup: it shows as it is, and moves nothing."""
    return escape(escape_controls(text))


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: bool = True) -> Table:
    """A plain table whose last column takes what room is left, wrapped or cut.

    Cells are rich markup: what comes from outside is made `plain` before it gets here.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=True)
    for name in columns[:-1]:
        made.add_column(name, no_wrap=True)
    made.add_column(columns[-1], no_wrap=not wrap, ratio=1, overflow="fold" if wrap else "ellipsis")
    for row in rows:
        made.add_row(*row)
    return made


def agents_table(rows: Sequence[dict[str, Any]], width: int, rest: int = 0) -> Table:
    """Return a line per agent, cut to the terminal's width, and the number omitted."""
    fields = next(fields for limit, fields in _COLUMNS if width < limit)
    named = [row | {"name": f"{row['name']} (of {row['parent']})"} if "parent" in row else row for row in rows]
    made = _table_of(fields, named, wrap=False)
    made.columns[fields.index("name")].max_width = width // 4
    if rest:
        made.caption = f"… and {rest} more: forkjoin ps --limit 0 lists all"
        made.caption_justify = "left"
    return made


def candidates_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line for each candidate, with what is told of any of them."""
    return _table_of([field for field in _COMPARED if any(field in row for row in rows)], rows, wrap=True)


def _table_of(fields: Sequence[str], rows: Sequence[dict[str, Any]], *, wrap: bool) -> Table:
    cells = [[_cell(field, row[field]) if field in row else "" for field in fields] for row in rows]
    return table([_TITLES.get(field, field) for field in fields], cells, wrap=wrap)


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
