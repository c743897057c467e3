"""Moving a target branch: its ref by compare-and-swap, and the files of the checkout that has it checked out.

The user's staged, unstaged, untracked and ignored changes in the checkout stay as they are. The files are moved first,
the index second, the ref last. If the daemon is killed in between, git shows the moved files as changes that the user
made, never as a merge that the user reverted. The next daemon rolls the move back before it uses that checkout.
"""

from contextlib import suppress
from dataclasses import dataclass

from anyio import CancelScope

from forkjoin.core.error import BrokenPromiseError, CallerError, GitError, GitRefusedError, describe_error
from forkjoin.git.changed_paths import changes_between
from forkjoin.git.file_names import printable_list
from forkjoin.git.merging import interrupted_move
from forkjoin.git.refs import find_tip, is_ancestor, update_refs
from forkjoin.git.worktrees.checkout import LockedCheckout, TargetMovedError

#: The number of files that an error names, at most.
_FILES_NAMED = 30


@dataclass(frozen=True, slots=True)
class TargetMove:
    """A move of a target branch from one commit to another. The merge queue records it as JSON."""

    ref: str  #: the full ref name of the target
    old: str  #: the target's commit before the move
    new: str  #: the target's commit after the move
    checkout: str | None  #: the root of the worktree that has the target checked out; `None` without one
    why: str  #: the message in the target's reflog
    folder: str | None = None  #: the git folder of `checkout`; it identifies a worktree that the user has moved


async def is_applied(common_dir: str, move: TargetMove) -> bool:
    """Return whether the target was moved as recorded, even if it moved on since.

    If `move.old` doesn't contain `move.new`, the target must contain `move.new`. If it does, as in an undo, the target
    must also no longer contain `move.old`.

    Raises:
        GitError: git could not tell.
    """
    tip = await find_tip(common_dir, move.ref)
    if tip is None or tip == move.old or not await is_ancestor(common_dir, move.new, tip):
        return False
    goes_back = await is_ancestor(common_dir, move.new, move.old)
    return not (goes_back and await is_ancestor(common_dir, move.old, tip))


async def apply_move(common_dir: str, move: TargetMove, checkout: LockedCheckout | None) -> None:
    """Move the target and the files of its checkout, completely or not at all.

    Args:
        common_dir: The repository's common git folder.
        move: The move.
        checkout: The locked checkout of the target, or `None` if the target isn't checked out.

    Raises:
        TargetMovedError: The target is no longer at `move.old`.
        CallerError: git refused to update the files, for example because one of the user's files is in the way.
        GitError: git could not move the ref, or failed in a way that may pass, such as a full disk.
        BrokenPromiseError: Some files of the checkout were moved, and can't be rolled back now.
    """
    with CancelScope(shield=True):
        if (checkout.tip if checkout else await find_tip(common_dir, move.ref)) != move.old:
            raise TargetMovedError
        try:
            if checkout:
                await _move_files(checkout, move)
            await _move_ref(common_dir, move, checkout)
        except Exception:
            if checkout:
                await roll_back(checkout, move)
            raise


async def _move_files(checkout: LockedCheckout, move: TargetMove) -> None:
    try:
        await checkout.git("read-tree", "-m", "-u", checkout.tree or move.old, move.new)
    except GitRefusedError as error:
        raise CallerError(
            f"The files in {checkout.path} could not be updated: {error.last_line}. Nothing was changed. Fix that, "
            "then merge again."
        ) from error
    await checkout.put_index()


async def _move_ref(common_dir: str, move: TargetMove, checkout: LockedCheckout | None) -> None:
    line = f"update {move.ref} {move.new} {move.old}"
    inherited, variables = ((checkout.lock,), checkout.variables) if checkout else ((), None)
    try:
        await update_refs(common_dir, [line], move.why, extra=variables, pass_fds=inherited)
    except GitError:
        if await is_applied(common_dir, move):
            return
        if await find_tip(common_dir, move.ref) == move.old:
            raise
        raise TargetMovedError from None


async def roll_back(checkout: LockedCheckout, move: TargetMove) -> None:
    """Restore the checkout's files and index as they were before the move.

    Raises:
        BrokenPromiseError: The files can't be restored now. The message names the files that the move changes.
    """
    try:
        await interrupted_move.roll_back_files(checkout, move.old, move.new)
    except (GitError, OSError, TargetMovedError) as error:
        raise BrokenPromiseError(
            f"{checkout.path} may have files of a merge that did not happen, and they can't be restored: "
            f"{describe_error(error)}. They are among {await _list_files(checkout, move)}; "
            f"git checkout {move.old} -- PATH restores one."
        ) from error


async def _list_files(checkout: LockedCheckout, move: TargetMove) -> str:
    with suppress(GitError, OSError):
        changes = await changes_between(checkout.path, move.old, move.new)
        return printable_list([change.path for change in changes], _FILES_NAMED)
    return "the files that the merge changes"
