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
    """Detach an idle worktree from all branches except its agent's. Keep its files.

    Worktrees that the agent has made inside the worktree are detached too. A rebase or bisection that occupies another
    branch is ended. The stash of a merge or rebase is kept under refs/forkjoin/kept/.

    Returns:
        Warnings for the lead.
    """
    place = await find_registered_worktree(common_dir, worktree)
    if place is None:
        return []
    within = await to_thread.run_sync(find_within, common_dir, worktree)
    warnings: list[str] = []
    nested = [RegisteredWorktree(common_dir, folder, path) for path, folder in within.linked]
    for worktree_place in (place, *nested):
        try:
            await _release(worktree_place, f"refs/heads/{branch}", keep_as, warnings)
        except (GitError, OSError) as error:
            warnings.append(f"The worktree may still have another branch checked out: {error}.")
    return warnings


async def _release(place: RegisteredWorktree, own: str, keep_as: str, warnings: list[str]) -> None:
    if other := await _find_other(place, own):
        await _detach(place, own)
        warnings.append(
            f"The agent had left {short_name(other)} checked out; its worktree was detached from that branch."
        )
    for stash in await to_thread.run_sync(_find_stashes, place.folder):
        if commit := await resolve_commit(place.common_dir, stash):
            ref = await kept_refs.keep_commit(place.common_dir, commit, f"stash-{keep_as}")
            warnings.append(f"The stash of a merge or rebase in progress is kept as {ref}.")
    for name in await to_thread.run_sync(_find_operations, place.folder, own):
        for left in place.folder.glob(name):
            await to_thread.run_sync(delete_path, left)
        operation = "bisection" if name.startswith("BISECT") else "rebase"
        warnings.append(f"The agent had a {operation} of another branch in progress. The {operation} was ended.")


def _find_stashes(folder: Path) -> list[str]:
    """Return the stash commits that operations in progress refer to."""
    found = (read_line(folder / name) for name in STASHES)
    return [line for line in found if line and _OBJECT.fullmatch(line)]


async def _find_other(place: RegisteredWorktree, own: str) -> str | None:
    """Return the branch that HEAD is on.

    Return `None` if HEAD is detached or on the agent's own branch.
    """
    head = await to_thread.run_sync(read_line, place.folder / "HEAD")
    if head == f"ref: {own}" or (head and _OBJECT.fullmatch(head)):
        return None
    _, out, _ = await git.run(
        place.folder, "symbolic-ref", "--quiet", "HEAD"
    )  # the file HEAD is a placeholder with a reftable
    branch = os.fsdecode(out).removesuffix("\n")
    return branch if branch not in ("", own) else None


async def _detach(place: RegisteredWorktree, own: str) -> None:
    """Detach HEAD at its commit, or at the agent's tip if HEAD's branch is unborn."""
    commit = await resolve_commit(place.folder, "HEAD") or await find_tip(place.common_dir, own)
    if commit:
        await to_thread.run_sync(delete_path, place.folder / "HEAD.lock")
        lines = ["option no-deref", f"update HEAD {commit}"]
        await update_refs(place.common_dir, lines, "forkjoin: detached", extra={"GIT_DIR": str(place.folder)})


def _find_operations(folder: Path, own: str) -> list[str]:
    """Return the names of the operations in progress that occupy another branch.

    Each name is a glob pattern for the operation's files in the git folder.
    """
    found: list[str] = []
    for name, operation in _OPERATIONS.items():
        with contextlib.suppress(OSError):
            lines = os.fsdecode(read_regular(folder / name, _LIMIT) or b"").splitlines()
            # BISECT_START has short branch names. The file update-refs has object ids between the refs.
            held = (line if line.startswith("refs/") else f"refs/heads/{line}" for line in lines)
            objects = (f"refs/heads/{line}" for line in lines if _OBJECT.fullmatch(line))
            others = {*held} - {own, "refs/heads/", "refs/heads/detached HEAD", *objects}
            found += [operation] * bool(others and operation not in found)
    return found
