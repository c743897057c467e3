"""Files that git hides: by ignore rules, assume-unchanged or skip-worktree (git-update-index(1))."""

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import is_gone
from forkjoin.git import git
from forkjoin.git.file_names import join_names, split_names
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, find_registered_worktree, is_folder

#: The options of `git ls-files` that add the untracked files, except those that a .gitignore or stdin's rules ignore.
_WITH_UNTRACKED = ("--cached", "--others", "--exclude-per-directory=.gitignore", "--exclude-from=/dev/stdin")


async def find_unseen(common_dir: str, worktree: Path, rules: bytes | None) -> dict[str, str]:
    """Return the files whose work git hides, each with the reason.

    Args:
        rules: The accepted ignore rules, in addition to a .gitignore. `None` if unknown: then all rules are accepted.
    """
    place = await find_registered_worktree(common_dir, worktree)
    if place is None or not await to_thread.run_sync(is_folder, worktree):
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
    if await _find_flagged(worktree, rows):
        found |= dict.fromkeys(await _find_hidden_changes(place, worktree), "git was told not to see its changes")
    return found


async def _find_hidden_changes(place: RegisteredWorktree, worktree: Path) -> list[str]:
    """Return the changed files with a hiding flag.

    The flags are removed in a copy of the index only.
    """
    with tempfile.TemporaryDirectory(prefix="forkjoin-") as folder:
        index = Path(folder, "index")
        with contextlib.suppress(FileNotFoundError):
            await to_thread.run_sync(shutil.copy2, place.folder / "index", index)
        aside = {**place.variables, "GIT_INDEX_FILE": str(index)}
        names = await show(worktree, aside)
        return sorted(
            {*names}.intersection(
                split_names(await git.output(worktree, "diff-files", "-z", "--name-only", extra=aside))
            )
        )


async def show(worktree: Path, extra: Mapping[str, str]) -> list[str]:
    """Remove the hiding flags of all files that exist. Return the files that had one.

    Args:
        extra: The variables that point git to a copy of the index.
    """
    names = await _find_flagged(worktree, split_names(await git.output(worktree, "ls-files", "-z", "-v", extra=extra)))
    for flag in ("--no-assume-unchanged", "--no-skip-worktree") if names else ():
        command = ("-c", "core.splitIndex=false", "update-index", flag, "-z", "--stdin")
        await git.output(worktree, *command, stdin=join_names(names), extra=extra)
    return names


async def _find_flagged(worktree: Path, rows: Sequence[str]) -> list[str]:
    """Return the existing files that are marked assume-unchanged or skip-worktree.

    Args:
        rows: The output of `git ls-files -v`. A lower-case letter is assume-unchanged, and S is skip-worktree.
    """
    names = [row[2:] for row in rows if row[0] == "S" or row[0].islower()]
    return await to_thread.run_sync(lambda: [name for name in names if not is_gone(worktree / name)])
