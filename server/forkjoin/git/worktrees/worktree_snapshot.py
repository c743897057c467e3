"""Snapshots: commits of a worktree's present files, made without changing the repository.

A snapshot includes uncommitted work. Its objects go to a separate folder, in which git also finds the repository's
objects (`alternates`). Files are staged in a copy of the index. The same HEAD and files always give the same commit.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError
from forkjoin.git.commit_identity import FIXED_SIGNATURE
from forkjoin.git.refs import resolve_commit
from forkjoin.git.safe_options import NO_FSYNC
from forkjoin.git.worktrees.falsely_changed_files import omit_setup_files
from forkjoin.git.worktrees.staging import EMPTY_TREES, copy_index_file, read_status, stage
from forkjoin.git.worktrees.worktree_folder import find_irregular_files, find_worktree_with_files

#: The most bytes of uncommitted files that a snapshot includes. If there are more, the snapshot is HEAD itself.
_SIZE_LIMIT = 50_000_000


async def snapshot(common_dir: str, worktree: Path, aside: Mapping[str, str], set_up: bytes = b"") -> str | None:
    """Commit a worktree's present files to a separate object folder.

    Files are committed byte for byte: attributes are ignored, so that no filter runs. The filter of git-lfs, for
    example, would store each file in the repository.

    Args:
        aside: The variables that name the separate object folder to git (see `temporary_objects`).
        set_up: The fingerprint of the files that setup wrote (see `fingerprint`). Such files are left out while they
            are unchanged.

    Returns:
        The new commit; HEAD's commit if nothing is uncommitted or too much is; `None` if the files can't be read.
    """
    place = await find_worktree_with_files(common_dir, worktree)
    irregular_files = await to_thread.run_sync(find_irregular_files, worktree)
    if place is None or irregular_files:  # git would block on an irregular file
        return None
    with contextlib.suppress(GitError):
        head = await resolve_commit(place.folder, "HEAD")
        if head is None:
            return None
        aside = {**aside, "GIT_ATTR_SOURCE": EMPTY_TREES[len(head)]}
        status = await omit_setup_files(place, await read_status(place, aside), set_up)
        if not status.uncommitted or await to_thread.run_sync(_total_size, worktree, status.uncommitted) > _SIZE_LIMIT:
            return head
        index = Path(aside["GIT_OBJECT_DIRECTORY"], f"{head}.index")
        await copy_index_file(place.folder, index)
        tree = await stage(place, status, [], {**aside, "GIT_INDEX_FILE": str(index)})
        await to_thread.run_sync(index.unlink)
        command = ("commit-tree", "-p", head, "-m", "as it is now", tree)
        return await place.git(*NO_FSYNC, *command, extra={**aside, **FIXED_SIGNATURE})
    return None


def _total_size(top: Path, names: Sequence[str]) -> int:
    """Return the total size of the files in bytes. A missing file counts as 0."""
    total = 0
    for name in names:
        with contextlib.suppress(OSError):
            total += os.lstat(top / name).st_size
    return total
