"""Moving a target: its ref by compare-and-swap and, where it is checked out, the files with it.

A checkout is moved beside whatever its user has in it, staged, unstaged, untracked and ignored. Files go first, the
index second, the ref last: what a daemon leaves that is killed in between reads as the user's staged changes, never as
a merge undone, and the next daemon goes on from whatever it finds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from anyio import CancelScope

from forkjoin.branch import git, midway
from forkjoin.branch.checkout import Held, TargetMovedError
from forkjoin.branch.obstacle import refused_for
from forkjoin.error import BrokenPromiseError, CallerError, GitError


@dataclass(frozen=True, slots=True)
class Move:
    """A target on its way from one commit to another; `checkout` is where it is checked out, if it is."""

    ref: str
    old: str
    new: str
    checkout: str | None
    why: str


async def merge_commit(
    common_dir: str, tree: str, parents: tuple[str, ...], message: str, author: Mapping[str, str]
) -> str:
    """Make a merge commit in the object store; nothing points to it yet."""
    links = [part for parent in parents for part in ("-p", parent)]
    return await git.git(common_dir, "commit-tree", *links, "-F", "-", tree, stdin=message.encode(), extra=author)


async def carry_out(common_dir: str, move: Move, held: Held | None, *, again: bool = False) -> None:
    """Move the target, whose checkout is held; with `again`, finish what a daemon had begun that was killed.

    Raises:
        TargetMovedError: The target is no longer what it was; files are as they were.
        CallerError: One of the user's files came into the way; nothing was moved.
        BrokenPromiseError: Files of the checkout were moved and can't be put back.
    """
    with CancelScope(shield=True):
        now = held.tip if held else await git.tip(common_dir, move.ref)
        if now != move.old:
            if now is not None and await git.is_ancestor(common_dir, move.new, now):
                return  # it was done before
            raise TargetMovedError
        if held and again:
            await midway.move_on(held, move.old, move.new, careful=True)
        elif held:
            await _move_files(held, move)
        await _move_ref(common_dir, move, held)


async def _move_files(held: Held, move: Move) -> None:
    try:
        await held.git("read-tree", "-m", "-u", move.old, move.new)
    except GitError as error:
        if not refused_for(error):
            await _move_back(held, move)
        raise CallerError(f"{held.path} could not be moved: {error.last_line}. Nothing was changed.") from error
    await held.put_index()


async def _move_ref(common_dir: str, move: Move, held: Held | None) -> None:
    line = f"update {move.ref} {move.new} {move.old}"
    try:
        await git.update_refs(move.checkout or common_dir, [line], move.why)
    except GitError:
        if held:
            await _move_back(held, move)
        if await git.tip(common_dir, move.ref) == move.old:
            raise
        raise TargetMovedError from None


async def _move_back(held: Held, move: Move) -> None:
    """Give a checkout that nobody else can have touched the files of the old commit again."""
    try:
        await midway.move_on(held, move.new, move.old, careful=False)
    except GitError as error:
        raise BrokenPromiseError(
            f"{held.path} has files of a merge that did not land, and they can't be put back: {error.last_line}. "
            f"git status there tells which; git checkout {move.old} -- PATH puts one back."
        ) from error
