"""Scratch worktrees: detached, reused for many commits, with caches kept.

Anything may have been run there. Where the caller does not vouch for that, the worktree is made again from nothing.
Else git is told of it outright, and what was left in it that is no cache of its own, such as a merge or another
configuration, is taken away. What is ignored is what the commit's own .gitignore files say: neither `info/exclude`,
which any agent can write to, nor a .gitignore that a run has left.
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
#: With these in its git folder git would leave out some of a commit's files, or be at work elsewhere.
_OWN = ("config.worktree", "info/sparse-checkout")
#: What is midway there: a rebase, a bisection, a row of picks.
_MIDWAY = ("rebase-*", "BISECT_*", "sequencer")

#: What a .gitignore is called for a moment that is not the commit's own.
_ASIDE = ".forkjoin-aside"

#: So much may a file system's clock be behind ours.
_LAG_S = 0.02


class UnfitCommitError(ForkjoinError):
    """git can't give this commit's files to any worktree."""

    def __init__(self, error: GitError) -> None:
        super().__init__(f"git can't check this commit out: {error.last_line}")


async def make_scratch(common_dir: str, path: Path, commit: str, *, keep: bool) -> None:
    """Make a detached worktree at `path` hold exactly the files of `commit`.

    Args:
        keep: Whether ignored files (caches) of the run before may stay; else nothing that was left there does.

    Raises:
        UnfitCommitError: A new worktree, too, can't be given these files.
        GitError, OSError: There can be no new worktree at `path`.
    """
    if not (keep and await _switch(common_dir, path, commit)):
        await register(common_dir, path, commit, "--detach")
        await _fill(common_dir, path)
        await to_thread.run_sync(mark, common_dir, path, _SCRATCH, "")


async def _fill(common_dir: str, path: Path) -> None:
    place = await _place(common_dir, path)
    await to_thread.run_sync(make_whole, place.folder)  # git has made it as sparse as the main worktree
    try:
        async with lock_worktree_list(common_dir) as held:
            await git.output(path, *WHOLE, "reset", "--quiet", "--hard", extra=place.variables, pass_fds=(held,))
    except GitRefusedError as error:
        raise UnfitCommitError(error) from error


async def _place(common_dir: str, path: Path) -> RegisteredWorktree:
    """A scratch worktree as git is to be told of it: what has run there may have configured it to be the user's."""
    place = await find_registered_worktree(common_dir, path)
    if place is None:
        raise FileNotFoundError(f"{path} is no worktree of {common_dir} any more")
    return place


async def _switch(common_dir: str, path: Path, commit: str) -> bool:
    """Give a scratch worktree other files; false where what was run in it left it in no state for that."""
    if not await to_thread.run_sync(_ready_to_switch, common_dir, path):
        return False
    place = await _place(common_dir, path)
    last = (await to_thread.run_sync((place.folder / MARK).stat)).st_mtime
    try:
        if await _has_hidden(place):
            return False
        if await _is_mistakable(place, commit):
            await _let_second_pass(last)
        async with lock_worktree_list(common_dir) as held:  # a git that outlives the daemon holds it, too
            switch = (*WHOLE, "checkout", "--quiet", "--force", "--detach", commit)
            await git.output(path, *switch, extra=place.variables, pass_fds=(held,))
            await _clean(place)
    except GitError:
        return False
    return True


async def _has_hidden(place: RegisteredWorktree) -> bool:
    """Whether git was told to leave some files as they are: skip-worktree or assume-unchanged, in git-ls-files(1)."""
    listing = split_names(await place.git("ls-files", "-v", "-z"))
    return any(line[0] == "S" or line[0].islower() for line in listing)


async def _clean(place: RegisteredWorktree) -> None:
    """Remove files that the commit neither contains nor ignores by its own rules.

    `git clean` would ask `info/exclude`, too, and each .gitignore that is there. Those that are not the commit's own
    are put aside meanwhile, and are back where they are in what the commit ignores, such as dependencies.
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
    """Whether a file of this commit may be as large as what is there in its place, and is not that.

    Python takes bytecode for a source's that has the same size, and the same time in whole seconds.
    """
    head = await resolve_commit(place.folder, "HEAD")
    if head is None or await place.git("status", "--porcelain", "--untracked-files=no"):
        return True
    changes = await changes_between(place.common_dir, head, commit)
    edited = [(one.old[1], one.new[1]) for one in changes if one.kind == "M" and not one.is_submodule]
    sizes = [await read_sizes(place.common_dir, side) for side in zip(*edited, strict=True)]
    return any(old == new for old, new in zip(*sizes, strict=True))


async def _let_second_pass(last: float) -> None:
    """Wait until files get times of another second than any that was there when something ran here last."""
    await anyio.sleep(min(max(int(last) + 1 + _LAG_S - time.time(), 0), 1 + _LAG_S))


def _ready_to_switch(common_dir: str, path: Path) -> bool:
    folder = git_folder(common_dir, path)
    said = read_ready_mark(folder) if folder else None
    if folder is None or not said or said[0] != _SCRATCH or not is_linked(path, folder):
        return False
    if any((folder / name).exists() for name in _OWN):
        return False
    remove_pipes(path)
    return True


async def detach(common_dir: str, path: Path, commit: str) -> None:
    """See that a scratch worktree in which a run has ended holds no branch, which nobody could switch to elsewhere."""
    place = await find_registered_worktree(common_dir, path)
    if place is None:
        return
    await to_thread.run_sync(_leave_off, place.folder)
    if (await to_thread.run_sync(read_line, place.folder / "HEAD") or "").startswith("ref: "):
        with contextlib.suppress(GitError):  # what was run there has locked it: the next switch mends that
            await place.git("update-ref", "--no-deref", "HEAD", commit)


def _leave_off(folder: Path) -> None:
    """Note that a run has ended, and let git know of nothing that is midway: a rebase, too, holds a branch."""
    (folder / MARK).touch()
    for pattern in _MIDWAY:
        for left in folder.glob(pattern):
            delete_path(left)


def find_scratch(path: Path) -> str | None:
    """The repository of the scratch worktree at `path`, by what is there; none where it is no such."""
    folder = Path((read_line(path / ".git") or "").removeprefix("gitdir: "))
    said = read_ready_mark(folder)
    is_one = said and said[0] == _SCRATCH and worktree_path_of(folder) == path.resolve()
    return str(folder.parent.parent) if is_one else None
