"""Creation and removal of worktrees, each on a branch of its own.

A ready mark in a worktree's git folder says that the worktree is
complete, and who owns it. The branch's reflog names the owner too. `make` can therefore be repeated after a crash: it
takes only a worktree and a branch of its owner, returns a complete worktree as it is, and replaces an incomplete one.

Worktrees are removed by path. `git worktree prune` would also drop a user's worktree on a disk that isn't mounted now.
"""

import contextlib
import logging
import os
import stat
from pathlib import Path

import anyio
from anyio import CancelScope, to_thread

from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.error import CallerError, GitError
from forkjoin.core.regular_file import is_gone, read_regular
from forkjoin.git import git
from forkjoin.git.git_folder import is_irregular
from forkjoin.git.refs import find_symbolic_target, find_tip, update_refs
from forkjoin.git.worktrees import sparse_checkout
from forkjoin.git.worktrees.delete_path import delete_path
from forkjoin.git.worktrees.worktree_folder import find_nested_worktrees, git_folder, is_folder, worktree_path_of
from forkjoin.git.worktrees.worktree_list_lock import find_lock_mode, lock_worktree_list

log = logging.getLogger(__name__)

#: How often `git worktree add` is tried, since git may lose a race against another git.
_ATTEMPTS = 5
_RETRY_PAUSE_S = 0.02
#: The highest suffix that the name of a branch gets.
_MAX_SUFFIX = 99

#: A disk with fewer free bytes than this counts as full.
_MIN_FREE_BYTES = 1024 * 1024

#: The name of the ready mark: a file in a worktree's git folder with the worktree's owner and its branch.
MARK = "forkjoin-ready"
_MARK_LIMIT = 8192
#: The name of the ready mark once removal has begun. The file's time says when.
_REMOVAL_MARK = "forkjoin-going"
#: When git adds a worktree, it reads these files in the git folder of every other worktree.
_FILES_GIT_READS = ("HEAD", "commondir", "gitdir", "locked")


# -- making a worktree


async def make(common_dir: str, path: Path, branch: str, base: str, owner: str, *, like: Path | None = None) -> str:
    """Make a worktree on a new branch at `base`. This is idempotent for one `owner`.

    Args:
        common_dir: The common git folder of the repository.
        path: The path of the new worktree.
        branch: The short name of the new branch.
        base: The commit at which the branch begins.
        owner: A text that identifies the agent and its home.
        like: A checkout. If it is sparse, the worktree gets only the same part of the files. `None`: all files.

    Returns:
        The short name of the branch. It has a numeric suffix if somebody else has a branch of the wanted name.

    Raises:
        GitError: git failed. Neither the worktree nor the branch is left.
        CallerError: Another owner's worktree or other files are at `path`, or the disk is full.
    """
    if existing := await to_thread.run_sync(_find_complete, common_dir, path, owner):
        return existing
    made = await _make_branch(common_dir, branch, base, owner)
    try:
        await register(common_dir, path, made)
        if folder := await to_thread.run_sync(git_folder, common_dir, path):
            await sparse_checkout.copy_from(common_dir, like, folder)
        await git.output(path, "reset", "--quiet", "--hard")
        await to_thread.run_sync(mark, common_dir, path, owner, made)
    except (GitError, OSError) as error:
        full = await to_thread.run_sync(_is_full, path)
        await discard(common_dir, path, made, base)
        if full:
            raise CallerError(
                f"The disk that {path.parent} is on is full. Free some space, then spawn again."
            ) from error
        raise
    return made


def _is_full(path: Path) -> bool:
    """Return whether the disk of `path` is full. git's own errors don't always say so.

    Blocks.
    """
    disk = os.statvfs(next(folder for folder in path.parents if folder.exists()))
    return disk.f_bavail * disk.f_frsize < _MIN_FREE_BYTES or (disk.f_files > 0 and disk.f_favail == 0)


def _find_complete(common_dir: str, path: Path, owner: str) -> str | None:
    """Return the branch of the complete worktree of `owner` at `path`, or `None`.

    Blocks. `None` also means that the owner's worktree there is incomplete, or that its files are gone.

    Raises:
        CallerError: Somebody else's worktree, or other files, are at `path`.
    """
    folder = git_folder(common_dir, path)
    exists = is_folder(path)
    if folder is None:
        if exists and any(entry.name != ".git" for entry in path.iterdir()):
            raise CallerError(f"{path} is not a worktree, but has files in it. Move them away.")
        return None
    ready = read_ready_mark(folder)
    if ready is not None and ready[0] != owner:
        raise CallerError(f"{path} is the worktree of {ready[0]}. Remove that worktree first.")
    return ready[1] if ready and exists else None


async def _make_branch(common_dir: str, branch: str, base: str, owner: str) -> str:
    """Create a branch for `owner`, or find the one that was created before.

    Return its name: the first of `branch`, `branch-2` … that is free or is the owner's.
    """
    why = f"forkjoin: created for {owner}"
    for name in (branch, *(f"{branch}-{n}" for n in range(2, _MAX_SUFFIX + 1))):
        ref = f"refs/heads/{name}"
        try:
            await update_refs(common_dir, [f"create {ref} {base}"], why)
            return name
        except GitError as error:
            is_prefix = f"'{ref}/" in error.stderr  # git names the branch below `ref` that is in the way
            exists = await find_tip(common_dir, ref) or await find_symbolic_target(common_dir, ref) is not None
            if not (is_prefix or exists):
                raise
        if await find_tip(common_dir, ref) and await _was_created_by(common_dir, ref, why):
            return name
    raise CallerError(
        f"The branches {branch} to {branch}-{_MAX_SUFFIX} all exist. Delete some of them, or choose another name."
    )


async def _was_created_by(common_dir: str, ref: str, why: str) -> bool:
    """Return whether `why` is the reason in the oldest entry of a branch's reflog."""
    _, out, _ = await git.run(common_dir, "log", "--walk-reflogs", "--format=%gs", ref, "--")
    reasons = os.fsdecode(out).removesuffix("\n").split("\n")
    return reasons[-1].split() == why.split()  # git replaces several spaces in a reason by one


async def register(common_dir: str, path: Path, start: str, *options: str) -> None:
    """Add a worktree without its files to the repository's list.

    Files at `path` are deleted first. Try again if git loses a race against another git.

    Args:
        common_dir: The common git folder of the repository.
        path: The path of the new worktree.
        start: The short name of a branch, or a commit.
        options: Further options of `git worktree add`.
    """
    arguments = ("worktree", "add", "--quiet", "--no-checkout", *options, "--", str(path), start)
    async with lock_worktree_list(common_dir) as held:
        for remaining in reversed(range(_ATTEMPTS)):
            await to_thread.run_sync(_clear, common_dir, path)
            await to_thread.run_sync(_drop_pipes, common_dir)
            await to_thread.run_sync(lambda: path.parent.mkdir(mode=0o700, parents=True, exist_ok=True))
            try:
                await git.output(common_dir, *arguments, pass_fds=(held,))
                await to_thread.run_sync(_open_to_others, common_dir, path, await find_lock_mode(common_dir))
                return
            except GitError:
                if not remaining:
                    raise
            await anyio.sleep(_RETRY_PAUSE_S)


def _open_to_others(common_dir: str, path: Path, mode: int) -> None:
    """Give other users of a shared repository access to a worktree's git folder.

    Their `git gc` reads the folder and locks its HEAD. git sets the modes of `refs` and HEAD itself, but leaves the
    other modes to the umask (builtin/worktree.c).

    Args:
        common_dir: The common git folder of the repository.
        path: The worktree.
        mode: The mode of the lock file (see `find_lock_mode`).
    """
    if (mode := mode & 0o077) and (folder := git_folder(common_dir, path)):
        for file in (folder, folder / "gitdir", folder / "commondir"):
            may_enter = mode >> 2 & 0o011 if file == folder else 0
            file.chmod(stat.S_IMODE(file.stat().st_mode) | mode | may_enter)


def _drop_pipes(common_dir: str) -> None:
    """Remove named pipes on which `git worktree add` would block."""
    for file in Path(common_dir, "worktrees").glob("*/*"):
        if file.name in _FILES_GIT_READS and is_irregular(file):
            log.warning("Removed %s: it is not a regular file, and git would block on it", file)
            delete_path(file)


def repair_gitdir_file(common_dir: str, path: Path) -> None:
    """Restore a missing or unreadable `gitdir` file in the git folder of a worktree.

    Blocks. Do nothing if the worktree at `path` was never complete.
    """
    folder = Path(common_dir, "worktrees", path.name)
    link = folder / "gitdir"
    if is_folder(folder) and read_ready_mark(folder) and worktree_path_of(folder) is None:
        delete_path(link)
        link.write_bytes(os.fsencode(f"{path}/.git\n"))


def mark(common_dir: str, path: Path, owner: str, branch: str) -> None:
    """Write the ready mark, which says that the worktree at `path` is complete.

    Blocks.
    """
    folder = git_folder(common_dir, path)
    if folder is None:
        raise FileNotFoundError(f"{path} is no longer a worktree of {common_dir}")
    write_atomically(folder / MARK, f"{owner}\0{branch}".encode(), mode=None)


def read_ready_mark(folder: Path) -> tuple[str, str] | None:
    """Return the owner and the branch that a ready mark names. Blocks.

    Return `None` if the git folder has no ready mark, because its worktree is incomplete.
    """
    with contextlib.suppress(OSError):
        if (content := read_regular(folder / MARK, _MARK_LIMIT)) is not None:
            owner, _, branch = os.fsdecode(content).partition("\0")
            return owner, branch
    return None


async def discard(common_dir: str, path: Path, branch: str, base: str) -> None:
    """Remove a worktree in which no program has run, and its branch.

    The branch stays if it is not at `base`, since it has commits then.
    """
    with CancelScope(shield=True):
        with contextlib.suppress(OSError):
            await remove(common_dir, path)
        with contextlib.suppress(GitError):  # the branch is not at `base`
            await update_refs(common_dir, [f"delete refs/heads/{branch} {base}"], "forkjoin: removed")


# -- removing a worktree


async def remove(common_dir: str, path: Path) -> None:
    """Remove the worktree at `path` with everything in it.

    Worktrees of the repository below it are unregistered too. The branches stay. This is idempotent. A worktree that is
    locked with `git worktree lock` is removed too: such a lock only protects a missing worktree from pruning, and an
    agent may have set it.
    """
    if await to_thread.run_sync(is_gone, Path(common_dir)):  # without a repository there is no list to lock
        await to_thread.run_sync(_clear, common_dir, path)
        return
    async with lock_worktree_list(common_dir):
        if folder := await to_thread.run_sync(git_folder, common_dir, path):
            await to_thread.run_sync(_mark_removal, folder)
        for _, folder in await to_thread.run_sync(find_nested_worktrees, common_dir, path):
            await to_thread.run_sync(_delete_git_folder, folder)
        await to_thread.run_sync(_clear, common_dir, path)


def removal_began_at(common_dir: str, path: Path) -> float | None:
    """Return when an unfinished removal of a worktree began, in seconds since 1970.

    Blocks. Return `None` if no removal has begun, or if it is finished.
    """
    folder = git_folder(common_dir, path)
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(folder / _REMOVAL_MARK).st_mtime if folder else None
    return None


def _clear(common_dir: str, path: Path) -> None:
    """Delete the folder at `path`, and the git folder of a worktree registered there."""
    folder = git_folder(common_dir, path)
    if folder:
        _mark_removal(folder)
    delete_path(path)
    if folder:
        _delete_git_folder(folder)
        with contextlib.suppress(OSError):  # the folder of all git folders is not empty if there are other worktrees
            folder.parent.rmdir()


def _mark_removal(folder: Path) -> None:
    """Rename the ready mark. Its new name and time say that the removal begins now."""
    with contextlib.suppress(FileNotFoundError):  # the worktree was incomplete, or its removal had begun already
        os.utime(folder / MARK, follow_symlinks=False)
        (folder / MARK).rename(folder / _REMOVAL_MARK)  # renamed, because a file can't be written on a full disk


def _delete_git_folder(folder: Path) -> None:
    """Delete a worktree's git folder.

    `gitdir` is deleted first of the files that git reads, and these after all others. If the daemon is killed in
    between, git ignores the folder.
    """
    while folder.exists():  # a concurrent `git gc` may delete files of the same folder
        with contextlib.suppress(FileNotFoundError):
            if not folder.is_symlink():
                last = (*_FILES_GIT_READS, _REMOVAL_MARK)
                for entry in sorted(folder.iterdir(), key=lambda entry: (entry.name in last, entry.name != "gitdir")):
                    delete_path(entry)
            delete_path(folder)


async def delete_branch(common_dir: str, branch: str, tip: str | None) -> None:
    """Delete a branch if it exists.

    If it is a symbolic ref, delete that ref, not its target.

    Args:
        common_dir: The common git folder of the repository.
        branch: The short name of the branch.
        tip: The commit that the branch must be at, unless it is a symbolic ref.

    Raises:
        GitError: The branch is at another commit.
    """
    ref = f"refs/heads/{branch}"
    if await find_tip(common_dir, ref) is not None:
        await update_refs(common_dir, [f"delete {ref} {tip}"], "forkjoin: removed")
    else:
        await delete_symbolic_ref(common_dir, ref)


async def delete_symbolic_ref(common_dir: str, ref: str) -> None:
    """Delete a symbolic ref, but not the ref that it points to.

    Do nothing if there is none.
    """
    if await find_symbolic_target(common_dir, ref) is not None:
        await update_refs(common_dir, [f"delete {ref}"], "forkjoin: removed")
