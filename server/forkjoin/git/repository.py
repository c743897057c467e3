"""What a folder's repository is, how its checkout stands, and what commits it has: short reads."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import CallerError, GitError, NoRepositoryError
from forkjoin.git import git
from forkjoin.git.file_names import split_names
from forkjoin.git.git_config import is_marked_bare
from forkjoin.git.git_folder import read_gitfile, resolve_common_dir
from forkjoin.git.refs import resolve_commit
from forkjoin.git.symbolic_head import follow_head

#: Bytes of a listing in which a file that is there is looked for.
_LISTING = 64 * 1024


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder's repository as it stands."""

    common_dir: str
    top: str | None  #: the work tree's root; none in a bare repository
    branch: str | None  #: its full ref name; none where HEAD is detached
    head: str | None  #: the commit; none in a repository without one
    dirty: bool


async def read_checkout(folder: Path, *, check_dirty: bool = False) -> Checkout:
    """How the repository around `folder` stands; `dirty` (tracked files alone) is only looked for if asked."""
    git_dir = await _discover(folder)
    common_dir = await to_thread.run_sync(resolve_common_dir, git_dir)
    top = await to_thread.run_sync(_find_top, folder, git_dir)
    if top and str(git_dir) == common_dir and await _is_bare(common_dir, top):
        top = None
    here = {"GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(top or git_dir)}
    try:
        refs, head = await follow_head(common_dir, git_dir), await resolve_commit(git_dir, "HEAD")
        is_dirty = check_dirty and top is not None and head is not None and await _is_dirty(top, here)
    except GitError as error:
        raise _refuse(folder, error) from error
    return Checkout(common_dir, str(top) if top else None, refs[-1] if refs else None, head, is_dirty)


async def _discover(folder: Path) -> Path:
    """Return the git folder of the repository around `folder`."""
    try:
        return await git.find_git_dir(folder)
    except GitError as error:  # its configuration can't be read, or it is another user's
        if "not a git repository" in error.stderr or "cannot change to" in error.stderr:
            raise NoRepositoryError(str(folder)) from error
        raise _refuse(folder, error) from error


def _refuse(folder: Path, error: GitError) -> CallerError:
    return CallerError(f"git will not use the repository of {folder}: {error.stderr[:500]}")


def _find_top(folder: Path, git_dir: Path) -> Path | None:
    """Return the root of the worktree around `folder`, or `None` if `folder` is in its git folder."""
    folder = folder.resolve()
    for level in (folder, *folder.parents):
        if level == git_dir:
            return None
        if is_root(level, git_dir):
            return level
    return None


def is_root(folder: Path, git_dir: Path) -> bool:
    """Return whether the `.git` of a folder is, or leads to, this git folder."""
    link = read_gitfile(folder / ".git") or folder / ".git"
    return os.path.realpath(link) == str(git_dir)


async def find_main_worktree(common_dir: str) -> Path | None:
    """Return the main worktree: `None` if bare, the git folder if unknown.

    A submodule's is at core.worktree, but only if the `.git` there leads back.
    """
    git_dir = Path(common_dir)
    if git_dir.name == ".git":
        main = git_dir.parent
    else:
        _, out, _ = await git.run(common_dir, "config", "--type=path", "core.worktree")
        told = git_dir / os.fsdecode(out).removesuffix("\n")
        main = await to_thread.run_sync(lambda: told.resolve() if is_root(told, git_dir) else git_dir)
    return None if await _is_bare(common_dir, main) else main


async def _is_bare(common_dir: str, main: Path) -> bool:
    """Return whether a repository is bare, even if its configuration is wrong."""
    if not await is_marked_bare(common_dir):
        return False
    here = {"GIT_DIR": common_dir, "GIT_WORK_TREE": str(main)}
    listing = await git.read_output(main, "ls-files", "-z", limit=_LISTING, extra=here)
    names = split_names(os.fsdecode(listing))
    return not await to_thread.run_sync(lambda: any(os.path.lexists(main / name) for name in names))


async def _is_dirty(top: Path, here: Mapping[str, str]) -> bool:
    form = ("--porcelain", "-z", "--untracked-files=no", "--ignore-submodules=dirty")
    return bool(await git.output(top, "status", *form, extra=here))


async def list_commits(common_dir: str, base: str, tip: str, limit: int) -> list[str]:
    """The commits of `tip` that `base` has not, newest first, each as "<short id> <subject>"; at most `limit`."""
    if base == tip:
        return []
    form = ("--format=%H %s", "-z", f"--max-count={limit}")
    _, out, _ = await git.run(common_dir, "log", *form, tip, f"^{base}", "--")
    lines = out.decode(errors="replace").split("\0")
    return [f"{line[:10]} {line.partition(' ')[2][:100]}" for line in lines if line]
