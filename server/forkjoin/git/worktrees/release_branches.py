"""Release of the branches that an ended agent's worktree still has checked out."""

import contextlib
import os
import re
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError
from forkjoin.core.regular_file import read_line, read_regular
from forkjoin.git import git, kept_refs
from forkjoin.git.refs import find_tip, resolve_commit, short_name, update_refs
from forkjoin.git.worktrees.nested_repositories import find_within
from forkjoin.git.worktrees.worktree import delete_path
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, find_registered_worktree

#: Files that name the branch of an operation in progress, and what to delete to release that branch (git's branch.c).
_OPERATIONS = {
    "rebase-merge/head-name": "rebase-merge",
    "rebase-merge/update-refs": "rebase-merge",
    "rebase-apply/head-name": "rebase-apply",
    "BISECT_START": "BISECT_*",
}
#: Files that name the stash of an operation (--autostash of git-merge(1) and git-rebase(1)).
STASHES = ("MERGE_AUTOSTASH", "rebase-merge/autostash", "rebase-apply/autostash")
_LIMIT = 64 * 1024
_OBJECT = re.compile(r"[0-9a-f]{40,64}")


async def release_other_branches(common_dir: str, worktree: Path, branch: str, keep_as: str) -> list[str]:
    """Detach an idle worktree from all branches but its agent's. Keep its files.

    So are the worktrees that the agent has made within it. A rebase or bisection that holds another branch is ended.
    What git has stashed for a merge or a rebase is kept under refs/forkjoin/kept/.

    Returns:
        What the lead should know, each a sentence.
    """
    place = await find_registered_worktree(common_dir, worktree)
    if place is None:
        return []
    within = await to_thread.run_sync(find_within, common_dir, worktree)
    warnings: list[str] = []
    for one in (place, *(RegisteredWorktree(common_dir, folder, where) for where, folder in within.linked)):
        try:
            await _free(one, f"refs/heads/{branch}", keep_as, warnings)
        except (GitError, OSError) as error:
            warnings.append(f"The worktree may still have another branch checked out: {error}.")
    return warnings


async def _free(place: RegisteredWorktree, own: str, keep_as: str, warnings: list[str]) -> None:
    if other := await _find_other(place, own):
        await _detach(place, own)
        warnings.append(
            f"The agent had left {short_name(other)} checked out; its worktree was detached from that branch."
        )
    for stash in await to_thread.run_sync(_find_stashes, place.folder):
        if commit := await resolve_commit(place.common_dir, stash):
            ref = await kept_refs.keep_commit(place.common_dir, commit, f"stash-{keep_as}")
            warnings.append(f"What git had stashed for a merge or a rebase under way is kept as {ref}.")
    for name in await to_thread.run_sync(_find_operations, place.folder, own):
        for left in place.folder.glob(name):
            await to_thread.run_sync(delete_path, left)
        what = "a bisection" if name.startswith("BISECT") else "a rebase"
        warnings.append(f"The agent was in the middle of {what} of another branch, which was ended.")


def _find_stashes(folder: Path) -> list[str]:
    """Return the commits that only an operation in progress in this git folder refers to."""
    found = (read_line(folder / name) for name in STASHES)
    return [line for line in found if line and _OBJECT.fullmatch(line)]


async def _find_other(place: RegisteredWorktree, own: str) -> str | None:
    """Return the branch that HEAD is on, or `None` if HEAD is detached or on the agent's own branch."""
    head = await to_thread.run_sync(read_line, place.folder / "HEAD")
    if head == f"ref: {own}" or (head and _OBJECT.fullmatch(head)):
        return None
    _, out, _ = await git.run(place.folder, "symbolic-ref", "--quiet", "HEAD")  # of a reftable no file tells
    branch = os.fsdecode(out).removesuffix("\n")
    return branch if branch not in ("", own) else None


async def _detach(place: RegisteredWorktree, own: str) -> None:
    """Detach HEAD at its commit, or at the agent's branch if HEAD's branch is unborn."""
    commit = await resolve_commit(place.folder, "HEAD") or await find_tip(place.common_dir, own)
    if commit:
        await to_thread.run_sync(delete_path, place.folder / "HEAD.lock")
        lines = ["option no-deref", f"update HEAD {commit}"]
        await update_refs(place.common_dir, lines, "forkjoin: detached", extra={"GIT_DIR": str(place.folder)})


def _find_operations(folder: Path, own: str) -> list[str]:
    """Return the files in a git folder of operations in progress that occupy another branch."""
    found: list[str] = []
    for name, operation in _OPERATIONS.items():
        with contextlib.suppress(OSError):
            lines = os.fsdecode(read_regular(folder / name, _LIMIT) or b"").splitlines()
            # Short names are a bisection's; update-refs has objects in between.
            held = (line if line.startswith("refs/") else f"refs/heads/{line}" for line in lines)
            objects = (f"refs/heads/{line}" for line in lines if _OBJECT.fullmatch(line))
            others = {*held} - {own, "refs/heads/", "refs/heads/detached HEAD", *objects}
            found += [operation] * bool(others and operation not in found)
    return found
