"""Merging two commits without touching anything: what would come of it, or where they conflict."""

from dataclasses import dataclass

from forkjoin.branch import git
from forkjoin.error import GitError


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge that was tried: its tree and, if there are any, the files in conflict."""

    tree: str
    conflicts: tuple[str, ...]


async def try_merge(common_dir: str, ours: str, theirs: str) -> Merged:
    """Merge two commits in git's object store alone (git-merge-tree(1)).

    Raises:
        GitError: They can't be merged at all (unrelated histories).
    """
    arguments = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs)
    code, out, err = await git.run(common_dir, *arguments)
    if code not in (0, 1):
        raise GitError(arguments, code, err)
    tree, *files = out.decode(errors="replace").rstrip("\0").split("\0")
    return Merged(tree, tuple(dict.fromkeys(files)) if code else ())
