"""The conflict hunks of a merge: the places where both sides differ, with the text of each side."""

import re
from collections.abc import Iterator, Sequence

from forkjoin.git.file_names import printable
from forkjoin.git.objects import read_blob

#: The limits: files that are read, bytes of a file, hunks of a file, and characters of a hunk.
_FILES, _BYTES, _HUNKS, _HUNK_CHARS = 5, 300_000, 3, 600

#: The lines before and after both sides. The attribute conflict-marker-size sets how long the markers are.
_BEGIN, _END = re.compile("<{7,} "), re.compile(">{7,} ")


async def find_hunks(common_dir: str, tree: str, files: Sequence[str]) -> list[str]:
    """Return the first conflict hunks of a merged tree's files, as text.

    A hunk names the file and the line, and has both sides. After the first hunks of a file, a text says how many more
    there are. A file that is deleted on one side, or binary, has no hunks.

    Args:
        common_dir: The repository's common git folder.
        tree: The merged tree, whose files have conflict markers.
        files: The files in conflict.
    """
    found: list[str] = []
    for file in files[:_FILES]:
        text = await read_blob(common_dir, f"{tree}:{file}", _BYTES)
        found += _format_hunks(file, text.decode(errors="replace"))
    return found


def _format_hunks(file: str, text: str) -> Iterator[str]:
    """Yield a file's first hunks as text, and how many more there are.

    The text doesn't have the names that git writes after the markers.

    Args:
        file: The file's path.
        text: The file's content.
    """
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
