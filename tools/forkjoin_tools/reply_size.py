"""The size of replies as JSON, and how results are shortened to fit.

No reply line is over 64 KB, including both the text and the structured content, and JSON's escapes.
"""

import codecs
import json
import re
import string
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel

Row = TypeVar("Row", bound=BaseModel)

#: Bytes of JSON that a result, or a page of text, may take. The rest of the 64 KB is the reply's envelope.
REPLY_BYTES = 60_000
#: The characters of secrets such as API keys.
_SECRET_CHARACTERS = (string.ascii_letters + string.digits + "_-./+=~").encode()


def json_size(value: object) -> int:
    """Return the bytes of a value as JSON."""
    plain = value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value
    return len(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))


def first_lines(lines: list[str], most: int = 10) -> list[str]:
    """Return the first lines, and a line with the number of those left out."""
    return [*lines[:most], f"… and {len(lines) - most} more"] if len(lines) > most else lines


#: White space, control characters, and characters that change the direction of text.
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def one_line(text: str) -> str:
    """Return the text in one line, without control characters."""
    return _UNPRINTABLE.sub(" ", text).strip()


def fit_rows(rows: Sequence[Row], most_bytes: int) -> list[Row]:
    """Return as many of the first rows as fit into these bytes of JSON.

    At least one row is returned.
    """
    size = 0
    for count, row in enumerate(rows):
        size += json_size(row) + 1
        if size > most_bytes and count:
            return list(rows[:count])
    return list(rows)


def fit_bytes(page: bytes) -> bytes:
    """Return as much of the page's beginning as fits into a reply.

    JSON takes six bytes for a control character.
    """
    while json_size(page.decode(errors="replace")) > REPLY_BYTES:
        page = page[: len(page) // 2]
    return page


def whole_lines(page: bytes) -> bytes:
    """Return the page up to its last complete line.

    A page without a line end is cut after its last complete word, or else character. So no secret is cut in two, whose
    halves on two pages could not be recognized.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(page)
    whole = page.removesuffix(decoder.getstate()[0])
    return page[: page.rfind(b"\n") + 1] or whole.rstrip(_SECRET_CHARACTERS) or whole or page


def fit_end(page: bytes, *, cut: bool) -> bytes:
    """Return as much of the page's end as fits into a reply.

    The result begins with a complete line, or else a complete word.

    Args:
        cut: Whether the page's own beginning is in the middle of a line.
    """
    while json_size(page.decode(errors="replace")) > REPLY_BYTES:
        page, cut = page[len(page) // 2 :], True
    return page.partition(b"\n")[2] or page.lstrip(_SECRET_CHARACTERS) or page if cut else page
