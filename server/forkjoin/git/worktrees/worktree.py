"""Worktrees: made on a branch of their own, and taken away again.

`git worktree add` races with itself and with `git fetch`: one lock per repository, in its git folder, keeps us and
every other forkjoin apart. Once a worktree is ready, a mark in its own git folder says so, and whose it is; and what we
create says so in its branch's reflog. So making it again, after a crash, finds its own and nobody else's, does not
touch what a program has begun in it, and takes away what was only half made.

Only what is ours by its path goes: `git worktree prune` would take along a user's, on a disk that is not mounted now.
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
#: How often a worktree is tried again when git lost a race against somebody else's git, and after which rest.
_TRIES = 5
_REST_S = 0.02

#: Bytes: a disk with less room than this is full.
_ROOM = 1024 * 1024

#: The file in a worktree's git folder that says whose it is and what it was made ready for.
MARK = "forkjoin-ready"
_MARK_LIMIT = 8192
#: What the mark is called once the worktree's files begin to go; its time says since when.
_GOING = "forkjoin-going"
#: What git reads of each worktree when it adds one.
_READ_OF_EACH = ("HEAD", "commondir", "gitdir", "locked")


# -- the lock


@contextlib.asynccontextmanager
async def lock_worktree_list(common_dir: str) -> AsyncGenerator[int]:
    """Hold the repository's lock on its list of worktrees, across processes; its descriptor, for git to hold it too.

    Raises:
        TimeoutError: Another process has it, and keeps it.
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
    """Return the mode of the lock's file, so that all who share the repository can take it (core.sharedRepository)."""
    try:
        sharing = await read_shared_repository(common_dir)
    except (CallerError, GitError):  # what follows tells what is wrong with the configuration
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
    return 0o600 | writers | writers << 1  # those who may write; who may only read needs no lock


def _is_free_or_file(path: Path) -> bool:
    """Whether nothing is there but a file, at which nobody is led elsewhere, or waits."""
    return path.is_file() and not path.is_symlink() if os.path.lexists(path) else True


# -- an agent's


async def make(common_dir: str, path: Path, branch: str, base: str, owner: str, *, like: Path | None = None) -> str:
    """Make a worktree on a new branch at `base`. This is idempotent for one `owner`.

    The branch is the one asked for, or has a suffix where that was somebody else's.

    Args:
        like: The checkout as sparse as which it should be; without one, it has all files.

    Raises:
        GitError: git would not; then neither worktree nor branch is left.
        CallerError: Something that is not the owner's is at `path`, and stays as it is; or the disk is full.
    """
    if made := await to_thread.run_sync(_made_before, common_dir, path, owner):
        return made
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
            raise CallerError(f"The disk that {path.parent} is on is full; make room, then spawn again.") from error
        raise
    return made


def _is_full(path: Path) -> bool:
    """Whether so little room is left where `path` is that this is why git failed: it does not say so itself."""
    disk = os.statvfs(next(one for one in path.parents if one.exists()))
    return disk.f_bavail * disk.f_frsize < _ROOM or (disk.f_files > 0 and disk.f_favail == 0)


def _made_before(common_dir: str, path: Path, owner: str) -> str | None:
    """The branch that was made for `owner` with the worktree at `path`, if that is ready."""
    folder = git_folder(common_dir, path)
    stands = is_folder(path)
    if folder is None:
        if stands and any(entry.name != ".git" for entry in path.iterdir()):
            raise CallerError(f"{path} is no worktree, but there are files in it; move them away.")
        return None
    said = read_ready_mark(folder)
    if said is not None and said[0] != owner:
        raise CallerError(f"{path} is the worktree of {said[0]}; remove that first.")
    return said[1] if said and stands else None


async def _make_branch(common_dir: str, branch: str, base: str, owner: str) -> str:
    """Create a branch for `owner`, or find that it was; the first of `branch`, `branch-2`, … that is free or its."""
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
    raise CallerError(f"The branches {branch} to {branch}-99 all exist; delete some, or give another name.")


async def _was_created_by(common_dir: str, ref: str, why: str) -> bool:
    _, out, _ = await git.run(common_dir, "log", "--walk-reflogs", "--format=%gs", ref, "--")
    return os.fsdecode(out).removesuffix("\n").split("\n")[-1].split() == why.split()  # git keeps one space of many


async def register(common_dir: str, path: Path, start: str, *options: str) -> None:
    """`git worktree add --no-checkout` on a branch or at a commit, once more where a race was lost."""
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
    """Let all who share the repository read a worktree's git folder and lock its HEAD, as their `git gc` does.

    git gives `refs` and HEAD in it their due modes, but leaves these to the umask (builtin/worktree.c).
    """
    if (mode := mode & 0o077) and (folder := git_folder(common_dir, path)):
        for file in (folder, folder / "gitdir", folder / "commondir"):
            enter = mode >> 2 & 0o011 if file == folder else 0
            file.chmod(stat.S_IMODE(file.stat().st_mode) | mode | enter)


def _drop_pipes(common_dir: str) -> None:
    """Remove pipes from worktrees' git folders, since git would block on them."""
    for file in Path(common_dir, "worktrees").glob("*/*"):
        if file.name in _READ_OF_EACH and is_irregular(file):
            log.warning("%s is no file and was taken away: git would wait for it", file)
            delete_path(file)


def repair_gitdir_file(common_dir: str, path: Path) -> None:
    """See that a worktree's git folder says where the worktree is, unless it says something else."""
    folder = Path(common_dir, "worktrees", path.name)
    link = folder / "gitdir"
    if is_folder(folder) and read_ready_mark(folder) and worktree_path_of(folder) is None:
        delete_path(link)
        link.write_bytes(os.fsencode(f"{path}/.git\n"))


def mark(common_dir: str, path: Path, owner: str, made: str) -> None:
    folder = git_folder(common_dir, path)
    if folder is None:
        raise FileNotFoundError(f"{path} is no worktree of {common_dir} any more")
    write_atomically(folder / MARK, f"{owner}\0{made}".encode(), mode=None)


def read_ready_mark(folder: Path) -> tuple[str, str] | None:
    with contextlib.suppress(OSError):
        if (said := read_regular(folder / MARK, _MARK_LIMIT)) is not None:
            owner, _, made = os.fsdecode(said).partition("\0")
            return owner, made
    return None


async def discard(common_dir: str, path: Path, branch: str, base: str) -> None:
    """Take a worktree in which no program has run away again, with its branch."""
    with CancelScope(shield=True):
        with contextlib.suppress(OSError):
            await remove(common_dir, path)
        with contextlib.suppress(GitError):  # it has commits: an agent was there
            await update_refs(common_dir, [f"delete refs/heads/{branch} {base}"], "forkjoin: removed")


# -- their end


async def remove(common_dir: str, path: Path) -> None:
    """Take the worktree at `path` away with all that is in it, locked or not; its branch stays.

    Doing so twice is harmless. A lock (`git worktree lock`) does not save it: it keeps git from pruning what is gone
    only for a while, and an agent may set it; whoever removes has named this worktree.
    """
    if await to_thread.run_sync(is_gone, Path(common_dir)):  # nobody registers anything there
        await to_thread.run_sync(_clear, common_dir, path)
        return
    async with lock_worktree_list(common_dir):
        if folder := await to_thread.run_sync(git_folder, common_dir, path):
            await to_thread.run_sync(_begin_to_go, folder)
        for _, folder in await to_thread.run_sync(find_nested_worktrees, common_dir, path):
            await to_thread.run_sync(_drop, folder)
        await to_thread.run_sync(_clear, common_dir, path)


def removal_began_at(common_dir: str, path: Path) -> float | None:
    """Return when the files of the worktree at `path` began to go, if that was cut off."""
    folder = git_folder(common_dir, path)
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(folder / _GOING).st_mtime if folder else None
    return None


def _clear(common_dir: str, path: Path) -> None:
    """Leave nothing at `path` and nothing that stands for it, as `git worktree remove -f -f` does."""
    folder = git_folder(common_dir, path)
    if folder:
        _begin_to_go(folder)
    delete_path(path)
    if folder:
        _drop(folder)
        with contextlib.suppress(OSError):  # there are others
            folder.parent.rmdir()


def _begin_to_go(folder: Path) -> None:
    """Note in a worktree's git folder that the worktree is not ready any more, and since when."""
    with contextlib.suppress(FileNotFoundError):  # it never was, or that is noted
        os.utime(folder / MARK, follow_symlinks=False)
        (folder / MARK).rename(folder / _GOING)  # which needs no room on a full disk


def _drop(folder: Path) -> None:
    """Take a worktree's git folder away. As long as git finds it, it has what git reads, should this be cut off."""
    while folder.exists():  # what is half gone a gc beside us prunes, and may be quicker
        with contextlib.suppress(FileNotFoundError):
            if not folder.is_symlink():
                last = (*_READ_OF_EACH, _GOING)
                for entry in sorted(folder.iterdir(), key=lambda one: (one.name in last, one.name != "gitdir")):
                    delete_path(entry)
            delete_path(folder)


def delete_path(path: Path) -> None:
    """Leave nothing at `path`, whatever it is: of a symlink itself, of a folder the read-only ones in it too."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(NotADirectoryError):  # on the way there: refs in a table leave a file there
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
    """Delete a symbolic ref, but not what it leads to.

    Returns:
        Where it led, or "" if it was damaged; `None` if there is no such ref.
    """
    target = await find_symbolic_target(common_dir, ref)
    if target is not None:
        await update_refs(common_dir, [f"delete {ref}"], "forkjoin: removed")
    return target
