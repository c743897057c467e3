"""The conflict hunks of a merge: where in the files both sides differ, and what each side has there."""

import re
from collections.abc import Iterator, Sequence

from forkjoin.git.file_names import printable
from forkjoin.git.objects import read_blob

#: How many files are read, bytes of each, hunks of each, and characters of a hunk.
_FILES, _BYTES, _HUNKS, _HUNK_CHARS = 5, 300_000, 3, 600

#: The markers around both sides. Their length is set by an attribute, conflict-marker-size.
_BEGIN, _END = re.compile("<{7,} "), re.compile(">{7,} ")


async def find_hunks(common_dir: str, tree: str, files: Sequence[str]) -> list[str]:
    """Return the first conflict hunks of a merged tree's files, as text.

    A hunk names the file and the line, and has both sides.

    A file that is deleted on one side, or binary, has no hunks.
    """
    found: list[str] = []
    for file in files[:_FILES]:
        text = await read_blob(common_dir, f"{tree}:{file}", _BYTES)
        found += _format_hunks(file, text.decode(errors="replace"))
    return found


def _format_hunks(file: str, text: str) -> Iterator[str]:
    """Yield each hunk as text, without the names that git writes after the markers."""
    hunk: list[str] = []
    count = first_line = 0
    for number, line in enumerate(text.split("\n"), 1):
        if _BEGIN.match(line):
            first_line, hunk = number, ["<<<<<<<"]
        elif _END.match(line) and hunk:
            count += 1
            sides = "\n".join([*hunk, ">>>>>>>"])
            if count <= _HUNKS:
                shown = sides if len(sides) <= _HUNK_CHARS else f"{sides[:_HUNK_CHARS]} …"
                yield f"{printable(file)}, line {first_line}:\n{shown}"
            hunk = []
        elif hunk:
            hunk.append(line)
    if count > _HUNKS:
        yield f"{printable(file)}: … and {count - _HUNKS} more"
