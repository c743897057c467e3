"""Printing on a terminal. Much of the text comes from agents, so control characters in it are escaped."""

import json as json_
import re
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from forkjoin.core.error import CallerError

#: The option of commands that can print JSON.
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

#: Control characters (escape sequences begin with one), characters that change the text direction, and surrogates.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_controls(text: str) -> str:
    """Return the text with control characters escaped as in JSON.

    JSON stays valid JSON.
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


def print_text(text: str, *, err: bool = False, end: str = "\n") -> None:
    """Print text with control characters escaped."""
    typer.echo(escape_controls(text) + end, err=err, nl=False)


@contextmanager
def note_on_interrupt(operation: str) -> Generator[None]:
    """If ^C ends the command, print that the operation goes on in the daemon."""
    try:
        yield
    except KeyboardInterrupt:
        print_text(f"\nthe {operation} goes on if it has begun. See forkjoin status", err=True)
        raise


def ask_yes_no(question: str, *, default: bool = False) -> bool:
    """Ask the person a yes-or-no question at the terminal or on stdin.

    Raises:
        CallerError: stdin has ended and is not a terminal.
    """
    try:
        return typer.confirm(question, default=default)
    except typer.Abort:
        if sys.stdin.isatty():  # ^C
            raise
        raise CallerError("there is nobody to ask. To agree without being asked, pass --yes") from None


def print_json(value: Any) -> None:
    print_text(json_.dumps(value, indent=2, ensure_ascii=False))


def agent_line(agent: dict[str, Any], *rest: str) -> str:
    """Return a line about an agent: id, name, state, and further texts."""
    return "  ".join((agent["id"], agent["name"], agent["state"], *rest)).rstrip()


def omitted_lines(answer: dict[str, Any]) -> list[str]:
    """Return a line with the number of agents that a result left out, if any."""
    return [f"… and {answer['more']} more"] if "more" in answer else []


def print_answer(answer: dict[str, Any], lines: Iterable[str], *, json: bool) -> None:
    """Print a tool's result as JSON, or else these lines, and its note to stderr."""
    if json:
        return print_json(answer)
    for line in lines:
        print_text(line)
    if answer.get("note"):
        print_text(answer["note"], err=True)
    return None
