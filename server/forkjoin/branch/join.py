"""Moving a target: its ref by compare-and-swap and, where it is checked out, the files with it.

A checkout is moved beside whatever its user has in it, staged, unstaged and untracked; where one of those is in the
way, nothing is moved. Files go first and the ref last: a user who commits between the two commits the merge, and the
swap then fails, instead of undoing it unknowingly.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forkjoin.branch import git
from forkjoin.error import CallerError, GitError

#: What git leaves in a worktree's git folder while an operation is under way there.
_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "index.lock": "another git command",
}


@dataclass(frozen=True, slots=True)
class Move:
    """A target on its way from one commit to another; `checkout` is where it is checked out, if it is."""

    ref: str
    old: str
    new: str
    checkout: str | None
    why: str


class TargetMovedError(Exception):
    """Somebody else moved the target meanwhile: merge again, on what it is now."""


async def merge_commit(
    common_dir: str, tree: str, parents: tuple[str, ...], message: str, author: Mapping[str, str]
) -> str:
    """Make a merge commit in the object store; nothing points to it yet."""
    links = [part for parent in parents for part in ("-p", parent)]
    return await git.git(common_dir, "commit-tree", *links, "-F", "-", tree, stdin=message.encode(), extra=author)


async def find_checkout(common_dir: str, ref: str) -> str | None:
    """The worktree that has `ref` checked out, if one has.

    Raises:
        CallerError: `ref` is being rebased in one.
    """
    listing = await git.git(common_dir, "worktree", "list", "--porcelain", "-z")
    found = None
    for block in listing.split("\0\0"):
        lines = block.strip("\0").split("\0")
        path = lines[0].removeprefix("worktree ")
        if f"branch {ref}" in lines and "bare" not in lines:
            found = path
        elif "detached" in lines and await _is_rebased(Path(path), ref):
            raise CallerError(f"{_short(ref)} is being rebased in {path}; finish that (git rebase --continue) first.")
    return found


async def _is_rebased(checkout: Path, ref: str) -> bool:
    if not checkout.exists():
        return False
    folder = await _git_folder(checkout)
    heads = (folder / name / "head-name" for name in ("rebase-merge", "rebase-apply"))
    return any(head.exists() and head.read_text().strip() == ref for head in heads)


async def _git_folder(checkout: Path) -> Path:
    return Path(await git.git(checkout, "rev-parse", "--path-format=absolute", "--git-dir"))


async def check_free(checkout: str) -> None:
    """See that nothing is under way in a checkout.

    Raises:
        CallerError: Something is; the message names it.
    """
    folder = await _git_folder(Path(checkout))
    for name, what in _UNDER_WAY.items():
        if (folder / name).exists():
            raise CallerError(f"{what} is under way in {checkout}; finish or abort it, then merge again.")


async def find_obstacles(move: Move) -> list[str]:
    """The user's files that are in the way of a move; what git says, where it names none."""
    if move.checkout is None:
        return []
    try:
        await git.git(move.checkout, "read-tree", "-m", "-u", "-n", move.old, move.new)
    except GitError as error:
        named = re.findall(r"(?:Entry|file) '(.*)' (?:not uptodate|would be|overlaps)", error.stderr)
        return named or [error.last_line]
    return []


async def carry_out(common_dir: str, move: Move) -> None:
    """Move the target; doing so again after a crash finishes what was begun.

    Raises:
        TargetMovedError: The target is no longer what it was; files are back as they were.
        CallerError: One of the user's files came into the way; nothing was moved.
    """
    if await git.tip(common_dir, move.ref) == move.new:
        return
    if move.checkout is not None:
        await _move_files(move.checkout, move.old, move.new)
    try:
        await git.update_refs(common_dir, [f"update {move.ref} {move.new} {move.old}"], move.why)
    except GitError:
        if move.checkout is not None:
            await _move_files(move.checkout, move.new, move.old)
        raise TargetMovedError from None


async def _move_files(checkout: str, old: str, new: str) -> None:
    try:
        await git.git(checkout, "read-tree", "-m", "-u", old, new)
    except GitError as error:
        raise CallerError(f"{checkout} could not be moved: {error.last_line}. Nothing was changed.") from error


def _short(ref: str) -> str:
    return ref.removeprefix("refs/heads/")
