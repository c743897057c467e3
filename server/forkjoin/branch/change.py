"""What lies between two commits, path by path, and what of it is there in a checkout."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from forkjoin.branch import git

#: The mode of a submodule: a commit of another repository.
SUBMODULE = "160000"


@dataclass(frozen=True, slots=True)
class Change:
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


async def changes_between(repository: str, old: str, new: str) -> list[Change]:
    """Every path that differs; a moved file is one that went and one that came."""
    listing = git.names_in(await git.git(repository, "diff-tree", "-r", "-z", "--raw", "--no-renames", old, new))
    found: list[Change] = []
    for how, path in zip(listing[::2], listing[1::2], strict=True):  # ":<mode> <mode> <object> <object> <kind>", path
        old_mode, new_mode, old_object, new_object, _ = how.removeprefix(":").split(" ")
        found.append(Change(path, (old_mode, old_object), (new_mode, new_object)))
    return found


def standing(top: str, path: str) -> str | None:
    """What is there already where `path` would be: itself, or the first on its way that is no folder."""
    for one in reversed([path, *above(path)]):
        where = Path(top, one)
        if where.is_symlink() or (where.exists() and not where.is_dir()):
            return one
    return path if Path(top, path).exists() else None


def is_file(top: str, path: str) -> bool:
    """Whether `path` is a file, or a symlink, and no symlink is on its way."""
    where = Path(top, path)
    return standing(top, path) == path and (where.is_symlink() or where.is_file())


def above(path: str) -> Iterator[str]:
    """The folders on the way to a path, the nearest first."""
    return (str(folder) for folder in PurePath(path).parents if folder.name)
