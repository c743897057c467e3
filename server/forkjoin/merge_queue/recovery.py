"""A move in whose midst a daemon died: it has landed, or it is taken back. Never is it left between.

The checkout is looked for where it stands now, and taken as it is, whatever its user has done there meanwhile.
"""

import os
from pathlib import Path

from anyio import CancelScope, to_thread

from forkjoin.core.error import BrokenPromiseError, CallerError, GitError, words_of
from forkjoin.git.merging import move_target
from forkjoin.git.refs import short_name
from forkjoin.git.worktrees.checkout import find_folder, lock_checkout_in_any_state
from forkjoin.git.worktrees.worktree_folder import worktree_of


async def settle_interrupted_move(common_dir: str, move: move_target.Move, owner: str) -> bool:
    """Settle a move that was begun: true if its target has it; if not, nothing of it is left in any checkout.

    Raises:
        BrokenPromiseError: It can't be settled now.
    """
    landed = False
    try:
        found = await _find(common_dir, move)
        if found is None:
            return await move_target.has_landed(common_dir, move)
        with CancelScope(shield=True):
            async with lock_checkout_in_any_state(*found, owner) as held:
                landed = await move_target.has_landed(common_dir, move)
                if not landed:
                    await move_target.take_back(held, move)
    except (CallerError, GitError, OSError) as error:
        raise BrokenPromiseError(f"A merge into {short_name(move.ref)} was cut off. {words_of(error)}") from error
    return landed


async def _find(common_dir: str, move: move_target.Move) -> tuple[str, Path] | None:
    """Where the checkout stands now in which it was begun, and its git folder; none if there is none, or no more."""
    if move.checkout is None:
        return None
    folder = await find_folder(common_dir, move.checkout)
    if folder is None or not _is_same(folder, move.folder):
        moved = await to_thread.run_sync(worktree_of, Path(move.folder)) if move.folder else None
        folder = await find_folder(common_dir, str(moved)) if moved else None
        return (str(moved), folder) if folder and _is_same(folder, move.folder) else None
    return move.checkout, folder


def _is_same(folder: Path, recorded: str | None) -> bool:
    return recorded is None or os.path.realpath(folder) == os.path.realpath(recorded)
