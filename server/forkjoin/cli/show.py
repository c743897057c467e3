"""How the command line shows things on a terminal: tables, colours, durations."""

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from forkjoin.cli.say import visible

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
    (100, ("id", "name", "state", "merge", "time", "last")),
    (math.inf, ("id", "name", "agent", "state", "merge", "time", "cost", "last")),
)


#: What is told of candidates for one task.
_COMPARED = ("id", "agent", "model", "state", "verify", "score", "lines", "cost_usd", "duration_s", "won")


def console(*, stderr: bool = False) -> Console:
    return Console(highlight=False, emoji=False, stderr=stderr)


def coloured(word: str) -> str:
    colour = COLOURS.get(word)
    return f"[{colour}]{plain(word)}[/]" if colour else plain(word)


def plain(text: str) -> str:
    """A text as markup: it shows as it is, and moves nothing."""
    return escape(visible(text))


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


def agents_table(rows: Sequence[dict[str, Any]], width: int) -> Table:
    """A line for each agent, with as much of it as a terminal of that width has room for."""
    names = next(names for limit, names in _COLUMNS if width < limit)
    cells = [_cells(row) for row in rows]
    made = table(names, [[row[name] for name in names] for row in cells], wrap=False)
    made.columns[names.index("name")].max_width = width // 4
    return made


def candidates_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A line for each candidate, with what is told of any of them."""
    shown = {"duration_s": "time", "cost_usd": "cost"}
    names = [name for name in _COMPARED if any(name in row for row in rows)]
    cells = [[_cell(name, row[name]) if name in row else "" for name in names] for row in rows]
    return table([shown.get(name, name) for name in names], cells)


def _cell(name: str, value: Any) -> str:
    match name:
        case "state" | "verify":
            return coloured(value)
        case "duration_s":
            return duration(value)
        case "cost_usd":
            return f"${value:.2f}"
        case "won":
            return "yes"
        case _:
            return plain(f"{value:g}" if isinstance(value, float) else str(value))


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        "id": row["id"],
        "name": plain(row["name"] + (f" (of {row['parent']})" if "parent" in row else "")),
        "agent": plain(row["agent"]),
        "state": coloured(row["state"]),
        "merge": coloured(row["merge"]),
        "time": duration(row["elapsed_s"]),
        "cost": f"${row['cost_usd']:.2f}" if row.get("cost_usd") is not None else "",
        "last": plain(row["last_event"]),
    }
