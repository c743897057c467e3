"""Where in its files a merge conflicts, and what stands on either side."""

import re
from collections.abc import Iterator, Sequence

from forkjoin.branch import git

_MARKED = re.compile(r"^<{7} .*?^>{7} [^\n]*$", re.MULTILINE | re.DOTALL)
#: Of a marker, what comes after it is a commit of ours, or a tree.
_WHOSE = re.compile(r"^(<{7}|>{7}) .*$", re.MULTILINE)

#: How many files are looked at, bytes of one, hunks of one, and characters of a hunk.
_FILES, _BYTES, _HUNKS, _WORDS = 5, 1_000_000, 3, 600


async def find_hunks(common_dir: str, tree: str, files: Sequence[str]) -> list[str]:
    """The first places in these files of a merged tree where it conflicts: file, line, and both sides; not all.

    What conflicts otherwise than line by line (a file that is gone on one side, or binary) has none.
    """
    found: list[str] = []
    for file in files[:_FILES]:
        if listing := await git.git(common_dir, "ls-tree", "-z", "--full-tree", tree, "--", f":(top,literal){file}"):
            how = listing.partition("\t")[0].split(" ")
            if how[1] == "blob":
                text = (await git.read(common_dir, "cat-file", "blob", how[2], limit=_BYTES)).decode(errors="replace")
                found += _read(file, text)
    return found


def _read(file: str, text: str) -> Iterator[str]:
    for number, found in enumerate(_MARKED.finditer(text)):
        if number == _HUNKS:
            yield f"{file}: … and {len(_MARKED.findall(text)) - _HUNKS} more"
            return
        line = text.count("\n", 0, found.start()) + 1
        sides = _WHOSE.sub(r"\1", found[0])
        yield f"{file}, line {line}:\n{sides if len(sides) <= _WORDS else f'{sides[:_WORDS]} …'}"
