"""A commit of a worktree's present files, including uncommitted work, made without changing the repository.

New objects go to a separate folder that borrows the repository's objects (`alternates`). Files are staged in a copy of
the index. The commit depends only on HEAD and the files: the same files give the same commit.
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

    Files are committed byte for byte: attributes are ignored and no filter runs. git-lfs, for one, would store each
    file in the repository.

    Args:
        aside: The variables that point git to the separate object folder.
        set_up: The fingerprint of the files that setup wrote (see `fingerprint`). They are left out while unchanged.
    """
    place = await find_registered_worktree(common_dir, worktree)
    if place is None or not await to_thread.run_sync(is_folder, worktree):
        return None
    if await to_thread.run_sync(find_irregular_files, worktree):  # git would block on them
        return None
    with contextlib.suppress(GitError):
        head = await resolve_commit(place.folder, "HEAD")
        if head is None:
            return None
        aside = {**aside, "GIT_ATTR_SOURCE": EMPTY_TREES[len(head)]}
        status = await leave_out_set_up(place, await read_status(place, aside), set_up)
        if not status.uncommitted or await to_thread.run_sync(_total_size, worktree, status.uncommitted) > _BYTES:
            return head
        index = Path(aside["GIT_OBJECT_DIRECTORY"], f"{head}.index")
        with contextlib.suppress(FileNotFoundError):
            await to_thread.run_sync(shutil.copy2, place.folder / "index", index)
        with_copy = {**aside, "GIT_INDEX_FILE": str(index)}
        tree = await stage(place, status, [], with_copy)
        await to_thread.run_sync(index.unlink)
        command = ("commit-tree", "-p", head, "-m", "as it is now", tree)
        return await place.git(*NO_FSYNC, *command, extra={**aside, **FIXED_SIGNATURE})
    return None


def _total_size(top: Path, names: Sequence[str]) -> int:
    """Return the files' total size in bytes.

    Files that a program deletes meanwhile count as 0.
    """
    total = 0
    for name in names:
        with contextlib.suppress(OSError):
            total += os.lstat(top / name).st_size
    return total
