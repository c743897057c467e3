"""Work that git hides: ignored files, and changes to files that an agent marked in the index.

The marks are assume-unchanged and skip-worktree (git-update-index(1)): git doesn't look at such files.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import is_gone
from forkjoin.git import git
from forkjoin.git.file_names import join_names, split_names
from forkjoin.git.worktrees.staging import copy_index_file
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, find_worktree_with_files

#: The options with which `git ls-files` also lists untracked files. It omits those that a .gitignore ignores, or rules
#: that it reads from stdin.
_WITH_UNTRACKED = ("--cached", "--others", "--exclude-per-directory=.gitignore", "--exclude-from=/dev/stdin")


async def find_hidden_work(common_dir: str, worktree: Path, rules: bytes | None) -> dict[str, str]:
    """Find the files in a worktree with work that git hides.

    Args:
        rules: The ignore rules that a person accepted, in addition to those in .gitignore files. `None` if they are
            unknown: ignored files are then not reported.

    Returns:
        For each path the reason why git hides the file.
    """
    place = await find_worktree_with_files(common_dir, worktree)
    if place is None:
        return {}
    listing = ("ls-files", "-z", "-v", *(_WITH_UNTRACKED if rules is not None else ()))
    rows = split_names(await git.output(worktree, *listing, stdin=rules, extra=place.variables))
    untracked = {row[2:] for row in rows if row[0] == "?"}
    found: dict[str, str] = {}
    if untracked:
        ignored = split_names(await place.git("ls-files", "-z", "--others", "--ignored", "--exclude-standard"))
        found = dict.fromkeys(
            sorted(untracked.intersection(ignored)), "ignored by rules that nobody accepted; see forkjoin trust"
        )
    if await _find_marked(worktree, rows):
        found |= dict.fromkeys(await _find_hidden_changes(place), "git was told not to see its changes")
    return found


async def _find_hidden_changes(place: RegisteredWorktree) -> list[str]:
    """Return the changed files that are marked in the index.

    The index itself stays as it is: the marks are removed in a copy.
    """
    with tempfile.TemporaryDirectory(prefix="forkjoin-") as folder:
        index = Path(folder, "index")
        await copy_index_file(place.folder, index)
        aside = {**place.variables, "GIT_INDEX_FILE": str(index)}
        names = await remove_marks(place.path, aside)
        changed = split_names(await git.output(place.path, "diff-files", "-z", "--name-only", extra=aside))
        return sorted({*names}.intersection(changed))


async def remove_marks(worktree: Path, extra: Mapping[str, str]) -> list[str]:
    """Remove the marks of all existing files in an index.

    Return the files that were marked.

    Args:
        extra: The variables that name a copy of the index to git.
    """
    names = await _find_marked(worktree, split_names(await git.output(worktree, "ls-files", "-z", "-v", extra=extra)))
    for flag in ("--no-assume-unchanged", "--no-skip-worktree") if names else ():
        command = ("-c", "core.splitIndex=false", "update-index", flag, "-z", "--stdin")
        await git.output(worktree, *command, stdin=join_names(names), extra=extra)
    return names


async def _find_marked(worktree: Path, rows: Sequence[str]) -> list[str]:
    """Return the marked files that exist in the worktree.

    Args:
        rows: The output of `git ls-files -v`.
    """
    names = [row[2:] for row in rows if is_marked(row)]
    return await to_thread.run_sync(lambda: [name for name in names if not is_gone(worktree / name)])


def is_marked(row: str) -> bool:
    """Return whether a line of `git ls-files -v` is about a marked file.

    The line begins with a small letter for assume-unchanged, and with S for skip-worktree.
    """
    return row[0] == "S" or row[0].islower()
