"""Files whose changes git was told not to see: assume-unchanged and skip-worktree (git-update-index(1))."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from anyio import to_thread

from forkjoin.branch import git
from forkjoin.branch.place import find_place, is_folder
from forkjoin.regular import is_gone


async def find_skipped(common_dir: str, worktree: Path) -> list[str]:
    """Return the files of a worktree that have changes which git was told not to see."""
    place = await find_place(common_dir, worktree)
    if place is None or not await to_thread.run_sync(is_folder, worktree):
        return []
    if not await _list(worktree, place.here):
        return []
    with tempfile.TemporaryDirectory(prefix="forkjoin-") as folder:
        index = Path(folder, "index")
        with contextlib.suppress(FileNotFoundError):
            await to_thread.run_sync(shutil.copy2, place.folder / "index", index)
        aside = {**place.here, "GIT_INDEX_FILE": str(index)}
        names = await show(worktree, aside)
        return sorted(
            {*names}.intersection(git.names_in(await git.git(worktree, "diff-files", "-z", "--name-only", extra=aside)))
        )


async def show(worktree: Path, extra: Mapping[str, str]) -> list[str]:
    """Let git see the changes of all files that are there. Return the files whose changes it was told not to see.

    Args:
        extra: The variables that name an index of ours.
    """
    names = await _list(worktree, extra)
    told = "".join(f"{name}\0" for name in names)
    for flag in ("--no-assume-unchanged", "--no-skip-worktree") if names else ():
        asked = ("-c", "core.splitIndex=false", "update-index", flag, "-z", "--stdin")
        await git.git(worktree, *asked, stdin=os.fsencode(told), extra=extra)
    return names


async def _list(worktree: Path, extra: Mapping[str, str]) -> list[str]:
    rows = git.names_in(await git.git(worktree, "ls-files", "-z", "-v", extra=extra))
    names = [row[2:] for row in rows if row[0] == "S" or row[0].islower()]
    return await to_thread.run_sync(lambda: [name for name in names if not is_gone(worktree / name)])
