"""Names of files and refs: as git reads and prints them, and as messages show them."""

import os
from collections.abc import Iterable, Sequence


def split_names(listing: str) -> list[str]:
    """Return the names in a listing that git printed with `-z`, each followed by NUL."""
    return [name for name in listing.split("\0") if name]


def join_names(names: Iterable[str]) -> bytes:
    """Return the names, each followed by NUL, as git reads names from stdin with `-z`."""
    return b"".join(os.fsencode(name) + b"\0" for name in names)


def printable(name: str) -> str:
    """Return a name as one line of valid Unicode.

    Line feeds and undecodable bytes are escaped.
    """
    return os.fsencode(name).decode(errors="backslashreplace").replace("\n", "\\n")


def printable_list(names: Sequence[str], limit: int = 10) -> str:
    """Return the first `limit` names with commas, and how many more there are.

    A name is cut after 100 characters.
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(printable(name)[:100] for name in names[:limit]) + more
