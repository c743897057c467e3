"""Moving a target: its ref by compare-and-swap and, where it is checked out, the files with it.

A checkout is moved beside whatever its user has in it, staged, unstaged, untracked and ignored. Files go first, the
index second, the ref last: what a daemon leaves that is killed in between reads as the user's staged changes, never as
a merge undone, and the next daemon takes it back before it does anything else there.
"""

from contextlib import suppress
from dataclasses import dataclass

from anyio import CancelScope

from forkjoin.core.error import BrokenPromiseError, CallerError, GitError, GitRefusedError, words_of
from forkjoin.git.changed_paths import changes_between
from forkjoin.git.file_names import printable_list
from forkjoin.git.merging import interrupted_move
from forkjoin.git.refs import find_tip, is_ancestor, update_refs
from forkjoin.git.worktrees.checkout import LockedCheckout, TargetMovedError

_FILES_NAMED = 30


@dataclass(frozen=True, slots=True)
class Move:
    """A target on its way from one commit to another."""

    ref: str
    old: str
    new: str
    checkout: str | None  #: where it is checked out, if it is
    why: str
    folder: str | None = None  #: the git folder of that, by which it is found again where it was moved away


async def has_landed(common_dir: str, move: Move) -> bool:
    """Whether the target has what the move brings, be it that it went on since.

    Raises:
        GitError: git could not tell.
    """
    now = await find_tip(common_dir, move.ref)
    if now is None or now == move.old or not await is_ancestor(common_dir, move.new, now):
        return False
    goes_back = await is_ancestor(common_dir, move.new, move.old)
    return not (goes_back and await is_ancestor(common_dir, move.old, now))


async def apply_move(common_dir: str, move: Move, held: LockedCheckout | None) -> None:
    """Move the target, whose checkout is held, wholly or not at all.

    Raises:
        TargetMovedError: The target is no longer what it was.
        CallerError: One of the user's files came into the way.
        GitError: git would not.
        BrokenPromiseError: Files of the checkout were moved and can't be put back now.
    """
    with CancelScope(shield=True):
        if (held.tip if held else await find_tip(common_dir, move.ref)) != move.old:
            raise TargetMovedError
        try:
            if held:
                await _move_files(held, move)
            await _move_ref(common_dir, move, held)
        except Exception:
            if held:
                await take_back(held, move)
            raise


async def _move_files(held: LockedCheckout, move: Move) -> None:
    try:
        await held.git("read-tree", "-m", "-u", held.tree or move.old, move.new)
    except GitRefusedError as error:
        raise CallerError(f"{held.path} could not be moved: {error.last_line}. Nothing was changed.") from error
    await held.put_index()


async def _move_ref(common_dir: str, move: Move, held: LockedCheckout | None) -> None:
    line = f"update {move.ref} {move.new} {move.old}"
    holding, here = ((held.lock,), held.here) if held else ((), None)
    try:
        await update_refs(common_dir, [line], move.why, extra=here, pass_fds=holding)
    except GitError:
        if await has_landed(common_dir, move):
            return
        if await find_tip(common_dir, move.ref) == move.old:
            raise
        raise TargetMovedError from None


async def take_back(held: LockedCheckout, move: Move) -> None:
    """Give a checkout the files again that it had before the move.

    Raises:
        BrokenPromiseError: They can't be put back now; the message names them.
    """
    try:
        await interrupted_move.put_back(held, move.old, move.new)
    except (GitError, OSError, TargetMovedError) as error:
        raise BrokenPromiseError(
            f"{held.path} may have files of a merge that did not land, and they can't be put back: {words_of(error)}. "
            f"They are among {await _names(held, move)}; git checkout {move.old} -- PATH puts one back."
        ) from error


async def _names(held: LockedCheckout, move: Move) -> str:
    with suppress(GitError, OSError):
        changes = await changes_between(held.path, move.old, move.new)
        return printable_list([change.path for change in changes], _FILES_NAMED)
    return "what it changes"
