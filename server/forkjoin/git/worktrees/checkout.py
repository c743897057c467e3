"""Checkouts: which worktree has a branch checked out, and a lock on it while forkjoin updates its files.

The lock is git's own index.lock, which is held for milliseconds. Meanwhile a user's `git commit` or `git switch` fails,
and other daemons wait. So nobody changes the checkout between the update of its files and the update of the ref. While
the lock is held, git works on a copy of the index, and the copy finally replaces the index.
"""

import contextlib
import logging
import os
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
from forkjoin.git.worktrees.staging import copy_index_file
from forkjoin.git.worktrees.worktree_folder import git_folder_of_checkout, list_git_folders

log = logging.getLogger(__name__)

#: Files and folders in a worktree's git folder that exist while an operation is in progress, with the operation's name.
_OPERATIONS = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "sequencer": "a cherry-pick or revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase or git am",
}

#: Files that name the branches that a rebase in progress will move (git's branch.c).
REBASE_FILES = ("rebase-merge/head-name", "rebase-merge/update-refs", "rebase-apply/head-name")

#: Seconds to wait while another git command holds the lock. `git commit` may hold it for hours while an editor is open.
_LOCK_GIVE_UP_S = 20.0
_LOCK_PAUSE_S = 0.01

#: The name of the copy of the index, in the checkout's git folder.
_COPY = "forkjoin-index"


class TargetMovedError(Exception):
    """The target is no longer at the commit that a merge started from, or its checkout has changed.

    The caller starts the merge over from the target's new commit.
    """


# -- finding a checkout


async def find_checkout(common_dir: str, ref: str, *, leaving: Path | None = None) -> str | None:
    """Return the path of the worktree that has a branch checked out, or `None`.

    Args:
        common_dir: The common git folder of the repository.
        ref: The full name of the branch.
        leaving: A worktree that the caller will remove. If a rebase of the branch is in progress there, it is ignored.

    Raises:
        CallerError: The branch is being rebased or is checked out twice, or this user can't read its worktree.
    """
    try:
        worktrees = await _list_worktrees(common_dir)
        found = [path for path, folder in worktrees if ref in await follow_head(common_dir, folder)]
        rebase = await to_thread.run_sync(_find_rebase, common_dir, ref, leaving)
    except PermissionError as error:
        raise CallerError(
            f"{error.filename} can't be read, so a worktree may have {short_name(ref)} checked out. Let its owner make "
            "it readable for you, then call again."
        ) from error
    if rebase:
        raise CallerError(
            f"{short_name(ref)} is being rebased in {rebase}. Finish the rebase (git rebase --continue), then call "
            "again."
        )
    if len(found) > 1:
        paths = ", ".join(map(str, found))
        raise CallerError(
            f"{short_name(ref)} is checked out more than once: in {paths}. Check out other branches in all but one of "
            "them, then call again."
        )
    if found and not await to_thread.run_sync(_is_reachable, found[0], common_dir):
        is_known = found[0] != Path(common_dir)
        way = "Make them reachable for you" if is_known else "Say where they are, with: git config core.worktree FOLDER"
        raise CallerError(
            f"{short_name(ref)} is checked out in {found[0]}, where its files can't be reached. {way}; or let another "
            "branch be checked out there. Then call again."
        )
    return str(found[0]) if found else None


async def _list_worktrees(common_dir: str) -> list[tuple[Path, Path]]:
    """Return the path and the git folder of each worktree, the main worktree first.

    Deleted worktrees are omitted. If it is unknown where the main worktree's files are, the path is its git folder, as
    in the output of `git worktree list`.
    """
    main = await find_main_worktree(common_dir)
    linked = await to_thread.run_sync(lambda: _find_linked(common_dir))
    return [(main, Path(common_dir)), *linked] if main else linked


def _find_linked(common_dir: str) -> list[tuple[Path, Path]]:
    return [both for both in list_git_folders(common_dir, strict=True) if not _is_deleted(*both)]


def _is_deleted(path: Path, folder: Path) -> bool:
    """Return whether a worktree was deleted.

    A missing worktree that is locked (`git worktree lock`), or whose parent folder this user can't read, may still
    exist.
    """
    return is_gone(path / ".git") and is_gone(folder / "locked")


def _is_reachable(path: Path, common_dir: str) -> bool:
    """Return whether this user can read the files of the worktree at `path`."""
    may_enter = os.access(path, os.R_OK | os.X_OK, effective_ids=True)
    return may_enter and path.is_dir() and path != Path(common_dir)


def _find_rebase(common_dir: str, ref: str, leaving: Path | None) -> Path | None:
    """Return the path of a worktree in which `ref` is being rebased, or `None`.

    The worktree `leaving` is ignored.
    """
    ignored = os.path.realpath(leaving) if leaving else None
    for path, folder in [(Path(common_dir).parent, Path(common_dir)), *list_git_folders(common_dir)]:
        is_rebased = any(os.fsencode(ref) in (read_regular(folder / name) or b"").splitlines() for name in REBASE_FILES)
        if is_rebased and os.path.realpath(path) != ignored and not is_gone(path):
            return path
    return None


# -- locking a checkout


@dataclass(frozen=True, slots=True)
class LockedCheckout:
    """A checkout whose index.lock this daemon holds. git works on a copy of the index."""

    path: str
    folder: Path  #: the git folder of the checkout
    lock: int  #: the file descriptor of index.lock
    tip: str = ""  #: the commit that is checked out; empty if the checkout was locked in any state
    #: The tree that a move compares the files with instead of the tree of `tip`; empty if it compares with that one.
    #: The files that git reports as changed, although nobody has changed them, are in it as git would commit them.
    tree: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """The variables that name this checkout to git, even if its `.git` is damaged."""
        return {"GIT_DIR": str(self.folder), "GIT_WORK_TREE": self.path}

    async def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run git in this checkout, on the copy of the index. Return git's stdout.

        git inherits the lock, so that the lock lasts until git has ended even if the daemon is killed.
        """
        extra = {**self.variables, "GIT_INDEX_FILE": str(self.folder / _COPY)}
        return await git.output(self.path, *arguments, stdin=stdin, extra=extra, pass_fds=(self.lock,))

    async def copy_index(self) -> None:
        """Make a new copy of the index, and refresh it.

        Without a refresh, git takes a file for changed if only its timestamp is new.
        """
        await to_thread.run_sync(_delete_copy, self.folder)
        await copy_index_file(self.folder, self.folder / _COPY)
        with contextlib.suppress(GitError):  # git exits with 1 if files have changed, which is no error here
            await self.git("update-index", "-q", "--refresh")

    async def put_index(self) -> None:
        """Replace the index by the copy.

        Raises:
            TargetMovedError: Somebody has deleted index.lock, and may have changed the index since then.
        """
        if not await to_thread.run_sync(is_still_held, self.folder / "index.lock", self.lock):
            raise TargetMovedError("somebody deleted index.lock")
        await to_thread.run_sync((self.folder / _COPY).replace, self.folder / "index")


@contextlib.asynccontextmanager
async def lock_checkout(
    common_dir: str, path: str | None, ref: str, owner: str
) -> AsyncGenerator[LockedCheckout | None]:
    """Lock a checkout of a branch, and yield it.

    Args:
        common_dir: The common git folder of the repository.
        path: The path of the checkout, as `find_checkout` returned it. If it is `None`, yield `None`.
        ref: The full name of the branch.
        owner: A text that identifies the home of this daemon.

    Raises:
        CallerError: An operation such as a rebase is in progress there, or another git holds index.lock for too long.
        TargetMovedError: The checkout is gone, or no longer has the branch checked out.
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
    """Lock a checkout, even if an operation such as a rebase is in progress there.

    Yield it. The yielded checkout has no `tip`, and the index is not copied yet.

    Args:
        path: The path of the checkout.
        folder: The git folder of the checkout.
        owner: As for `lock_checkout`.

    Raises:
        CallerError: Another git holds index.lock for too long.
    """
    lock = await _lock_index(folder, path, owner)
    try:
        yield LockedCheckout(path, folder, lock)
    finally:
        try:
            _unlock(folder, lock)
        except OSError:  # no error for the caller: its work is done, and the next lock of this home takes this one over
            log.exception("%s: the lock on its index, or the copy of the index, could not be removed", path)


async def find_folder(common_dir: str, path: str) -> Path | None:
    """Return the git folder of the checkout at `path`, or `None` if it is gone."""
    if not await to_thread.run_sync(Path(path).is_dir):
        return None
    return await to_thread.run_sync(git_folder_of_checkout, common_dir, Path(path))


async def check_free(common_dir: str, ref: str) -> None:
    """Raise CallerError if an operation is in progress in the checkout of `ref`.

    Such an operation is a merge or a rebase, for example. A merge can't move the branch then. Merges check this before
    verify, because verify may take long.
    """
    path = await find_checkout(common_dir, ref)
    if path is not None and (folder := await find_folder(common_dir, path)):
        await _check_nothing_in_progress(folder, path)


async def _check_nothing_in_progress(folder: Path, path: str) -> None:
    has_reftable = await anyio.Path(folder / "reftable").exists()
    for name, what in _OPERATIONS.items():
        is_ref = has_reftable and name in ("CHERRY_PICK_HEAD", "REVERT_HEAD")
        if await anyio.Path(folder / name).exists() or (is_ref and await resolve_commit(path, name)):
            raise CallerError(f"{what} is in progress in {path}. Finish or abort it there, then merge again.")


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
        if is_still_held(folder / "index.lock", lock):  # if not, the copy may already be that of another daemon
            _delete_copy(folder)
    finally:
        release_index(folder / "index.lock", lock)


def _delete_copy(folder: Path) -> None:
    """Delete the copy of the index, and the lock file that a killed git left for it."""
    for name in (_COPY, f"{_COPY}.lock"):
        (folder / name).unlink(missing_ok=True)
