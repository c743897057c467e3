"""Where in its files a merge conflicts, and what stands on either side."""

import re
from collections.abc import Iterator, Sequence

from forkjoin.git.file_names import printable
from forkjoin.git.objects import read_blob

#: How many files are looked at, bytes of one, hunks of one, and characters of a hunk.
_FILES, _BYTES, _HUNKS, _WORDS = 5, 300_000, 3, 600

#: Between which lines both sides stand; their length is an attribute, conflict-marker-size.
_BEGIN, _END = re.compile("<{7,} "), re.compile(">{7,} ")


async def find_hunks(common_dir: str, tree: str, files: Sequence[str]) -> list[str]:
    """The first places in these files of a merged tree where it conflicts: file, line, and both sides; not all.

    What conflicts otherwise than line by line (a file that is gone on one side, or binary) has none.
    """
    found: list[str] = []
    for file in files[:_FILES]:
        text = await read_blob(common_dir, f"{tree}:{file}", _BYTES)
        found += _read_hunks(file, text.decode(errors="replace"))
    return found


def _read_hunks(file: str, text: str) -> Iterator[str]:
    """Each place, from `<<<<<<<` to `>>>>>>>`; what stands behind these is a commit of ours, or a tree."""
    hunk: list[str] = []
    count = began = 0
    for number, line in enumerate(text.split("\n"), 1):
        if _BEGIN.match(line):
            began, hunk = number, ["<<<<<<<"]
        elif _END.match(line) and hunk:
            count += 1
            sides = "\n".join([*hunk, ">>>>>>>"])
            if count <= _HUNKS:
                yield f"{printable(file)}, line {began}:\n{sides if len(sides) <= _WORDS else f'{sides[:_WORDS]} …'}"
            hunk = []
        elif hunk:
            hunk.append(line)
    if count > _HUNKS:
        yield f"{printable(file)}: … and {count - _HUNKS} more"
