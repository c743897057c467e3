"""How large an answer is on the wire, and how it is made to fit: no reply line is over 64 KB, text and structure
together, escapes included."""

import codecs
import json
import re
import string
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel

Row = TypeVar("Row", bound=BaseModel)

#: Bytes of an answer's structure, or of a page of text, as JSON; the rest is the reply's envelope.
REPLY_BYTES = 60_000
#: What keys are made of.
_WORD = (string.ascii_letters + string.digits + "_-./+=~").encode()


def json_size(value: object) -> int:
    """Bytes of a value as JSON."""
    plain = value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value
    return len(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))


def first_lines(lines: list[str], most: int = 10) -> list[str]:
    """The first of many, and how many more there are."""
    return [*lines[:most], f"… and {len(lines) - most} more"] if len(lines) > most else lines


#: White space, control characters, and what turns the direction of reading.
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def one_line(text: str) -> str:
    """The text in one line, without control characters."""
    return _UNPRINTABLE.sub(" ", text).strip()


def fit(rows: Sequence[Row], room: int) -> list[Row]:
    """As many of the first rows as there is room for; one at least."""
    size = 0
    for count, row in enumerate(rows):
        size += json_size(row) + 1
        if size > room and count:
            return list(rows[:count])
    return list(rows)


def fit_bytes(page: bytes) -> bytes:
    """The beginning of a page that has room once it is text in JSON, where a control character takes six bytes."""
    while json_size(page.decode(errors="replace")) > REPLY_BYTES:
        page = page[: len(page) // 2]
    return page


def whole_lines(page: bytes) -> bytes:
    """The page without the line that its end cuts in two, or else the word, or the character, unless that is all.

    Half a key is not known for one, and its other half would be on the next page.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(page)
    whole = page.removesuffix(decoder.getstate()[0])
    return page[: page.rfind(b"\n") + 1] or whole.rstrip(_WORD) or whole or page


def fit_end(page: bytes, *, cut: bool) -> bytes:
    """The end of a page that has room, as above; in whole lines, or else words, also where it was cut before."""
    while json_size(page.decode(errors="replace")) > REPLY_BYTES:
        page, cut = page[len(page) // 2 :], True
    return page.partition(b"\n")[2] or page.lstrip(_WORD) or page if cut else page
