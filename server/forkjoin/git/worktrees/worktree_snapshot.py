"""A worktree as it is now, uncommitted work too, as a commit that is made aside: nothing of its repository changes.

Objects go to a folder of ours, that reads those of the repository (`alternates`), and files are staged in a copy of the
index. The commit is made of nothing but what is there: as long as that is the same, so is the commit.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError
from forkjoin.git.commit_identity import FIXED_SIGNATURE
from forkjoin.git.refs import resolve_commit
from forkjoin.git.safe_options import NO_FSYNC
from forkjoin.git.worktrees.falsely_changed_files import leave_out_set_up
from forkjoin.git.worktrees.staging import EMPTY_TREES, read_status, stage
from forkjoin.git.worktrees.worktree_folder import find_irregular_files, find_registered_worktree, is_folder

#: The most bytes of uncommitted files that a snapshot includes. With more, it has only the committed files.
_BYTES = 50_000_000


async def snapshot(common_dir: str, worktree: Path, aside: Mapping[str, str], set_up: bytes = b"") -> str | None:
    """Commit a worktree's present files. Return `None` if they can't be read.

    No filter is run (git-lfs would keep what it is shown): files are taken as they are, attributes apart.

    Args:
        set_up: The fingerprint of what setup has left there (see untouched.py), which is left out.
    """
    place = await find_registered_worktree(common_dir, worktree)
    if place is None or not await to_thread.run_sync(is_folder, worktree):
        return None
    if await to_thread.run_sync(find_irregular_files, worktree):  # git would wait there
        return None
    with contextlib.suppress(GitError):
        head = await resolve_commit(place.folder, "HEAD")
        if head is None:
            return None
        aside = {**aside, "GIT_ATTR_SOURCE": EMPTY_TREES[len(head)]}
        status = await leave_out_set_up(place, await read_status(place, aside), set_up)
        if not status.uncommitted or await to_thread.run_sync(_size, worktree, status.uncommitted) > _BYTES:
            return head
        index = Path(aside["GIT_OBJECT_DIRECTORY"], f"{head}.index")
        with contextlib.suppress(FileNotFoundError):
            await to_thread.run_sync(shutil.copy2, place.folder / "index", index)
        elsewhere = {**aside, "GIT_INDEX_FILE": str(index)}
        tree = await stage(place, status, [], elsewhere)
        await to_thread.run_sync(index.unlink)
        made = ("commit-tree", "-p", head, "-m", "as it is now", tree)
        return await place.git(*NO_FSYNC, *made, extra={**aside, **FIXED_SIGNATURE})
    return None


def _size(top: Path, names: Sequence[str]) -> int:
    """Return the size of these files in bytes. A program may be changing them."""
    total = 0
    for name in names:
        with contextlib.suppress(OSError):
            total += os.lstat(top / name).st_size
    return total
