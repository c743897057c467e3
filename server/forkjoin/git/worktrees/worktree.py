"""Creation and removal of worktrees, each on a branch of its own.

`git worktree add` races with itself and with `git fetch`. A lock in each repository's git folder keeps all forkjoin
processes apart. A ready mark in a worktree's git folder says that the worktree is complete, and who owns it. The
branch's reflog names the owner too. After a crash, making the worktree again therefore finds only the owner's worktree
and branch. It keeps a program's changes in a complete worktree, and removes an incomplete worktree.

Worktrees are removed by path. `git worktree prune` would also drop a user's worktree on a disk that isn't mounted now.
"""

import contextlib
import logging
import os
import shutil
import stat
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
from anyio import CancelScope, to_thread

from forkjoin.core import file_lock
from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.error import CallerError, GitError
from forkjoin.core.regular_file import is_gone, read_regular
from forkjoin.git import git
from forkjoin.git.git_config import read_shared_repository
from forkjoin.git.git_folder import is_irregular
from forkjoin.git.refs import find_symbolic_target, find_tip, update_refs
from forkjoin.git.worktrees import sparse_checkout
from forkjoin.git.worktrees.worktree_folder import find_nested_worktrees, git_folder, is_folder, worktree_path_of

log = logging.getLogger(__name__)

_LOCK_PAUSE_S = 0.005
_LOCK_GIVE_UP_S = 120
#: How often adding a worktree is tried when git loses a race against another git, and the pause in between.
_TRIES = 5
_REST_S = 0.02

#: A disk with fewer free bytes than this counts as full.
_ROOM = 1024 * 1024

#: The ready mark: a file in the git folder with the worktree's owner and its branch.
MARK = "forkjoin-ready"
_MARK_LIMIT = 8192
#: The name of the ready mark once removal has begun. The file's time says when.
_GOING = "forkjoin-going"
#: The files in each worktree's git folder that git reads when it adds another worktree.
_READ_OF_EACH = ("HEAD", "commondir", "gitdir", "locked")


# -- the lock


@contextlib.asynccontextmanager
async def lock_worktree_list(common_dir: str) -> AsyncGenerator[int]:
    """Lock the repository's list of worktrees against other processes.

    Yield the descriptor, to share it with git.

    Raises:
        TimeoutError: Another process has held the lock for two minutes.
    """
    file, mode = Path(common_dir) / "forkjoin.lock", await _find_lock_mode(common_dir)
    if not await to_thread.run_sync(_is_free_or_file, file):
        await to_thread.run_sync(delete_path, file)
    give_up = anyio.current_time() + _LOCK_GIVE_UP_S
    while (held := file_lock.take(file, mode)) is None:
        if anyio.current_time() > give_up:
            raise TimeoutError(
                f"{file} has been locked by another process for {_LOCK_GIVE_UP_S} s. End that process, then call again."
            )
        await anyio.sleep(_LOCK_PAUSE_S)
    try:
        yield held
    finally:
        os.close(held)


async def _find_lock_mode(common_dir: str) -> int:
    """Return the lock file's mode, which follows core.sharedRepository.

    Every user who may write to the repository can take the lock.
    """
    try:
        sharing = await read_shared_repository(common_dir)
    except (CallerError, GitError):  # the next git call reports the error in the configuration
        return 0o600
    if sharing.lower() in ("all", "world", "everybody", "2"):
        return 0o666
    if sharing.lower() in ("group", "true", "yes", "on", "1", ""):
        return 0o660
    try:
        mode = int(sharing, 8)
    except ValueError:
        return 0o600
    writers = mode & 0o022
    return 0o600 | writers | writers << 1  # writers open the file to read and write; readers need no lock


def _is_free_or_file(path: Path) -> bool:
    """Return whether `path` doesn't exist or is a regular file, not a symlink."""
    return path.is_file() and not path.is_symlink() if os.path.lexists(path) else True


# -- making a worktree


async def make(common_dir: str, path: Path, branch: str, base: str, owner: str, *, like: Path | None = None) -> str:
    """Make a worktree on a new branch at `base`. This is idempotent for one `owner`.

    Returns:
        The branch, with a numeric suffix if somebody else has a branch of this name.

    Args:
        like: A checkout whose sparse checkout is copied; `None` for all files.

    Raises:
        GitError: git failed. Neither the worktree nor the branch is left.
        CallerError: Something that belongs to somebody else is at `path`, or the disk is full.
    """
    if existing := await to_thread.run_sync(_find_complete, common_dir, path, owner):
        return existing
    made = await _make_branch(common_dir, branch, base, owner)
    try:
        await register(common_dir, path, made)
        if folder := await to_thread.run_sync(git_folder, common_dir, path):
            await sparse_checkout.follow(common_dir, folder, like)
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
    """Return whether the disk of `path` is full. git's own errors don't say so."""
    disk = os.statvfs(next(one for one in path.parents if one.exists()))
    return disk.f_bavail * disk.f_frsize < _ROOM or (disk.f_files > 0 and disk.f_favail == 0)


def _find_complete(common_dir: str, path: Path, owner: str) -> str | None:
    """Return the branch of the complete worktree of `owner` at `path`, or `None`.

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
    """Create a branch for `owner`, or find the branch that was created before.

    Returns:
        The first usable name of `branch`, `branch-2`, and so on.
    """
    why = f"forkjoin: created for {owner}"
    for name in (branch, *(f"{branch}-{n}" for n in range(2, 100))):
        ref = f"refs/heads/{name}"
        try:
            await update_refs(common_dir, [f"create {ref} {base}"], why)
            return name
        except GitError as error:
            is_below = f"'{ref}/" in error.stderr
            if not (
                is_below or await find_tip(common_dir, ref) or await find_symbolic_target(common_dir, ref) is not None
            ):
                raise
        if await find_tip(common_dir, ref) and await _was_created_by(common_dir, ref, why):
            return name
    raise CallerError(f"The branches {branch} to {branch}-99 all exist. Delete some of them, or choose another name.")


async def _was_created_by(common_dir: str, ref: str, why: str) -> bool:
    _, out, _ = await git.run(common_dir, "log", "--walk-reflogs", "--format=%gs", ref, "--")
    return os.fsdecode(out).removesuffix("\n").split("\n")[-1].split() == why.split()  # git collapses spaces


async def register(common_dir: str, path: Path, start: str, *options: str) -> None:
    """Run `git worktree add --no-checkout` on a branch or at a commit.

    Try again if git loses a race.
    """
    arguments = ("worktree", "add", "--quiet", "--no-checkout", *options, "--", str(path), start)
    async with lock_worktree_list(common_dir) as held:
        for left in reversed(range(_TRIES)):
            await to_thread.run_sync(_clear, common_dir, path)
            await to_thread.run_sync(_drop_pipes, common_dir)
            await to_thread.run_sync(lambda: path.parent.mkdir(mode=0o700, parents=True, exist_ok=True))
            try:
                await git.output(common_dir, *arguments, pass_fds=(held,))
                await to_thread.run_sync(_open_to_others, common_dir, path, await _find_lock_mode(common_dir))
                return
            except GitError:
                if not left:
                    raise
            await anyio.sleep(_REST_S)


def _open_to_others(common_dir: str, path: Path, mode: int) -> None:
    """Let all users who share the repository access a worktree's git folder.

    Their `git gc` reads the folder and locks its HEAD. git sets the modes of `refs` and HEAD itself, but leaves the
    other modes to the umask (builtin/worktree.c).
    """
    if (mode := mode & 0o077) and (folder := git_folder(common_dir, path)):
        for file in (folder, folder / "gitdir", folder / "commondir"):
            enter = mode >> 2 & 0o011 if file == folder else 0
            file.chmod(stat.S_IMODE(file.stat().st_mode) | mode | enter)


def _drop_pipes(common_dir: str) -> None:
    """Remove pipes from worktrees' git folders, since git would block on them."""
    for file in Path(common_dir, "worktrees").glob("*/*"):
        if file.name in _READ_OF_EACH and is_irregular(file):
            log.warning("Removed %s: it is not a regular file, and git would block on it", file)
            delete_path(file)


def repair_gitdir_file(common_dir: str, path: Path) -> None:
    """Restore a missing or unreadable `gitdir` file in a worktree's git folder."""
    folder = Path(common_dir, "worktrees", path.name)
    link = folder / "gitdir"
    if is_folder(folder) and read_ready_mark(folder) and worktree_path_of(folder) is None:
        delete_path(link)
        link.write_bytes(os.fsencode(f"{path}/.git\n"))


def mark(common_dir: str, path: Path, owner: str, branch: str) -> None:
    """Write the ready mark: the worktree at `path` is complete. Blocks."""
    folder = git_folder(common_dir, path)
    if folder is None:
        raise FileNotFoundError(f"{path} is no longer a worktree of {common_dir}")
    write_atomically(folder / MARK, f"{owner}\0{branch}".encode(), mode=None)


def read_ready_mark(folder: Path) -> tuple[str, str] | None:
    """Return the owner and branch of a complete worktree, or `None`."""
    with contextlib.suppress(OSError):
        if (content := read_regular(folder / MARK, _MARK_LIMIT)) is not None:
            owner, _, branch = os.fsdecode(content).partition("\0")
            return owner, branch
    return None


async def discard(common_dir: str, path: Path, branch: str, base: str) -> None:
    """Remove a worktree in which no program has run, with its branch.

    Keep a branch that has new commits.
    """
    with CancelScope(shield=True):
        with contextlib.suppress(OSError):
            await remove(common_dir, path)
        with contextlib.suppress(GitError):  # the branch has commits of an agent
            await update_refs(common_dir, [f"delete refs/heads/{branch} {base}"], "forkjoin: removed")


# -- removing a worktree


async def remove(common_dir: str, path: Path) -> None:
    """Remove the worktree at `path` with everything in it.

    Its branch stays. This is idempotent. A worktree that is locked with `git worktree lock` is removed too. The lock
    only protects a missing worktree from pruning, and an agent may have set it.
    """
    if await to_thread.run_sync(is_gone, Path(common_dir)):  # the repository is gone
        await to_thread.run_sync(_clear, common_dir, path)
        return
    async with lock_worktree_list(common_dir):
        if folder := await to_thread.run_sync(git_folder, common_dir, path):
            await to_thread.run_sync(_begin_to_go, folder)
        for _, folder in await to_thread.run_sync(find_nested_worktrees, common_dir, path):
            await to_thread.run_sync(_drop, folder)
        await to_thread.run_sync(_clear, common_dir, path)


def removal_began_at(common_dir: str, path: Path) -> float | None:
    """Return the timestamp at which the worktree's removal began.

    Return `None` if no removal has begun, or if it is finished.
    """
    folder = git_folder(common_dir, path)
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(folder / _GOING).st_mtime if folder else None
    return None


def _clear(common_dir: str, path: Path) -> None:
    """Delete a worktree and its git folder, as `git worktree remove -f -f` does."""
    folder = git_folder(common_dir, path)
    if folder:
        _begin_to_go(folder)
    delete_path(path)
    if folder:
        _drop(folder)
        with contextlib.suppress(OSError):  # other worktrees are registered
            folder.parent.rmdir()


def _begin_to_go(folder: Path) -> None:
    """Rename the ready mark to note that removal has begun, and when."""
    with contextlib.suppress(FileNotFoundError):  # there was no mark, or it is renamed already
        os.utime(folder / MARK, follow_symlinks=False)
        (folder / MARK).rename(folder / _GOING)  # works on a full disk too


def _drop(folder: Path) -> None:
    """Delete a worktree's git folder.

    The files that git reads go last, so an interruption leaves no broken folder.
    """
    while folder.exists():  # a concurrent git gc may prune it too
        with contextlib.suppress(FileNotFoundError):
            if not folder.is_symlink():
                last = (*_READ_OF_EACH, _GOING)
                for entry in sorted(folder.iterdir(), key=lambda entry: (entry.name in last, entry.name != "gitdir")):
                    delete_path(entry)
            delete_path(folder)


def delete_path(path: Path) -> None:
    """Delete the file, symlink or folder at `path`, including read-only folders.

    Do nothing if nothing is there.
    """
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(NotADirectoryError):  # a parent is a file, as with reftable
            path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        path.chmod(stat.S_IRWXU)
        for above, names, _ in os.walk(path):
            for folder in (Path(above, name) for name in names):
                if not folder.is_symlink():
                    folder.chmod(stat.S_IRWXU)
        shutil.rmtree(path)


async def delete_branch(common_dir: str, branch: str, tip: str | None) -> None:
    """Delete a branch at `tip`, or a symbolic ref of its name, if it exists.

    Raises:
        GitError: The branch is at another commit.
    """
    ref = f"refs/heads/{branch}"
    if await find_tip(common_dir, ref) is not None:
        await update_refs(common_dir, [f"delete {ref} {tip}"], "forkjoin: removed")
    else:
        await delete_symbolic_ref(common_dir, ref)


async def delete_symbolic_ref(common_dir: str, ref: str) -> str | None:
    """Delete a symbolic ref, but not the ref that it points to.

    Returns:
        The ref that it pointed to, or "" if it was damaged; `None` if there is no symbolic ref.
    """
    target = await find_symbolic_target(common_dir, ref)
    if target is not None:
        await update_refs(common_dir, [f"delete {ref}"], "forkjoin: removed")
    return target
