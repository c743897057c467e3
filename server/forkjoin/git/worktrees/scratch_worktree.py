"""Scratch worktrees on disk, which are detached and reused for many commits, with their caches.

Any program may have run in them. Unless the caller vouches for the last run, the worktree is made again from scratch.
Otherwise its files are switched to the next commit, and everything else that a run left is removed, such as a merge in
progress or a changed configuration. Ignored files stay, but only those that the commit's own .gitignore files name.
`info/exclude`, which any agent can write to, and .gitignore files that a run has added don't count.
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
from forkjoin.git.worktrees.sparse_checkout import WHOLE, make_whole
from forkjoin.git.worktrees.worktree import MARK, delete_path, lock_worktree_list, mark, read_ready_mark, register
from forkjoin.git.worktrees.worktree_folder import (
    RegisteredWorktree,
    find_registered_worktree,
    git_folder,
    is_linked,
    remove_pipes,
    worktree_path_of,
)

_SCRATCH = "scratch"
#: Files in the git folder that would make git omit files of a commit, or work in another folder.
_WORKTREE_CONFIG = ("config.worktree", "info/sparse-checkout")
#: Files in the git folder of an operation in progress: a rebase, a bisection, or several cherry-picks.
_IN_PROGRESS = ("rebase-*", "BISECT_*", "sequencer")

#: The suffix of a .gitignore that doesn't belong to the commit, while untracked files are listed.
_ASIDE = ".forkjoin-aside"

#: How far a file system's clock may be behind the system clock.
_LAG_S = 0.02


class UnfitCommitError(ForkjoinError):
    """git can't check this commit out in any worktree."""

    def __init__(self, error: GitError) -> None:
        super().__init__(f"git can't check this commit out: {error.last_line}")


async def make_scratch(common_dir: str, path: Path, commit: str, *, keep: bool) -> None:
    """Make a detached worktree at `path` hold exactly the files of `commit`.

    Args:
        keep: Whether ignored files (caches) of the last run may stay. If not, nothing stays.

    Raises:
        UnfitCommitError: The commit can't be checked out in a new worktree either.
        GitError: A worktree can't be made at `path`.
        OSError: A worktree can't be made at `path`.
    """
    if not (keep and await _switch(common_dir, path, commit)):
        await register(common_dir, path, commit, "--detach")
        await _check_out_files(common_dir, path)
        await to_thread.run_sync(mark, common_dir, path, _SCRATCH, "")


async def _check_out_files(common_dir: str, path: Path) -> None:
    place = await _place(common_dir, path)
    await to_thread.run_sync(make_whole, place.folder)  # git copied the sparse checkout of the main worktree
    try:
        async with lock_worktree_list(common_dir) as held:
            await git.output(path, *WHOLE, "reset", "--quiet", "--hard", extra=place.variables, pass_fds=(held,))
    except GitRefusedError as error:
        raise UnfitCommitError(error) from error


async def _place(common_dir: str, path: Path) -> RegisteredWorktree:
    """Return the registered scratch worktree.

    Raise FileNotFoundError if it is not registered.
    """
    place = await find_registered_worktree(common_dir, path)
    if place is None:
        raise FileNotFoundError(f"{path} is no worktree of {common_dir} any more")
    return place


async def _switch(common_dir: str, path: Path, commit: str) -> bool:
    """Switch a scratch worktree to a commit.

    Return False if the last run left it in a state that prevents that.
    """
    if not await to_thread.run_sync(_ready_to_switch, common_dir, path):
        return False
    place = await _place(common_dir, path)
    last_run = (await to_thread.run_sync((place.folder / MARK).stat)).st_mtime
    try:
        if await _has_hidden_files(place):
            return False
        if await _is_mistakable(place, commit):
            await _wait_for_later_second(last_run)
        async with lock_worktree_list(common_dir) as held:  # shared with git, in case it outlives the daemon
            switch = (*WHOLE, "checkout", "--quiet", "--force", "--detach", commit)
            await git.output(path, *switch, extra=place.variables, pass_fds=(held,))
            await _clean(place)
    except GitError:
        return False
    return True


async def _has_hidden_files(place: RegisteredWorktree) -> bool:
    """Return whether git would not update some files.

    These files are marked skip-worktree or assume-unchanged.
    """
    listing = split_names(await place.git("ls-files", "-v", "-z"))
    return any(line[0] == "S" or line[0].islower() for line in listing)


async def _clean(place: RegisteredWorktree) -> None:
    """Remove files that the commit neither contains nor ignores by its own rules.

    `git clean` would also use `info/exclude` and every .gitignore in the worktree. Each .gitignore that isn't the
    commit's own is renamed meanwhile, and back afterwards if it is in an ignored folder, such as dependencies.
    """
    others = ("ls-files", "-z", "--others")
    left = split_names(await place.git(*others, "--", ":(top,glob)**/.gitignore"))
    await to_thread.run_sync(_rename, place.path, [(name, f"{name}{_ASIDE}") for name in left])
    strange = split_names(await place.git(*others, "--directory", "--exclude-per-directory=.gitignore"))
    for name in strange:
        await to_thread.run_sync(delete_path, place.path / name.removesuffix("/"))
    await to_thread.run_sync(_rename, place.path, [(f"{name}{_ASIDE}", name) for name in left])


def _rename(top: Path, names: Sequence[tuple[str, str]]) -> None:
    for old, new in names:
        with contextlib.suppress(FileNotFoundError):
            (top / old).replace(top / new)


async def _is_mistakable(place: RegisteredWorktree, commit: str) -> bool:
    """Return whether a changed file may have the same size as in the worktree.

    Python takes cached bytecode for current if the source has the same size and the same time in whole seconds.
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

    The wait takes about one second at most.

    Args:
        last_run: The timestamp at which the last run ended.
    """
    await anyio.sleep(min(max(int(last_run) + 1 + _LAG_S - time.time(), 0), 1 + _LAG_S))


def _ready_to_switch(common_dir: str, path: Path) -> bool:
    folder = git_folder(common_dir, path)
    ready = read_ready_mark(folder) if folder else None
    if folder is None or not ready or ready[0] != _SCRATCH or not is_linked(path, folder):
        return False
    if any((folder / name).exists() for name in _WORKTREE_CONFIG):
        return False
    remove_pipes(path)
    return True


async def detach(common_dir: str, path: Path, commit: str) -> None:
    """Detach HEAD of a scratch worktree after a run.

    A branch checked out there could not be checked out elsewhere.
    """
    place = await find_registered_worktree(common_dir, path)
    if place is None:
        return
    await to_thread.run_sync(_end_operations, place.folder)
    if (await to_thread.run_sync(read_line, place.folder / "HEAD") or "").startswith("ref: "):
        with contextlib.suppress(GitError):  # the run has locked HEAD, which the next switch repairs
            await place.git("update-ref", "--no-deref", "HEAD", commit)


def _end_operations(folder: Path) -> None:
    """Record that the run ended now, and delete the files of operations in progress.

    A rebase in progress also counts as a checkout of its branch.
    """
    (folder / MARK).touch()
    for pattern in _IN_PROGRESS:
        for left in folder.glob(pattern):
            delete_path(left)


def find_scratch(path: Path) -> str | None:
    """Return the git folder of the repository of the scratch worktree at `path`.

    Return `None` if no scratch worktree is at `path`. Blocks.
    """
    folder = Path((read_line(path / ".git") or "").removeprefix("gitdir: "))
    ready = read_ready_mark(folder)
    is_scratch = ready and ready[0] == _SCRATCH and worktree_path_of(folder) == path.resolve()
    return str(folder.parent.parent) if is_scratch else None
