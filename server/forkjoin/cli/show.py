"""How the command line shows things: tables on a terminal, JSON where it is asked for."""

import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from forkjoin.cli.say import say, visible

#: How each state and merge is coloured.
COLOURS = {
    "queued": "dim",
    "preparing": "cyan",
    "running": "bold cyan",
    "waiting": "bold magenta",
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


def console(*, stderr: bool = False) -> Console:
    return Console(highlight=False, emoji=False, stderr=stderr)


def as_json(value: Any) -> None:
    say(json.dumps(value, indent=2, ensure_ascii=False))


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


def agents_table(rows: Sequence[dict[str, Any]]) -> Table:
    return table(
        ("id", "name", "agent", "state", "merge", "time", "cost", "last"),
        [
            (
                row["id"],
                plain(row["name"]),
                plain(row["agent"]),
                coloured(row["state"]),
                coloured(row["merge"]),
                duration(row["elapsed_s"]),
                f"${row['cost_usd']:.2f}" if row.get("cost_usd") is not None else "",
                plain(row["last_event"]),
            )
            for row in rows
        ],
        wrap=False,
    )
