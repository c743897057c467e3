"""Worktrees: made on a branch of their own, and taken away again.

`git worktree add` races with itself and with `git fetch`: one lock per repository, in its git folder, keeps us and
every other forkjoin apart. What we create says so in its branch's reflog, so that an attempt to create it again, after
a crash, finds its own and nobody else's.
"""

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from anyio import to_thread

from forkjoin.branch import git
from forkjoin.error import CallerError, GitError

_LOCK_PAUSE_S = 0.005
_LOCK_GIVE_UP_S = 120
#: How often a worktree is tried again when git lost a race against somebody else's git.
_TRIES = 5


@contextlib.asynccontextmanager
async def registering(common_dir: str) -> AsyncIterator[None]:
    """Hold the repository's lock on its list of worktrees, across processes."""
    descriptor = os.open(Path(common_dir) / "forkjoin.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with anyio.fail_after(_LOCK_GIVE_UP_S):
            while not _try_lock(descriptor):
                await anyio.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def make(common_dir: str, path: Path, branch: str, base: str, owner: str) -> str:
    """Make a worktree at `path` on a new branch at `base`; doing so twice for one `owner` is harmless.

    Returns:
        The branch: the one asked for, or one with a suffix where that was somebody else's.

    Raises:
        GitError: git would not; then neither worktree nor branch is left.
    """
    made = await _make_branch(common_dir, branch, base, owner)
    try:
        await _register(common_dir, path, made)
        await git.git(path, "reset", "--quiet", "--hard")
    except (GitError, OSError):
        with anyio.CancelScope(shield=True):
            await remove(common_dir, path)
            await _delete_branch(common_dir, made, base)
        raise
    return made


async def _make_branch(common_dir: str, branch: str, base: str, owner: str) -> str:
    """Create a branch for `owner`, or find that it was; the first of `branch`, `branch-2`, … that is free or its."""
    why = f"forkjoin: created for {owner}"
    for name in (branch, *(f"{branch}-{n}" for n in range(2, 100))):
        ref = f"refs/heads/{name}"
        if await git.tip(common_dir, ref) is None:
            try:
                await git.update_refs(common_dir, [f"create {ref} {base}"], why)
                return name
            except GitError:
                if await git.tip(common_dir, ref) is None:
                    raise
        if await _was_created_by(common_dir, ref, why):
            return name
    raise CallerError(f"The branches {branch} to {branch}-99 all exist; delete some, or give another name.")


async def _was_created_by(common_dir: str, ref: str, why: str) -> bool:
    _, out, _ = await git.run(common_dir, "log", "--walk-reflogs", "--format=%gs", ref, "--")
    return out.decode(errors="replace").splitlines()[-1:] == [why]


async def _register(common_dir: str, path: Path, branch: str) -> None:
    """`git worktree add --no-checkout`, once more where a race was lost."""
    for left in reversed(range(_TRIES)):
        async with registering(common_dir):
            if await _stands(path, branch):
                return
            await to_thread.run_sync(_clear, path)
            await git.git(common_dir, "worktree", "prune")
            try:
                await git.git(common_dir, "worktree", "add", "--quiet", "--no-checkout", "--", str(path), branch)
                return
            except GitError:
                if not left:
                    raise


async def _stands(path: Path, branch: str) -> bool:
    if not (path / ".git").exists():
        return False
    code, out, _ = await git.run(path, "symbolic-ref", "--quiet", "HEAD")
    return code == 0 and out.decode().strip() == f"refs/heads/{branch}"


async def make_detached(common_dir: str, path: Path, commit: str) -> None:
    """Make a scratch worktree at `path`, on no branch; doing so twice is harmless."""
    await remove(common_dir, path)
    async with registering(common_dir):
        await git.git(common_dir, "worktree", "add", "--quiet", "--detach", "--no-checkout", "--", str(path), commit)
    await switch_detached(path, commit)


async def switch_detached(path: Path, commit: str) -> None:
    """Give a scratch worktree exactly the files of `commit`; ignored ones (caches, dependencies) stay."""
    await git.git(path, "update-ref", "--no-deref", "HEAD", commit)
    await git.git(path, "reset", "--quiet", "--hard")
    await git.git(path, "clean", "--quiet", "-ffd")


async def remove(common_dir: str, path: Path) -> None:
    """Take the worktree at `path` away with all that is in it; its branch stays. Doing so twice is harmless."""
    async with registering(common_dir):
        await to_thread.run_sync(_clear, path)
        await git.git(common_dir, "worktree", "prune")


async def _delete_branch(common_dir: str, branch: str, tip: str) -> None:
    with contextlib.suppress(GitError):
        await git.update_refs(common_dir, [f"delete refs/heads/{branch} {tip}"], "forkjoin: removed")


async def retire_branch(common_dir: str, branch: str, keep_as: str | None) -> str | None:
    """Delete a branch; with `keep_as`, its commit stays reachable under refs/forkjoin/kept/. The commit, if any."""
    ref = f"refs/heads/{branch}"
    tip = await git.tip(common_dir, ref)
    if tip is None:
        return None
    kept = [f"update refs/forkjoin/kept/{keep_as} {tip}"] if keep_as else []
    await git.update_refs(common_dir, [*kept, f"delete {ref} {tip}"], "forkjoin: removed")
    return tip


def _clear(path: Path) -> None:
    """Remove a folder, read-only ones in it too; a symlink in its place is unlinked, never followed."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, onerror=_make_writable)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _make_writable(function: object, name: str, _: object) -> None:
    """What rmtree calls where it may not remove: open the folder to ourselves and go on."""
    parent = Path(name).parent
    for folder in (parent, Path(name)):
        if not folder.is_symlink() and folder.is_dir():
            folder.chmod(stat.S_IRWXU)
    if Path(name).is_dir() and not Path(name).is_symlink():
        shutil.rmtree(name)
    elif callable(function):
        function(name)
