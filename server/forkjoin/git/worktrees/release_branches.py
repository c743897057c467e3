"""Release of branches: an ended agent's worktree keeps no branch checked out except the agent's own."""

import contextlib
import os
import re
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError
from forkjoin.core.regular_file import read_line, read_regular
from forkjoin.git import kept_refs
from forkjoin.git.refs import find_tip, resolve_commit, short_name, update_refs
from forkjoin.git.symbolic_head import follow_head
from forkjoin.git.worktrees.checkout import REBASE_FILES
from forkjoin.git.worktrees.delete_path import delete_path
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, find_nested_worktrees, find_registered_worktree

#: For each file that names the branch of an operation in progress: what must be deleted to release that branch. The
#: names of files are relative to the git folder.
_OPERATIONS = {**{name: str(Path(name).parent) for name in REBASE_FILES}, "BISECT_START": "BISECT_*"}
#: Files that name the stash of an operation (--autostash of git-merge(1) and git-rebase(1)).
STASHES = ("MERGE_AUTOSTASH", "rebase-merge/autostash", "rebase-apply/autostash")
_LIMIT = 64 * 1024
_OBJECT = re.compile(r"[0-9a-f]{40,64}")


async def release_other_branches(common_dir: str, worktree: Path, branch: str, keep_as: str) -> list[str]:
    """Detach a worktree from every branch except its agent's own.

    Don't change its files. Worktrees that the agent made inside its worktree are detached too. If a rebase or bisection
    of another branch is in progress, end it. The stash of a merge or rebase in progress is kept under
    refs/forkjoin/kept/.

    Args:
        common_dir: The common git folder of the repository.
        worktree: The agent's worktree. The caller ensures that no program runs there.
        branch: The short name of the agent's branch.
        keep_as: A name for the refs that keep stashes.

    Returns:
        Warnings for the lead, e.g. for each released branch.
    """
    place = await find_registered_worktree(common_dir, worktree)
    if place is None:
        return []
    found = await to_thread.run_sync(find_nested_worktrees, common_dir, worktree)
    nested = [RegisteredWorktree(common_dir, folder, path) for path, folder in found]
    warnings: list[str] = []
    for worktree_place in (place, *nested):
        try:
            await _release(worktree_place, f"refs/heads/{branch}", keep_as, warnings)
        except (GitError, OSError) as error:
            warnings.append(f"The worktree may still have another branch checked out: {error}.")
    return warnings


async def _release(place: RegisteredWorktree, own: str, keep_as: str, warnings: list[str]) -> None:
    """Release the branches of one worktree, except `own`.

    Append warnings for the lead.
    """
    head = await follow_head(place.common_dir, place.folder)
    if head and head[0] != own:
        await _detach(place, own)
        branch = short_name(head[0])
        warnings.append(f"The agent had left {branch} checked out; its worktree was detached from that branch.")
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
    """Return the ids of the stash commits that operations in progress will restore.

    Blocks.
    """
    found = (read_line(folder / name) for name in STASHES)
    return [line for line in found if line and _OBJECT.fullmatch(line)]


async def _detach(place: RegisteredWorktree, own: str) -> None:
    """Detach HEAD at its commit, or at the agent's branch if HEAD has no commit yet."""
    commit = await resolve_commit(place.folder, "HEAD") or await find_tip(place.common_dir, own)
    if commit:
        await to_thread.run_sync(delete_path, place.folder / "HEAD.lock")
        lines = ["option no-deref", f"update HEAD {commit}"]
        await update_refs(place.common_dir, lines, "forkjoin: detached", extra={"GIT_DIR": str(place.folder)})


def _find_operations(folder: Path, own: str) -> list[str]:
    """Find the operations in progress of other branches than `own`. Blocks.

    Returns:
        For each operation the glob pattern of its files in the git folder.
    """
    found: list[str] = []
    for name, operation in _OPERATIONS.items():
        with contextlib.suppress(OSError):
            lines = os.fsdecode(read_regular(folder / name, _LIMIT) or b"").splitlines()
            # BISECT_START contains a short branch name or an object id. update-refs has object ids between the refs.
            refs = (line if line.startswith("refs/") else f"refs/heads/{line}" for line in lines)
            objects = (f"refs/heads/{line}" for line in lines if _OBJECT.fullmatch(line))
            others = {*refs} - {own, "refs/heads/", "refs/heads/detached HEAD", *objects}
            found += [operation] * bool(others and operation not in found)
    return found
