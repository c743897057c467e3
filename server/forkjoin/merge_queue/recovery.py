"""Recovery from a move of the target that a daemon's death interrupted: the move counts as done, or is rolled back.

Since the interruption, a person may have moved the checkout to another folder, or checked out another branch in it.
"""

import os
from pathlib import Path

from anyio import CancelScope, to_thread

from forkjoin.core.error import BrokenPromiseError, CallerError, GitError, describe_error
from forkjoin.git.merging import move_target
from forkjoin.git.refs import short_name
from forkjoin.git.worktrees.checkout import find_folder, lock_checkout_in_any_state
from forkjoin.git.worktrees.worktree_folder import worktree_path_of


async def settle_interrupted_move(common_dir: str, move: move_target.TargetMove, owner: str) -> bool:
    """Settle an interrupted move. Return whether the target was moved.

    If not, the files in the checkout are rolled back.

    Args:
        owner: The name under which the checkout's index is locked.

    Raises:
        BrokenPromiseError: The rollback is not possible now; try again later.
    """
    is_done = False
    try:
        found = await _find_checkout(common_dir, move)
        if found is None:
            return await move_target.is_applied(common_dir, move)
        with CancelScope(shield=True):
            async with lock_checkout_in_any_state(*found, owner) as checkout:
                is_done = await move_target.is_applied(common_dir, move)
                if not is_done:
                    await move_target.roll_back(checkout, move)
    except (CallerError, GitError, OSError) as error:
        raise BrokenPromiseError(
            f"A merge into {short_name(move.ref)} was interrupted. {describe_error(error)}"
        ) from error
    return is_done


async def _find_checkout(common_dir: str, move: move_target.TargetMove) -> tuple[str, Path] | None:
    """Return the checkout whose files the move began to change.

    The result is the checkout's path and its git folder. Return `None` if the move changes no checkout, or its checkout
    no longer exists. A checkout that was moved to another folder is found by its git folder.
    """
    if move.checkout is None:
        return None
    folder = await find_folder(common_dir, move.checkout)
    if folder is None or not _is_recorded_folder(folder, move.folder):
        moved = await to_thread.run_sync(worktree_path_of, Path(move.folder)) if move.folder else None
        folder = await find_folder(common_dir, str(moved)) if moved else None
        return (str(moved), folder) if folder and _is_recorded_folder(folder, move.folder) else None
    return move.checkout, folder


def _is_recorded_folder(folder: Path, recorded: str | None) -> bool:
    return recorded is None or os.path.realpath(folder) == os.path.realpath(recorded)
