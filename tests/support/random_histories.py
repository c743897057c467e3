"""Random git histories for hypothesis: branches that edit, add, move and delete files."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

#: A file's mode and lines. The only line of a symlink is its target, that of a submodule is a commit id.
File = tuple[str, tuple[str, ...]]
Files = Mapping[str, File]

_PATHS = ("a", "b", "d/x", "d/y", "d/e/z", "f/x", "a/b", "d")
_LINES = 9


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: the indices of its parents in the list of commits, and its files."""

    parents: tuple[int, ...]
    files: Files


def _edit(files: Files, path: str, number: int, line: int) -> Files:
    mode, lines = files[path]
    at = line % max(len(lines), 1)
    return {**files, path: (mode, (*lines[:at], f"changed by {number}", *lines[at + 1 :]))}


def _put(files: Files, path: str, file: File) -> Files:
    """Return the files with this one added, and without files in its way."""
    kept = {
        other: content
        for other, content in files.items()
        if not other.startswith(f"{path}/") and not path.startswith(f"{other}/")
    }
    return {**kept, path: file}


def _without(files: Files, path: str) -> Files:
    return {other: content for other, content in files.items() if other != path}


@st.composite
def _changed(draw: st.DrawFn, files: Files, number: int) -> Files:
    """Draw one change, and return the files after it."""
    kind = draw(
        st.sampled_from(("edit", "edit", "edit", "add", "add", "move", "move folder", "delete", "mode", "link"))
    )
    path = draw(st.sampled_from(sorted(files) or list(_PATHS)))
    if path not in files or kind == "add":
        return _put(files, draw(st.sampled_from((*_PATHS, f"new{number}", f"d/new{number}"))), _new(number))
    match kind:
        case "edit":
            return _edit(files, path, number, draw(st.integers(0, _LINES)))
        case "move":
            return _put(_without(files, path), draw(st.sampled_from((*_PATHS, f"moved{number}"))), files[path])
        case "move folder":
            moved = {old: f"g{old[1:]}" if old.startswith("d/") else old for old in files}
            return {moved[old]: content for old, content in files.items()}
        case "mode":
            return {**files, path: ("100755", files[path][1])}
        case "link":
            return {**files, path: ("120000", (f"to{number}",))}
        case _:
            return _without(files, path)


def _new(number: int) -> File:
    return "100644", tuple(f"of {number}, {line}" for line in range(_LINES))


@st.composite
def histories(draw: st.DrawFn, most: int = 5, *, criss_cross: bool = False) -> list[Commit]:
    """Draw a list of commits: a base, then commits on top of it or of each other.

    The last commit is the merge target. With `criss_cross`, a commit may be a merge of two earlier ones.
    """
    base: Files = {path: ("100644", tuple(f"{path} {n}" for n in range(_LINES))) for path in _PATHS[:6]}
    commits = [Commit((), base)]
    for number in range(1, draw(st.integers(2, most + 1)) + 1):
        parent = draw(st.integers(0, number - 1)) if draw(st.integers(0, 3)) == 0 else 0
        files = commits[parent].files
        for n in range(draw(st.integers(1, 3))):
            files = draw(_changed(files, number * 10 + n))
        other = draw(st.integers(0, number - 1)) if criss_cross and draw(st.booleans()) else parent
        commits.append(Commit(tuple(dict.fromkeys((parent, other))), files))
    return commits


def write(repository: Path, commits: Sequence[Commit]) -> None:
    """Write the commits into a repository, with a branch `b<index>` at each."""
    stream: list[bytes] = []
    for place, commit in enumerate(commits):
        stream.append(
            b"commit refs/heads/b%d\nmark :%d\ncommitter x <x@x> %d +0000\n" % (place, place + 1, 1000 + place)
        )
        stream.append(_data(f"{place}"))
        links = [b"from", *[b"merge"] * len(commit.parents)]
        stream += [b"%s :%d\n" % (link, parent + 1) for link, parent in zip(links, commit.parents, strict=False)]
        stream.append(b"deleteall\n")
        stream += [b"M %s" % _entry(path, file) for path, file in commit.files.items()]
    argv = ["git", "-C", str(repository), "fast-import", "--quiet", "--force"]
    subprocess.run(argv, input=b"".join(stream), check=True)


def _entry(path: str, file: File) -> bytes:
    mode, lines = file
    quoted = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    if mode == "160000":
        return f'{mode} {lines[0]} "{quoted}"\n'.encode()
    text = lines[0] if mode == "120000" and lines else "".join(f"{line}\n" for line in lines)
    return f'{mode} inline "{quoted}"\n'.encode() + _data(text)


def _data(text: str) -> bytes:
    return b"data %d\n%s\n" % (len(text.encode()), text.encode())
