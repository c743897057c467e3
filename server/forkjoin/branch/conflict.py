"""Merging two commits without touching anything: what would come of it, or where they conflict."""

import itertools
from dataclasses import dataclass

from forkjoin.branch import git


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge that was tried: its tree and, if there are any, the files in conflict."""

    tree: str
    conflicts: tuple[str, ...]


async def try_merge(common_dir: str, ours: str, theirs: str) -> Merged:
    """Merge two commits in git's object store alone (git-merge-tree(1)), with the attributes that `ours` sets.

    Raises:
        GitError: They can't be merged at all (unrelated histories).
    """
    arguments = ("merge-tree", "--write-tree", "--name-only", "-z", ours, theirs)
    code, out, _ = await git.run(common_dir, *arguments, extra={"GIT_ATTR_SOURCE": ours}, fine=(0, 1))
    tree, *told = out.decode(errors="replace").split("\0")
    return Merged(tree, _conflicts(told) if code else ())


def _conflicts(told: list[str]) -> tuple[str, ...]:
    """The files that git left unmerged; where it left none, those that its messages of conflicts are about.

    A folder that one side split in two, and the other added to, is such a conflict without an unmerged file.
    """
    files = list(itertools.takewhile(bool, told))
    return tuple(dict.fromkeys(files or _complained_of(told[1:])))


def _complained_of(fields: list[str]) -> list[str]:
    """The paths in messages, each of which is: how many paths, the paths, its kind, its text."""
    paths: list[str] = []
    while len(fields) > 1:
        count = int(fields[0])
        if fields[count + 1].startswith("CONFLICT"):
            paths += fields[1 : count + 1]
        fields = fields[count + 3 :]
    return paths or ["(git names no file)"]
