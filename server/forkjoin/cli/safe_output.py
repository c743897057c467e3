"""What a command prints. A terminal obeys what it is sent, and much of that comes from agents' programs."""

import json as json_
import re
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from forkjoin.core.error import CallerError

#: The option of what can also be printed for programs.
AsJson = Annotated[bool, typer.Option("--json", help="Print what the tool answered, as JSON.")]

#: Control characters (escape sequences begin with one), what turns the direction of reading, and halves of pairs.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_controls(text: str) -> str:
    """The text with what a terminal would obey made escape_controls, as JSON would write it: JSON stays JSON."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


def print_text(text: str, *, err: bool = False, end: str = "\n") -> None:
    typer.echo(escape_controls(text) + end, err=err, nl=False)


@contextmanager
def note_on_interrupt(what: str) -> Generator[None]:
    """Where ^C ends the command, say that it does not end what the daemon was asked for."""
    try:
        yield
    except KeyboardInterrupt:
        print_text(f"\na {what} that was begun goes on: forkjoin status tells of it", err=True)
        raise


def ask_yes_no(question: str, *, default: bool = False) -> bool:
    """What is said to this at the terminal, or on stdin.

    Raises:
        CallerError: There is nobody to ask.
    """
    try:
        return typer.confirm(question, default=default)
    except typer.Abort:
        if sys.stdin.isatty():  # ^C
            raise
        raise CallerError("nobody is there to be asked; where you know what is to be done: --yes") from None


def print_json(value: Any) -> None:
    print_text(json_.dumps(value, indent=2, ensure_ascii=False))


def agent_line(agent: dict[str, Any], *rest: str) -> str:
    """A line of an agent that an answer tells of."""
    return "  ".join((agent["id"], agent["name"], agent["state"], *rest)).rstrip()


def omitted_lines(answer: dict[str, Any]) -> list[str]:
    """A line for those that an answer had no room for, if there are such."""
    return [f"… and {answer['more']} more"] if "more" in answer else []


def print_answer(answer: dict[str, Any], lines: Iterable[str], *, json: bool) -> None:
    """Print what a tool answered: as JSON, or these lines of it, with its note beside them."""
    if json:
        return print_json(answer)
    for line in lines:
        print_text(line)
    if answer.get("note"):
        print_text(answer["note"], err=True)
    return None
