"""What lies between two commits, path by path, and what of it is there in a checkout."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from forkjoin.git import git

#: The mode of a submodule: a commit of another repository.
SUBMODULE = "160000"

_RAW = ("-r", "-z", "--raw", "--no-renames")


@dataclass(frozen=True, slots=True)
class PathChange:
    """A path that differs: its mode and object on either side; mode 000000 where it is not there."""

    path: str
    old: tuple[str, str]
    new: tuple[str, str]

    @property
    def kind(self) -> str:
        """A where it is added, D where it is deleted, else M."""
        return "A" if not self.old[0].strip("0") else "D" if not self.new[0].strip("0") else "M"

    @property
    def is_submodule(self) -> bool:
        return SUBMODULE in (self.old[0], self.new[0])


async def changes_between(repository: str, old: str, new: str) -> list[PathChange]:
    """Every path that differs; a moved file is one that went and one that came."""
    listing = await git.output(repository, "diff-tree", *_RAW, old, new)
    return parse_raw_diff(listing)


async def changes_between_pairs(repository: str, pairs: Sequence[tuple[str, str]]) -> list[list[PathChange]]:
    """What differs within each pair of trees, an old one and a new one, in one call."""
    asked = "".join(f"{old} {new}\n" for old, new in pairs)
    listing = await git.output(repository, "diff-tree", *_RAW, "--stdin", stdin=asked.encode())
    found: list[list[PathChange]] = []
    at = 0
    for old, new in pairs:  # each is answered by a line that repeats it, and what differs
        changes, at = _read(listing, at + len(f"{old} {new}\n"))
        found.append(changes)
    return found


def parse_raw_diff(listing: str) -> list[PathChange]:
    """Read what `git diff-tree --raw -z` lists of two trees."""
    return _read(listing, 0)[0]


def _read(listing: str, at: int) -> tuple[list[PathChange], int]:
    """The changes that are listed from there on, `:<mode> <mode> <object> <object> <kind>` and path; where they end."""
    found: list[PathChange] = []
    while listing.startswith(":", at):
        middle = listing.index("\0", at)
        end = listing.index("\0", middle + 1)
        how, path = listing[at + 1 : middle], listing[middle + 1 : end]
        old_mode, new_mode, old_object, new_object, _ = how.split(" ")
        found.append(PathChange(path, (old_mode, old_object), (new_mode, new_object)))
        at = end + 1
    return found, at


def find_path_in_the_way(top: str, path: str) -> str | None:
    """What is there already where `path` would be: itself, or the first on its way that is no folder."""
    for one in reversed([path, *parent_folders(path)]):
        where = Path(top, one)
        if where.is_symlink() or (where.exists() and not where.is_dir()):
            return one
    return path if Path(top, path).exists() else None


def is_file_on_disk(top: str, path: str) -> bool:
    """Whether `path` is a file, or a symlink, and no symlink is on its way."""
    where = Path(top, path)
    return find_path_in_the_way(top, path) == path and (where.is_symlink() or where.is_file())


def parent_folders(path: str) -> Iterator[str]:
    """The folders on the way to a path, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path
