"""The repository around a folder, the state of its checkout, and its commits."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import CallerError, GitError, NoRepositoryError
from forkjoin.git import git
from forkjoin.git.file_names import split_names
from forkjoin.git.git_config import is_marked_bare
from forkjoin.git.git_folder import git_dir_at, resolve_common_dir
from forkjoin.git.refs import resolve_commit
from forkjoin.git.symbolic_head import follow_head

#: The number of bytes of the index's listing that are searched for a file that exists on disk.
_LISTING_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Checkout:
    """The state of the repository around a folder."""

    common_dir: str
    top: str | None  #: the worktree's root; `None` in a git folder or a bare repository
    branch: str | None  #: the full ref name of the checked-out branch; `None` if HEAD is detached
    head: str | None  #: the checked-out commit; `None` if the branch has no commit yet
    dirty: bool  #: whether tracked files have uncommitted changes


async def read_checkout(folder: Path, *, check_dirty: bool = False) -> Checkout:
    """Return the state of the repository around `folder`.

    Args:
        folder: A folder in a worktree or in a git folder.
        check_dirty: Whether to look for uncommitted changes. Without it, `dirty` is False.

    Raises:
        NoRepositoryError: The folder is in no repository.
        CallerError: git refuses to use the repository.
    """
    git_dir = await _find_git_dir(folder)
    common_dir = await to_thread.run_sync(resolve_common_dir, git_dir)
    top = await to_thread.run_sync(_find_top, folder, git_dir)
    if top and str(git_dir) == common_dir and await _is_bare(common_dir, top):
        top = None
    location = {"GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(top or git_dir)}
    try:
        refs, head = await follow_head(common_dir, git_dir), await resolve_commit(git_dir, "HEAD")
        is_dirty = check_dirty and top is not None and head is not None and await _is_dirty(top, location)
    except GitError as error:
        raise _unusable(folder, error) from error
    return Checkout(common_dir, str(top) if top else None, refs[-1] if refs else None, head, is_dirty)


async def _find_git_dir(folder: Path) -> Path:
    try:
        return await git.find_git_dir(folder)
    except GitError as error:
        if "not a git repository" in error.stderr or "cannot change to" in error.stderr:
            raise NoRepositoryError(str(folder)) from error
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: GitError) -> CallerError:
    # For example, its configuration is broken, or it belongs to another user.
    return CallerError(f"git will not use the repository of {folder}: {error.stderr[:500]}")


def _find_top(folder: Path, git_dir: Path) -> Path | None:
    """Return the root of the worktree around `folder`.

    Return `None` if `folder` is in the git folder.
    """
    folder = folder.resolve()
    for level in (folder, *folder.parents):
        if level == git_dir:
            return None
        if _is_worktree_of(level, git_dir):
            return level
    return None


def _is_worktree_of(folder: Path, git_dir: Path) -> bool:
    """Return whether a folder's `.git` is the git folder `git_dir` or leads to it."""
    found = git_dir_at(folder)
    return found is not None and os.path.realpath(found) == str(git_dir)


async def find_main_worktree(common_dir: str) -> Path | None:
    """Return the root of the main worktree, or `None` if the repository is bare.

    If the git folder is not called `.git`, as in a submodule, core.worktree names the root. It counts only if that
    folder's `.git` leads back to the git folder. Otherwise the root is unknown, and the git folder is returned instead.
    """
    git_dir = Path(common_dir)
    if git_dir.name == ".git":
        main = git_dir.parent
    else:
        _, out, _ = await git.run(common_dir, "config", "--type=path", "core.worktree")
        configured = git_dir / os.fsdecode(out).removesuffix("\n")
        main = await to_thread.run_sync(
            lambda: configured.resolve() if _is_worktree_of(configured, git_dir) else git_dir
        )
    return None if await _is_bare(common_dir, main) else main


async def _is_bare(common_dir: str, main: Path) -> bool:
    """Return whether a repository is bare.

    It is bare if core.bare is true, and no file of the index exists in the main worktree.

    core.bare alone proves nothing, because an agent can set it.
    """
    if not await is_marked_bare(common_dir):
        return False
    location = {"GIT_DIR": common_dir, "GIT_WORK_TREE": str(main)}
    listing = await git.read_output(main, "ls-files", "-z", limit=_LISTING_LIMIT, extra=location)
    names = split_names(os.fsdecode(listing))
    return not await to_thread.run_sync(lambda: any(os.path.lexists(main / name) for name in names))


async def _is_dirty(top: Path, location: Mapping[str, str]) -> bool:
    form = ("--porcelain", "-z", "--untracked-files=no", "--ignore-submodules=dirty")
    return bool(await git.output(top, "status", *form, extra=location))


async def list_commits(common_dir: str, base: str, tip: str, limit: int) -> list[str]:
    """Return the commits that are reachable from `tip` and not from `base`.

    At most `limit` commits are returned, newest first, each as "<short id> <subject>".
    """
    if base == tip:
        return []
    form = ("--format=%H %s", "-z", f"--max-count={limit}")
    _, out, _ = await git.run(common_dir, "log", *form, tip, f"^{base}", "--")
    lines = out.decode(errors="replace").split("\0")
    return [f"{line[:10]} {line.partition(' ')[2][:100]}" for line in lines if line]
