"""The worktree that has a branch checked out, and a lock on that checkout while its files are updated.

The lock is git's own index.lock. A user's `git commit` or `git switch` and other daemons wait for the lock, or fail,
during these milliseconds. So nobody changes the checkout between the update of the files and the update of the ref. git
works on a copy of the index, which then replaces the index.
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
from forkjoin.git.worktrees.index_lock import is_still_held, release_index, try_lock_index
from forkjoin.git.worktrees.worktree_folder import git_folder, list_git_folders

log = logging.getLogger(__name__)

#: The files in a worktree's git folder that show that an operation is in progress.
_IN_PROGRESS = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "sequencer": "a cherry-pick or revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase or git am",
}

#: How long to wait for another git command that has locked the index. An open commit editor may hold it for hours.
_LOCK_GIVE_UP_S = 20.0
_LOCK_PAUSE_S = 0.01

#: The copy of the index that git works on, in the git folder of the checkout.
_COPY = "forkjoin-index"


class TargetMovedError(Exception):
    """Somebody else moved the target meanwhile.

    The merge should start over from the new commit.
    """


# -- finding a checkout


async def find_checkout(common_dir: str, ref: str, *, leaving: Path | None = None) -> str | None:
    """Return the path of the worktree that has `ref` checked out, or `None`.

    Args:
        leaving: A worktree that will be removed. A rebase that was begun in it is ignored.

    Raises:
        CallerError: The branch is being rebased, is checked out twice, or its worktree can't be reached.
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
        raise CallerError(
            f"{short_name(ref)} is being rebased in {where}. Finish the rebase first (git rebase --continue)."
        )
    if len(found) > 1:
        paths = ", ".join(map(str, found))
        raise CallerError(f"{short_name(ref)} is checked out more than once: in {paths}. Keep it in only one of them.")
    if found and not await to_thread.run_sync(_is_reachable, found[0], common_dir):
        is_known = found[0] != Path(common_dir)
        way = "Make them reachable for you" if is_known else "Say where they are, with: git config core.worktree FOLDER"
        raise CallerError(
            f"{short_name(ref)} is checked out in {found[0]}, where its files can't be reached. {way}; or let another "
            "branch be checked out there. Then call again."
        )
    return str(found[0]) if found else None


async def _list_worktrees(common_dir: str) -> list[tuple[Path, Path]]:
    """Return each worktree with its git folder, the main worktree first.

    Deleted worktrees are omitted. If the location of the main worktree's files is unknown, its path is its git folder,
    as git reports it.
    """
    main = await find_main_worktree(common_dir)
    linked = await to_thread.run_sync(lambda: _find_linked(common_dir))
    return [(main, Path(common_dir)), *linked] if main else linked


def _find_linked(common_dir: str) -> list[tuple[Path, Path]]:
    return [one for one in list_git_folders(common_dir, strict=True) if not _is_prunable(*one)]


def _is_prunable(path: Path, folder: Path) -> bool:
    """Return whether a worktree was deleted.

    A locked worktree, or a worktree in an inaccessible folder, is only unavailable.
    """
    return is_gone(path / ".git") and is_gone(folder / "locked")


def _is_same_file(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _is_reachable(path: Path, common_dir: str) -> bool:
    """Return whether a worktree's files can be read."""
    may_enter = os.access(path, os.R_OK | os.X_OK, effective_ids=True)
    return may_enter and path.is_dir() and path != Path(common_dir)


def _find_rebase(common_dir: str, ref: str, leaving: Path | None) -> Path | None:
    """Return a worktree in which `ref` is being rebased, or `None`. Ignore `leaving`."""
    others = [
        (where, folder)
        for where, folder in list_git_folders(common_dir)
        if not (leaving and _is_same_file(where, leaving))
    ]
    for where, folder in [(Path(common_dir).parent, Path(common_dir)), *others]:
        for name in ("rebase-merge/head-name", "rebase-apply/head-name", "rebase-merge/update-refs"):
            lines = (read_regular(folder / name) or b"").splitlines()
            if os.fsencode(ref) in lines and not is_gone(where):
                return where
    return None


# -- locking a checkout


@dataclass(frozen=True, slots=True)
class LockedCheckout:
    """A checkout whose index only this daemon can change now. git works on a copy of the index."""

    path: str
    folder: Path  #: the git folder
    lock: int  #: the descriptor of index.lock
    tip: str  #: the commit that is checked out; "" if it was not read
    #: A tree that replaces the commit's tree in a move, with untouched files as git would commit them; "" if none.
    tree: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """The variables that point git to this checkout, even if its `.git` is damaged."""
        return {"GIT_DIR": str(self.folder), "GIT_WORK_TREE": self.path}

    async def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run git in this checkout, on the copy of the index.

        git inherits the lock, in case git outlives the daemon.
        """
        extra = {**self.variables, "GIT_INDEX_FILE": str(self.folder / _COPY)}
        return await git.output(self.path, *arguments, stdin=stdin, extra=extra, pass_fds=(self.lock,))

    async def copy_index(self) -> None:
        """Make a fresh copy of the index, and refresh it.

        Without a refresh, git would take files with a new timestamp for changed.
        """
        await to_thread.run_sync(_delete_copy, self.folder)
        with contextlib.suppress(FileNotFoundError):
            await to_thread.run_sync(shutil.copy2, self.folder / "index", self.folder / _COPY)
        with contextlib.suppress(GitError):  # exit 1: some files have changed
            await self.git("update-index", "-q", "--refresh")

    async def put_index(self) -> None:
        """Replace the index by the copy.

        Raises:
            TargetMovedError: Somebody has deleted the lock, and may have changed the index since.
        """
        if not await to_thread.run_sync(is_still_held, self.folder / "index.lock", self.lock):
            raise TargetMovedError("somebody deleted the lock on its index")
        await to_thread.run_sync((self.folder / _COPY).replace, self.folder / "index")


@contextlib.asynccontextmanager
async def lock_checkout(
    common_dir: str, path: str | None, ref: str, owner: str
) -> AsyncGenerator[LockedCheckout | None]:
    """Lock the checkout of `ref` at `path`, and yield it.

    Yield `None` if `path` is `None`.

    Args:
        owner: The name that marks the lock as this home's.

    Raises:
        CallerError: An operation such as a rebase is in progress there, or the index stays locked.
        TargetMovedError: The checkout is gone, or has another branch checked out by now.
    """
    if path is None:
        yield None
        return
    folder = await find_folder(common_dir, path)
    if folder is None:
        raise TargetMovedError
    async with lock_checkout_in_any_state(path, folder, owner) as held:
        await _check_nothing_in_progress(folder, path)
        tip = await find_tip(common_dir, ref)
        if tip is None or ref not in await follow_head(common_dir, folder):
            raise TargetMovedError
        held = replace(held, tip=tip)
        await held.copy_index()
        yield held


@contextlib.asynccontextmanager
async def lock_checkout_in_any_state(path: str, folder: Path, owner: str) -> AsyncGenerator[LockedCheckout]:
    """Lock the checkout at `path`, even if an operation is in progress there.

    `folder` is its git folder.
    """
    lock = await _lock_index(folder, path, owner)
    try:
        yield LockedCheckout(path, folder, lock, "")
    finally:
        try:
            _unlock(folder, lock)
        except OSError:  # a boundary: the move is done, and the next lock takes over this one
            log.exception("%s: the lock on its index, or the copy of the index, could not be removed", path)


async def find_folder(common_dir: str, path: str) -> Path | None:
    """Return the git folder of the checkout at `path`, or `None` if `path` is gone."""
    if not await to_thread.run_sync(Path(path).is_dir):
        return None
    linked = await to_thread.run_sync(git_folder, common_dir, Path(path))
    return linked or Path(common_dir)


async def check_free(common_dir: str, ref: str) -> None:
    """Raise CallerError if an operation in progress keeps `ref` from being moved.

    The check comes before verify, because verify may take long.
    """
    path = await find_checkout(common_dir, ref)
    if path is not None and (folder := await find_folder(common_dir, path)):
        await _check_nothing_in_progress(folder, path)


async def _check_nothing_in_progress(folder: Path, path: str) -> None:
    has_reftable = await anyio.Path(folder / "reftable").exists()
    for name, what in _IN_PROGRESS.items():
        is_ref = has_reftable and name in ("CHERRY_PICK_HEAD", "REVERT_HEAD")
        if await anyio.Path(folder / name).exists() or (is_ref and await resolve_commit(path, name)):
            raise CallerError(f"{what} is in progress in {path}; finish or abort it, then merge again.")


async def _lock_index(folder: Path, checkout: str, owner: str) -> int:
    with anyio.move_on_after(_LOCK_GIVE_UP_S):
        while True:
            lock = await to_thread.run_sync(try_lock_index, folder / "index.lock", owner)
            if lock is not None:
                return lock
            await anyio.sleep(_LOCK_PAUSE_S)
    raise CallerError(
        f"Another git command is running in {checkout} ({folder / 'index.lock'} exists). Let it finish, or delete that "
        "file if no git is running, then merge again."
    )


def _unlock(folder: Path, lock: int) -> None:
    try:
        if is_still_held(folder / "index.lock", lock):  # otherwise the copy may belong to another daemon by now
            _delete_copy(folder)
    finally:
        release_index(folder / "index.lock", lock)


def _delete_copy(folder: Path) -> None:
    """Delete the copy of the index, and the lock on it that a killed git has left."""
    for name in (_COPY, f"{_COPY}.lock"):
        (folder / name).unlink(missing_ok=True)
