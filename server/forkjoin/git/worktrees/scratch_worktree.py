"""Scratch worktrees: detached worktrees that are reused for many commits, with the caches of earlier runs.

A run, e.g. of verify, may have left a scratch worktree in any state. Unless the caller trusts the last run, the
worktree is made again. Otherwise git switches its files to the next commit, and everything else that the run left is
removed, such as a merge in progress or a changed configuration. Ignored files stay if the commit's own .gitignore files
name them. The rules in `info/exclude`, which any agent can write to, and in .gitignore files that a run added don't
count.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
from anyio import to_thread

from forkjoin.core.error import ForkjoinError, GitError, GitRefusedError
from forkjoin.core.regular_file import read_line
from forkjoin.git import git
from forkjoin.git.changed_paths import changes_between
from forkjoin.git.file_names import split_names
from forkjoin.git.objects import read_sizes
from forkjoin.git.refs import resolve_commit
from forkjoin.git.worktrees.delete_path import delete_path
from forkjoin.git.worktrees.hidden_files import is_marked
from forkjoin.git.worktrees.sparse_checkout import NOT_SPARSE, OWN_SETTINGS, make_whole
from forkjoin.git.worktrees.worktree import MARK, mark, read_ready_mark, register
from forkjoin.git.worktrees.worktree_folder import (
    RegisteredWorktree,
    find_registered_worktree,
    git_folder,
    is_linked,
    remove_pipes,
    worktree_path_of,
)
from forkjoin.git.worktrees.worktree_list_lock import lock_worktree_list

_SCRATCH = "scratch"
#: Patterns of files that exist in the git folder during a rebase, a bisection, or several cherry-picks.
_IN_PROGRESS = ("rebase-*", "BISECT_*", "sequencer")

#: A suffix for .gitignore files that are not the commit's own. They have it while git lists the untracked files.
_DISABLED = ".forkjoin-aside"

#: How far a file system's clock may be behind the system clock.
_LAG_S = 0.02


class UnfitCommitError(ForkjoinError):
    """git can't check out a commit even in a new worktree."""

    def __init__(self, error: GitError) -> None:
        super().__init__(f"git can't check this commit out: {error.last_line}")


async def make_scratch(common_dir: str, path: Path, commit: str, *, keep: bool) -> None:
    """Make a detached worktree with the files of a commit, or reuse an existing one.

    Args:
        common_dir: The common git folder of the repository.
        path: The path of the scratch worktree.
        commit: The id of the commit.
        keep: Whether an existing worktree may be switched, so that its ignored files (caches) stay. If not, or if its
            state prevents that, the worktree is made again.

    Raises:
        UnfitCommitError: git can't check the commit out in a new worktree either.
        GitError: git can't add a worktree at `path`.
        OSError: The files at `path` can't be replaced.
    """
    if not (keep and await _switch(common_dir, path, commit)):
        await register(common_dir, path, commit, "--detach")
        await _check_out_files(common_dir, path)
        await to_thread.run_sync(mark, common_dir, path, _SCRATCH, "")


async def _check_out_files(common_dir: str, path: Path) -> None:
    place = await _place(common_dir, path)
    await to_thread.run_sync(make_whole, place.folder)  # git copies the sparse patterns of the main worktree
    try:
        async with lock_worktree_list(common_dir) as held:
            await git.output(path, *NOT_SPARSE, "reset", "--quiet", "--hard", extra=place.variables, pass_fds=(held,))
    except GitRefusedError as error:
        raise UnfitCommitError(error) from error


async def _place(common_dir: str, path: Path) -> RegisteredWorktree:
    """Return the scratch worktree that is registered at `path`.

    Raise FileNotFoundError if there is none.
    """
    place = await find_registered_worktree(common_dir, path)
    if place is None:
        raise FileNotFoundError(f"{path} is no longer a worktree of {common_dir}")
    return place


async def _switch(common_dir: str, path: Path, commit: str) -> bool:
    """Switch a scratch worktree to a commit.

    Remove everything else except ignored files. Return False if the worktree is missing or incomplete, or if the last
    run left it in a state that prevents this.
    """
    if not await to_thread.run_sync(_ready_to_switch, common_dir, path):
        return False
    place = await _place(common_dir, path)
    last_run = (await to_thread.run_sync((place.folder / MARK).stat)).st_mtime
    try:
        if await _has_marked_files(place):
            return False
        if await _is_mistakable(place, commit):
            await _wait_for_later_second(last_run)
        async with lock_worktree_list(common_dir) as held:  # git inherits the lock, in case git outlives the daemon
            switch = (*NOT_SPARSE, "checkout", "--quiet", "--force", "--detach", commit)
            await git.output(path, *switch, extra=place.variables, pass_fds=(held,))
            await _clean(place)
    except GitError:
        return False
    return True


async def _has_marked_files(place: RegisteredWorktree) -> bool:
    """Return whether git would not update some files (see hidden_files.py)."""
    return any(map(is_marked, split_names(await place.git("ls-files", "-v", "-z"))))


async def _clean(place: RegisteredWorktree) -> None:
    """Remove the files that the commit at HEAD neither contains nor ignores.

    Only the commit's own .gitignore files count.

    `git clean` would also follow `info/exclude` and every .gitignore in the worktree. Each .gitignore that isn't the
    commit's own is therefore renamed before the others are removed. Afterwards it gets its name back, unless it was
    removed too: one in an ignored folder, e.g. of dependencies, stays.
    """
    others = ("ls-files", "-z", "--others")
    uncommitted = split_names(await place.git(*others, "--", ":(top,glob)**/.gitignore"))
    await to_thread.run_sync(_rename, place.path, [(name, f"{name}{_DISABLED}") for name in uncommitted])
    strange = split_names(await place.git(*others, "--directory", "--exclude-per-directory=.gitignore"))
    for name in strange:
        await to_thread.run_sync(delete_path, place.path / name.removesuffix("/"))
    await to_thread.run_sync(_rename, place.path, [(f"{name}{_DISABLED}", name) for name in uncommitted])


def _rename(top: Path, names: Sequence[tuple[str, str]]) -> None:
    """Rename files below `top`, given as pairs of old and new path.

    Ignore missing files. Blocks.
    """
    for old, new in names:
        with contextlib.suppress(FileNotFoundError):
            (top / old).replace(top / new)


async def _is_mistakable(place: RegisteredWorktree, commit: str) -> bool:
    """Return whether a file of the same size may have other content in `commit`.

    Python uses cached bytecode if the source file still has the same size, and the same time in whole seconds.
    """
    head = await resolve_commit(place.folder, "HEAD")
    if head is None or await place.git("status", "--porcelain", "--untracked-files=no"):
        return True
    changes = await changes_between(place.common_dir, head, commit)
    edited = [(one.old[1], one.new[1]) for one in changes if one.kind == "M" and not one.is_submodule]
    sizes = [await read_sizes(place.common_dir, side) for side in zip(*edited, strict=True)]
    return any(old == new for old, new in zip(*sizes, strict=True))


async def _wait_for_later_second(last_run: float) -> None:
    """Wait until new files get a later time, in whole seconds, than the last run's.

    The wait takes at most about one second.

    Args:
        last_run: When the last run ended, in seconds since 1970.
    """
    await anyio.sleep(min(max(int(last_run) + 1 + _LAG_S - time.time(), 0), 1 + _LAG_S))


def _ready_to_switch(common_dir: str, path: Path) -> bool:
    """Return whether a scratch worktree can be switched. Remove pipes from it. Blocks.

    It must be complete, and have no settings of its own.
    """
    folder = git_folder(common_dir, path)
    ready = read_ready_mark(folder) if folder else None
    if folder is None or not ready or ready[0] != _SCRATCH or not is_linked(path, folder):
        return False
    if any((folder / name).exists() for name in OWN_SETTINGS):
        return False
    remove_pipes(path)
    return True


async def detach_scratch(common_dir: str, path: Path, commit: str) -> None:
    """Detach HEAD of a scratch worktree after a run.

    Also end the operations that the run left in progress. Otherwise a branch that the run checked out could not be
    checked out in another worktree.

    Args:
        common_dir: The common git folder of the repository.
        path: The path of the scratch worktree.
        commit: The commit at which HEAD is detached, if HEAD is on a branch.
    """
    place = await find_registered_worktree(common_dir, path)
    if place is None:
        return
    await to_thread.run_sync(_end_operations, place.folder)
    if (await to_thread.run_sync(read_line, place.folder / "HEAD") or "").startswith("ref: "):
        with contextlib.suppress(
            GitError
        ):  # the run has left HEAD.lock, and the next call of make_scratch makes the worktree again
            await place.git("update-ref", "--no-deref", "HEAD", commit)


def _end_operations(folder: Path) -> None:
    """Record by the time of the ready mark that the run ended now.

    End operations in progress. Blocks. git also takes a branch for checked out while a rebase of it is in progress.
    """
    (folder / MARK).touch()
    for pattern in _IN_PROGRESS:
        for left in folder.glob(pattern):
            delete_path(left)


def find_scratch(path: Path) -> str | None:
    """Return the common git folder that the scratch worktree at `path` belongs to.

    Blocks.

    Return `None` if no scratch worktree is at `path`.
    """
    folder = Path((read_line(path / ".git") or "").removeprefix("gitdir: "))
    ready = read_ready_mark(folder)
    is_scratch = ready and ready[0] == _SCRATCH and worktree_path_of(folder) == path.resolve()
    return str(folder.parent.parent) if is_scratch else None
