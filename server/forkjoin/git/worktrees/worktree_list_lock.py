"""A lock on a repository's list of worktrees, which lets only one forkjoin process at a time change the list.

`git worktree add` races with itself and with `git fetch`.
"""

import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
from anyio import to_thread

from forkjoin.core import file_lock
from forkjoin.core.error import CallerError, GitError
from forkjoin.git.git_config import read_shared_repository
from forkjoin.git.worktrees.delete_path import delete_path

_PAUSE_S = 0.005
_GIVE_UP_S = 120


@contextlib.asynccontextmanager
async def lock_worktree_list(common_dir: str) -> AsyncGenerator[int]:
    """Lock the repository's list of worktrees against other forkjoin processes.

    Yield the file descriptor of the lock. A git that inherits it holds the lock too, in case git outlives the daemon.

    Raises:
        TimeoutError: Another process has held the lock for two minutes.
    """
    file, mode = Path(common_dir) / "forkjoin.lock", await find_lock_mode(common_dir)
    await to_thread.run_sync(_delete_irregular, file)
    give_up = anyio.current_time() + _GIVE_UP_S
    while (held := file_lock.take(file, mode)) is None:
        if anyio.current_time() > give_up:
            raise TimeoutError(
                f"{file} has been locked by another process for {_GIVE_UP_S} s. End that process, then call again."
            )
        await anyio.sleep(_PAUSE_S)
    try:
        yield held
    finally:
        os.close(held)


async def find_lock_mode(common_dir: str) -> int:
    """Return the mode of the lock file.

    Each user who may write to the repository must be able to lock it. The mode depends on core.sharedRepository
    (git-config(1)).
    """
    try:
        sharing = await read_shared_repository(common_dir)
    except (CallerError, GitError):  # the next git call reports the error in the configuration
        return 0o600
    if sharing.lower() in ("all", "world", "everybody", "2"):
        return 0o666
    if sharing.lower() in ("group", "true", "yes", "on", "1", ""):
        return 0o660
    try:
        mode = int(sharing, 8)
    except ValueError:
        return 0o600
    writers = mode & 0o022
    # Those who may write may also read, because a process opens the lock file to read and write.
    return 0o600 | writers | writers << 1


def _delete_irregular(path: Path) -> None:
    """Delete the path unless it is a regular file."""
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        delete_path(path)
