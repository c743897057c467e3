"""Paths that differ between two commits or trees, and the files at such paths in a checkout."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from forkjoin.git import git

#: The mode of a submodule, whose object is a commit of another repository.
SUBMODULE = "160000"

_RAW = ("-r", "-z", "--raw", "--no-renames")


@dataclass(frozen=True, slots=True)
class PathChange:
    """A path that differs between two commits or trees."""

    path: str
    old: tuple[str, str]  #: mode and object id in the first commit; the mode is 000000 if it doesn't have the path
    new: tuple[str, str]  #: the same in the second commit

    @property
    def kind(self) -> str:
        """The kind of the change: A for added, D for deleted, M for modified."""
        return "A" if not self.old[0].strip("0") else "D" if not self.new[0].strip("0") else "M"

    @property
    def is_submodule(self) -> bool:
        return SUBMODULE in (self.old[0], self.new[0])


async def changes_between(repository: str, old: str, new: str) -> list[PathChange]:
    """Return all paths that differ between two commits or trees.

    A moved file counts as deleted and added.
    """
    return parse_raw_diff(await git.output(repository, "diff-tree", *_RAW, old, new))


async def changes_between_pairs(repository: str, pairs: Sequence[tuple[str, str]]) -> list[list[PathChange]]:
    """Return the changes within each pair (old tree, new tree), with one call of git."""
    stdin = "".join(f"{old} {new}\n" for old, new in pairs)
    listing = await git.output(repository, "diff-tree", *_RAW, "--stdin", stdin=stdin.encode())
    found: list[list[PathChange]] = []
    position = 0
    for old, new in pairs:  # git prints each pair on a line, and then the changes within the pair
        changes, position = _parse_from(listing, position + len(f"{old} {new}\n"))
        found.append(changes)
    return found


def parse_raw_diff(listing: str) -> list[PathChange]:
    """Parse the output of `git diff-tree --raw -z` for two trees."""
    return _parse_from(listing, 0)[0]


def _parse_from(listing: str, position: int) -> tuple[list[PathChange], int]:
    """Parse the entries of a raw diff that begin at a position of git's output.

    An entry is `:<mode> <mode> <object> <object> <kind>NUL<path>NUL`.

    Return the changes, and the position after the last entry.
    """
    found: list[PathChange] = []
    while listing.startswith(":", position):
        middle = listing.index("\0", position)
        end = listing.index("\0", middle + 1)
        fields, path = listing[position + 1 : middle], listing[middle + 1 : end]
        old_mode, new_mode, old_object, new_object, _ = fields.split(" ")
        found.append(PathChange(path, (old_mode, old_object), (new_mode, new_object)))
        position = end + 1
    return found, position


def find_path_in_the_way(top: str, path: str) -> str | None:
    """Return the existing path that keeps git from creating `path`. Blocks.

    It is `path` itself, or the outermost of its parent folders in whose place there is a file or symlink. Return `None`
    if git can create `path`.

    Args:
        top: The root of the worktree.
        path: A path relative to `top`.
    """
    for level in reversed([path, *parent_folders(path)]):
        where = Path(top, level)
        if where.is_symlink() or (where.exists() and not where.is_dir()):
            return level
    return path if Path(top, path).exists() else None


def is_file_on_disk(top: str, path: str) -> bool:
    """Return whether `path` is a file or symlink with no symlink above. Blocks."""
    where = Path(top, path)
    return find_path_in_the_way(top, path) == path and (where.is_symlink() or where.is_file())


def parent_folders(path: str) -> Iterator[str]:
    """Yield the folders that contain a relative path, the innermost first."""
    while path := path.rpartition("/")[0]:
        yield path
