"""Where a branch is checked out, and holding that checkout still while it is moved.

We hold its index.lock, as every git does that changes an index: a user's `git commit` or `git switch`, and another
forkjoin, wait or are refused for these milliseconds, and can't come between files and ref. git works on a copy of the
index, which then replaces it.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
from anyio import to_thread

from forkjoin.core.error import CallerError, GitError
from forkjoin.core.regular_file import is_gone, read_regular
from forkjoin.git import git
from forkjoin.git.refs import find_tip, resolve_commit, short_name
from forkjoin.git.repository import find_main_worktree
from forkjoin.git.symbolic_head import follow_head
from forkjoin.git.worktrees.index_lock import is_there, let_go, try_lock_index
from forkjoin.git.worktrees.worktree_folder import git_folder, git_folders

log = logging.getLogger(__name__)

#: What git leaves in a worktree's git folder while an operation is under way there.
_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "sequencer": "a cherry-pick or revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase or git am",
}

#: How long somebody else's git command may take that has the index locked; an editor for a commit message may for ever.
_LOCK_GIVE_UP_S = 20.0
_LOCK_PAUSE_S = 0.01

#: The copy of the index that git works on, in the git folder of the checkout.
_COPY = "forkjoin-index"


class TargetMovedError(Exception):
    """Somebody else moved the target meanwhile: merge again, on what it is now."""


# -- where a target is checked out


async def find_checkout(common_dir: str, ref: str, *, leaving: Path | None = None) -> str | None:
    """The worktree that has `ref` checked out, if one has.

    Args:
        leaving: A worktree that is to be removed: a rebase that was begun in it stands in nobody's way.

    Raises:
        CallerError: The branch is being rebased, is checked out twice, or where nothing can be reached.
    """
    try:
        known = await _list_worktrees(common_dir)
        found = [path for path, folder in known if ref in await follow_head(common_dir, folder)]
        where = await to_thread.run_sync(_find_rebase, common_dir, ref, leaving)
    except PermissionError as error:
        raise CallerError(
            f"{error.filename} can't be read, so a worktree may have {short_name(ref)} checked out. Let its owner make "
            "it readable for you, then call again."
        ) from error
    if where:
        raise CallerError(f"{short_name(ref)} is being rebased in {where}; finish that (git rebase --continue) first.")
    if len(found) > 1:
        places = ", ".join(map(str, found))
        raise CallerError(f"{short_name(ref)} is checked out more than once: in {places}. Leave it in all but one.")
    if found and not await to_thread.run_sync(_is_reachable, found[0], common_dir):
        is_told = found[0] != Path(common_dir)
        way = "Make them reachable for you" if is_told else "Say where they are, with: git config core.worktree FOLDER"
        raise CallerError(
            f"{short_name(ref)} is checked out in {found[0]}, where its files can't be reached. {way}; or let another "
            "branch be checked out there. Then call again."
        )
    return str(found[0]) if found else None


async def _list_worktrees(common_dir: str) -> list[tuple[Path, Path]]:
    """Return each worktree with its git folder, except worktrees that were deleted.

    The main one is first. It is told as its git folder, as git does, if nobody can tell where its files are.
    """
    main = await find_main_worktree(common_dir)
    linked = await to_thread.run_sync(lambda: _find_linked(common_dir))
    return [(main, Path(common_dir)), *linked] if main else linked


def _find_linked(common_dir: str) -> list[tuple[Path, Path]]:
    return [one for one in git_folders(common_dir, strict=True) if not _is_prunable(*one)]


def _is_prunable(path: Path, folder: Path) -> bool:
    """Return whether a worktree was deleted. A locked worktree is only unavailable, as is one of a closed folder."""
    return is_gone(path / ".git") and is_gone(folder / "locked")


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _is_reachable(path: Path, common_dir: str) -> bool:
    """Return whether a worktree's files are there."""
    may_enter = os.access(path, os.R_OK | os.X_OK, effective_ids=True)
    return may_enter and path.is_dir() and path != Path(common_dir)


def _find_rebase(common_dir: str, ref: str, leaving: Path | None) -> Path | None:
    """The worktree other than `leaving` in which `ref` is being rebased, if it is in one."""
    others = [
        (where, folder) for where, folder in git_folders(common_dir) if not (leaving and _is_same(where, leaving))
    ]
    for where, folder in [(Path(common_dir).parent, Path(common_dir)), *others]:
        for name in ("rebase-merge/head-name", "rebase-apply/head-name", "rebase-merge/update-refs"):
            lines = (read_regular(folder / name) or b"").splitlines()
            if os.fsencode(ref) in lines and not is_gone(where):
                return where
    return None


# -- holding a checkout


@dataclass(frozen=True, slots=True)
class LockedCheckout:
    """A checkout whose index nobody but us can change now; git works on a copy of that."""

    path: str
    folder: Path  #: its git folder
    lock: int  #: the descriptor of its index.lock
    tip: str  #: the commit that it has checked out; '' where that was not asked
    #: The tree that stands for this commit in a move, with untouched files as git would commit them; '': its own.
    tree: str = ""

    @property
    def here(self) -> dict[str, str]:
        """What tells git of it, whatever its `.git` has become."""
        return {"GIT_DIR": str(self.folder), "GIT_WORK_TREE": self.path}

    async def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        """git in this checkout, on a copy of its index. It holds the lock as well, should it outlive us."""
        extra = {**self.here, "GIT_INDEX_FILE": str(self.folder / _COPY)}
        return await git.output(self.path, *arguments, stdin=stdin, extra=extra, pass_fds=(self.lock,))

    async def copy_index(self) -> None:
        """Copy the index anew, and see in the copy which files were only touched: git takes those for changed else."""
        await to_thread.run_sync(_clear, self.folder)
        with contextlib.suppress(FileNotFoundError):
            await to_thread.run_sync(shutil.copy2, self.folder / "index", self.folder / _COPY)
        with contextlib.suppress(GitError):  # exit 1: some have changed
            await self.git("update-index", "-q", "--refresh")

    async def put_index(self) -> None:
        """Let the copy be the index.

        Raises:
            TargetMovedError: Somebody has taken the lock away, and may have changed the index since.
        """
        if not await to_thread.run_sync(is_there, self.folder / "index.lock", self.lock):
            raise TargetMovedError("the lock on its index was taken away")
        await to_thread.run_sync((self.folder / _COPY).replace, self.folder / "index")


@contextlib.asynccontextmanager
async def lock_checkout(
    common_dir: str, path: str | None, ref: str, owner: str
) -> AsyncGenerator[LockedCheckout | None]:
    """Hold the checkout of `ref` at `path`, if it has one, in the name of `owner`, a daemon's home.

    Raises:
        CallerError: Something is under way in it; the message names it.
        TargetMovedError: It has another branch checked out by now, or is gone.
    """
    if path is None:
        yield None
        return
    folder = await find_folder(common_dir, path)
    if folder is None:
        raise TargetMovedError
    async with lock_checkout_in_any_state(path, folder, owner) as held:
        await _check_nothing_under_way(folder, path)
        tip = await find_tip(common_dir, ref)
        if tip is None or ref not in await follow_head(common_dir, folder):
            raise TargetMovedError
        held = replace(held, tip=tip)
        await held.copy_index()
        yield held


@contextlib.asynccontextmanager
async def lock_checkout_in_any_state(path: str, folder: Path, owner: str) -> AsyncGenerator[LockedCheckout]:
    """Hold the checkout at `path`, whose git folder this is, whatever it has checked out or is under way in it."""
    lock = await _lock_index(folder, path, owner)
    try:
        yield LockedCheckout(path, folder, lock, "")
    finally:
        try:
            _leave(folder, lock)
        except OSError:  # a boundary: what was done is done, and whoever holds it next takes over what is left
            log.exception("%s: the lock on its index, or the copy of that, stays", path)


async def find_folder(common_dir: str, path: str) -> Path | None:
    """The git folder of the checkout at `path`; none where there is no checkout of this repository."""
    if not await to_thread.run_sync(Path(path).is_dir):
        return None
    linked = await to_thread.run_sync(git_folder, common_dir, Path(path))
    return linked or Path(common_dir)


async def check_free(common_dir: str, ref: str) -> None:
    """See that a target could be moved: what takes long is not begun in vain."""
    path = await find_checkout(common_dir, ref)
    if path is not None and (folder := await find_folder(common_dir, path)):
        await _check_nothing_under_way(folder, path)


async def _check_nothing_under_way(folder: Path, path: str) -> None:
    in_a_table = await anyio.Path(folder / "reftable").exists()
    for name, what in _UNDER_WAY.items():
        is_ref = in_a_table and name in ("CHERRY_PICK_HEAD", "REVERT_HEAD")
        if await anyio.Path(folder / name).exists() or (is_ref and await resolve_commit(path, name)):
            raise CallerError(f"{what} is under way in {path}; finish or abort it, then merge again.")


async def _lock_index(folder: Path, checkout: str, owner: str) -> int:
    with anyio.move_on_after(_LOCK_GIVE_UP_S):
        while True:
            lock = await to_thread.run_sync(try_lock_index, folder / "index.lock", owner)
            if lock is not None:
                return lock
            await anyio.sleep(_LOCK_PAUSE_S)
    raise CallerError(
        f"Another git command is under way in {checkout} ({folder / 'index.lock'} is there); let it end, "
        "or remove that file if there is none, then merge again."
    )


def _leave(folder: Path, lock: int) -> None:
    try:
        if is_there(folder / "index.lock", lock):  # else the copies may be another's by now
            _clear(folder)
    finally:
        let_go(folder / "index.lock", lock)


def _clear(folder: Path) -> None:
    """Leave no copy of the index, nor what a git that was killed left of one."""
    for name in (_COPY, f"{_COPY}.lock"):
        (folder / name).unlink(missing_ok=True)
