"""What a command prints. A terminal obeys what it is sent, and much of that comes from agents' programs."""

import re

import typer

#: Control characters (escape sequences begin with one), what turns the direction of reading, and halves of pairs.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with what a terminal would obey made visible, as JSON would write it: JSON stays JSON."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


def say(text: str, *, err: bool = False) -> None:
    typer.echo(visible(text), err=err)
