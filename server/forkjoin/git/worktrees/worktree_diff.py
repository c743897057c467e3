"""The diff from a commit to a worktree's present files."""

from pathlib import Path

from forkjoin.git import git
from forkjoin.git.diff import LIMIT, diff_command, restrict_to
from forkjoin.git.file_names import printable, split_names
from forkjoin.git.worktrees.worktree_folder import find_worktree_with_files

#: The most untracked files that are named.
_UNTRACKED_LIMIT = 100


async def read_worktree_diff(common_dir: str, worktree: Path, base: str, path: str | None, *, stat: bool) -> bytes:
    """Return the diff from `base` to a worktree's present files, cut after 32 MB.

    The names of untracked files follow the diff. Return no bytes if the worktree is not registered or has no folder.

    Args:
        common_dir: The common git folder of the repository.
        worktree: The root of the worktree.
        base: The old commit.
        path: A path to restrict the diff to, or `None`.
        stat: Whether to return a summary per file instead of a patch.
    """
    place = await find_worktree_with_files(common_dir, worktree)
    if place is None:
        return b""
    command = (*diff_command(stat), base, "--", *restrict_to(path))
    text = await git.read_output(worktree, *command, limit=LIMIT, extra=place.variables)
    untracked = split_names(await place.git("ls-files", "-z", "--others", "--exclude-standard"))[:_UNTRACKED_LIMIT]
    return text + b"".join(b"new, not in git yet: %s\n" % printable(name).encode() for name in untracked)
