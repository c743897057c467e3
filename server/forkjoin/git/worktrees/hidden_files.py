"""Files that git was told not to see: by ignore rules, assume-unchanged and skip-worktree (git-update-index(1))."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import is_gone
from forkjoin.git import git
from forkjoin.git.file_names import split_names
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, find_registered_worktree, is_folder

#: How git is to list the untracked files, too, but those that a .gitignore there or the rules in stdin ignore.
_OTHERS = ("--cached", "--others", "--exclude-per-directory=.gitignore", "--exclude-from=/dev/stdin")


async def find_unseen(common_dir: str, worktree: Path, rules: bytes | None) -> dict[str, str]:
    """Return the files of a worktree with work that git was told not to see, each with the reason.

    Args:
        rules: The ignore rules that count, besides those of a .gitignore; `None` if unknown: then all count.
    """
    place = await find_registered_worktree(common_dir, worktree)
    if place is None or not await to_thread.run_sync(is_folder, worktree):
        return {}
    listing = ("ls-files", "-z", "-v", *(_OTHERS if rules is not None else ()))
    rows = split_names(await git.output(worktree, *listing, stdin=rules, extra=place.variables))
    new = {row[2:] for row in rows if row[0] == "?"}
    found: dict[str, str] = {}
    if new:
        ignored = split_names(await place.git("ls-files", "-z", "--others", "--ignored", "--exclude-standard"))
        found = dict.fromkeys(
            sorted(new.intersection(ignored)), "ignored by rules that nobody accepted; see forkjoin trust"
        )
    if await _told(worktree, rows):
        found |= dict.fromkeys(await _find_skipped(place, worktree), "git was told not to see its changes")
    return found


async def _find_skipped(place: RegisteredWorktree, worktree: Path) -> list[str]:
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
    """Let git see the changes of all files that are there. Return the files whose changes it was told not to see.

    Args:
        extra: The variables that name an index of ours.
    """
    names = await _told(worktree, split_names(await git.output(worktree, "ls-files", "-z", "-v", extra=extra)))
    told = "".join(f"{name}\0" for name in names)
    for flag in ("--no-assume-unchanged", "--no-skip-worktree") if names else ():
        asked = ("-c", "core.splitIndex=false", "update-index", flag, "-z", "--stdin")
        await git.output(worktree, *asked, stdin=os.fsencode(told), extra=extra)
    return names


async def _told(worktree: Path, rows: Sequence[str]) -> list[str]:
    names = [row[2:] for row in rows if row[0] == "S" or row[0].islower()]
    return await to_thread.run_sync(lambda: [name for name in names if not is_gone(worktree / name)])
