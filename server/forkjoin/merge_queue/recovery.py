"""Recovery from a move of the target that a daemon's death interrupted: it counts as done, or is rolled back.

The checkout may have been moved to another folder meanwhile, or have another branch checked out.
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
    """Settle an interrupted move. Return whether the target has moved.

    If the target has not moved, the files in the checkout are rolled back.

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
    """Return the path and git folder of the checkout that the move began in.

    Return `None` if the checkout is gone. A checkout that was moved to another folder is found by its git folder.
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
