"""Commits of the uncommitted work in an agent's worktree, in any state that its program left the worktree in.

Only the agent's own branch is moved. Commits that the branch can't take are kept under refs/forkjoin/kept/.
"""

import contextlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import CallerError, GitRefusedError
from forkjoin.core.regular_file import is_gone
from forkjoin.git import kept_refs
from forkjoin.git.changed_paths import changes_between
from forkjoin.git.commit_identity import find_fallback_identity
from forkjoin.git.file_names import printable_list
from forkjoin.git.refs import (
    describe_symbolic_target,
    find_symbolic_target,
    find_tip,
    is_ancestor,
    resolve_commit,
    update_refs,
)
from forkjoin.git.worktrees import head_reflog, merge_in_worktree
from forkjoin.git.worktrees.checkout import find_checkout
from forkjoin.git.worktrees.falsely_changed_files import omit_untouched_files
from forkjoin.git.worktrees.files_shared_from_checkout import shared
from forkjoin.git.worktrees.included_files import included
from forkjoin.git.worktrees.staging import Status, read_status, stage
from forkjoin.git.worktrees.worktree import delete_path, delete_symbolic_ref, repair_gitdir_file
from forkjoin.git.worktrees.worktree_folder import (
    RegisteredWorktree,
    find_registered_worktree,
    is_folder,
    is_linked,
    remove_pipes,
)
from forkjoin.git.worktrees.worktree_repair import repair_git_folder


@dataclass(frozen=True, slots=True)
class AutocommitResult:
    """The state of an agent's branch after its uncommitted work was committed."""

    tip: str | None  #: the branch's commit; `None` if the branch is gone
    uncommitted: int  #: how many uncommitted paths were committed
    warnings: list[str]  #: sentences for the lead
    conflicts: list[str] = field(default_factory=list[str])  #: paths with unresolved conflicts
    refused: list[str] = field(default_factory=list[str])  #: uncommitted paths that git can't take


async def commit_uncommitted_work(
    common_dir: str, worktree: Path, branch: str, message: str, keep_as: str, *, set_up: bytes = b""
) -> AutocommitResult:
    """Commit all uncommitted and untracked files to `branch`. This is idempotent.

    Work that `branch` can't take, because the agent moved it elsewhere, is kept under refs/forkjoin/kept/`keep_as`.

    Args:
        set_up: The recorded state of the files that setup left, which are not the agent's work.
    """
    await to_thread.run_sync(repair_gitdir_file, common_dir, worktree)
    place = await find_registered_worktree(common_dir, worktree)
    if place is None:
        warnings = await _drop_symbolic(common_dir, None, branch)
        warnings.append("git no longer knows the agent's worktree: only the commits on its branch are left.")
        return AutocommitResult(await find_tip(common_dir, f"refs/heads/{branch}"), 0, warnings)
    warnings = await to_thread.run_sync(_repair, place, branch)
    if not await to_thread.run_sync(is_folder, worktree):
        warnings += await _drop_symbolic(common_dir, place, branch)
        head = await resolve_commit(place.folder, "HEAD")
        return AutocommitResult(await _move_branch_to(place, branch, head, keep_as, warnings), 0, warnings)
    status = await _read_whole_status(place, warnings)
    if status.branch != branch and (symbolic := await _drop_symbolic(common_dir, place, branch)):
        warnings += symbolic
        status = await _read_whole_status(place, warnings)
    status = await omit_untouched_files(place, status, set_up)
    status = replace(status, unmerged=await merge_in_worktree.find_unresolved(place, status.unmerged))
    is_home = status.head and status.branch == branch
    warnings += await to_thread.run_sync(_warn_of_moves, place, branch, status)
    theirs = await _find_commit_to_merge(place, status)
    head, committed = await _commit(place, status, theirs, branch, message, warnings)
    tip = head if is_home else await _move_branch_to(place, branch, head, keep_as, warnings)
    warnings += [*await _keep_detached(place, keep_as), *await _describe_remaining_files(place, status)]
    now = await omit_untouched_files(place, await read_status(place), set_up) if status.uncommitted else status
    refused = [
        path for path in now.uncommitted if path not in now.repositories
    ]  # nested repositories are never committed
    return AutocommitResult(tip, committed, warnings, status.unmerged, refused)


async def is_at(
    common_dir: str, worktree: Path, commit: str | None, *, or_less: bool = False, set_up: bytes = b""
) -> bool:
    """Return whether a worktree has only this commit and ignored files, or is gone.

    Args:
        or_less: Whether files of the commit may be missing.
        set_up: As for `commit_uncommitted_work`.
    """
    place = await find_registered_worktree(common_dir, worktree)
    if place is None or not await to_thread.run_sync(is_folder, worktree):
        return True
    status = await omit_untouched_files(place, await read_status(place), set_up)
    different = status.uncommitted
    if or_less:
        different = await to_thread.run_sync(_existing, worktree, different)
    return status.head == commit and not different and not status.repositories


def _existing(worktree: Path, names: list[str]) -> list[str]:
    return [name for name in names if not is_gone(worktree / name)]


async def repair(common_dir: str, worktree: Path, branch: str) -> None:
    """Remove lock files and pipes that keep git from working in a worktree.

    The agent's program may have been killed and left them. No program may be running in the worktree.
    """
    await to_thread.run_sync(repair_gitdir_file, common_dir, worktree)
    if place := await find_registered_worktree(common_dir, worktree):
        await to_thread.run_sync(_repair, place, branch)


def _repair(place: RegisteredWorktree, branch: str) -> list[str]:
    """Restore a missing `.git`, and remove locks and pipes.

    No program may be running. Return warnings.
    """
    for lock in ("index.lock", "HEAD.lock", f"{place.common_dir}/refs/heads/{branch}.lock"):
        delete_path(place.folder / lock)
    warnings = repair_git_folder(place, branch)
    if not is_folder(place.path):
        return [*warnings, "The agent removed its worktree: only its commits are left."]
    if pipes := remove_pipes(place.path):
        warnings.append(f"The agent left pipes that git would wait for, which were removed: {printable_list(pipes)}.")
    link = place.path / ".git"
    if not link.exists() and not link.is_symlink():
        link.write_bytes(b"gitdir: %s\n" % os.fsencode(place.folder))
        warnings.append(
            "The agent removed .git from its worktree; it was put back, and the files there were committed."
        )
    elif not is_linked(place.path, place.folder):
        warnings.append(
            "The agent replaced .git in its worktree: the files there were committed, but no commit of that .git."
        )
    return warnings


async def _read_whole_status(place: RegisteredWorktree, warnings: list[str]) -> Status:
    """Return the worktree's status. Rebuild a damaged index first, and add a warning."""
    index = place.folder / "index"
    if await to_thread.run_sync(index.exists):
        with contextlib.suppress(GitRefusedError):
            return await read_status(place)
    await to_thread.run_sync(lambda: index.unlink(missing_ok=True))
    if await resolve_commit(place.folder, "HEAD"):
        await place.git("read-tree", "HEAD")
    warnings.append("The index of the agent's worktree was damaged; it was rebuilt from its last commit.")
    return await read_status(place)


async def _drop_symbolic(common_dir: str, place: RegisteredWorktree | None, branch: str) -> list[str]:
    """Delete a symbolic ref at the agent's branch. Detach HEAD at its last commit.

    Returns:
        A warning for the lead, if there was such a ref.
    """
    ref = f"refs/heads/{branch}"
    target = await find_symbolic_target(common_dir, ref)
    if target is None:
        return []
    if place and (last := await _last_head(place)):
        await update_refs(
            common_dir, [f"update HEAD {last}"], "forkjoin: left a symbolic branch", extra=place.variables
        )
    await delete_symbolic_ref(common_dir, ref)
    return [f"The agent's branch was {describe_symbolic_target(target)}."]


# -- committing


async def _find_commit_to_merge(place: RegisteredWorktree, status: Status) -> str | None:
    """Return the commit of a resolved merge in progress.

    End an unresolved merge, and return `None`.
    """
    theirs = await merge_in_worktree.find_merged_commit(place)
    if theirs and (status.unmerged or (status.head and await is_ancestor(place.common_dir, theirs, status.head))):
        await to_thread.run_sync(merge_in_worktree.end, place)
        return None
    return theirs


async def _commit(
    place: RegisteredWorktree, status: Status, theirs: str | None, branch: str, message: str, warnings: list[str]
) -> tuple[str, int]:
    """Commit uncommitted work and a resolved merge onto HEAD.

    Return HEAD's commit, and how many paths it took.
    """
    parent = status.head or await _last_head(place)
    if parent and not status.uncommitted and not theirs:
        return parent, 0
    if status.branch not in (None, branch):  # another worktree may have moved that branch
        parent = await _last_head(place, with_reason=True) or parent
    tree = await stage(place, status, warnings)
    committed = len(await changes_between(place.common_dir, parent, tree) if parent else status.uncommitted)
    if parent and not committed and not theirs:
        return parent, 0
    who = await find_fallback_identity(place.common_dir)
    parents = [f"-p{one}" for one in (parent, theirs) if one]
    tip = await place.git("commit-tree", *parents, "-m", message, tree, extra=who)
    await _move_head(place, status, branch, tip)
    if theirs:
        await to_thread.run_sync(merge_in_worktree.end, place)
        warnings.append("The merge that was under way was committed for the agent.")
    if committed:
        verb = "path was" if committed == 1 else "paths were"
        warnings.append(f"{committed} uncommitted {verb} committed for the agent.")
    if status.unmerged:
        warnings.append(f"They were in the middle of a merge, with conflicts in: {printable_list(status.unmerged)}.")
    return tip, committed


async def _move_head(place: RegisteredWorktree, status: Status, branch: str, tip: str) -> None:
    """Move HEAD to `tip`, with the agent's own branch.

    Detach HEAD from any other branch, which must not move.
    """
    if status.branch != branch:
        lines = ["option no-deref", f"update HEAD {tip}"]
    elif status.head:
        lines = [f"update refs/heads/{branch} {tip} {status.head}"]
    else:  # HEAD is on a deleted branch, which is restored later
        return
    await update_refs(place.common_dir, lines, "forkjoin: uncommitted work", extra=place.variables)


def _warn_of_moves(place: RegisteredWorktree, branch: str, status: Status) -> list[str]:
    """Return warnings if the agent's branch was moved or deleted while HEAD was on it."""
    tip = status.head if status.branch == branch else None
    moves = head_reflog.find_moves(place, branch, tip, differs=bool(status.uncommitted))
    deleted = [
        f"Its branch {branch} was deleted at {old[:12]} while it ran: its later commits don't contain that commit."
        for old, new in moves
        if not new.strip("0")
    ]
    moved = printable_list([f"from {old[:12]} to {new[:12]}" for old, new in moves if new.strip("0")])
    return deleted + (
        [f"Its branch {branch} was moved from outside its worktree, {moved}: look at both."] if moved else []
    )


async def _last_head(place: RegisteredWorktree, *, with_reason: bool = False) -> str | None:
    """Return the last commit in HEAD's reflog, which outlives the branch, or `None`.

    Args:
        with_reason: Omit entries without a reason. They only pointed HEAD to another branch, and the files stayed.
    """
    entries = [one for one in await head_reflog.read_log(place) if one.why or not with_reason]
    commit = next((name for one in reversed(entries) for name in (one.new, one.old) if name.strip("0")), None)
    return await resolve_commit(place.common_dir, commit) if commit else None


async def _move_branch_to(
    place: RegisteredWorktree, branch: str, tip: str | None, keep_as: str, warnings: list[str]
) -> str | None:
    """Move the agent's branch to the last commit `tip`, or keep that commit elsewhere.

    Return the branch's tip.
    """
    ref = f"refs/heads/{branch}"
    now = await find_tip(place.common_dir, ref)
    if tip is None or (now and await is_ancestor(place.common_dir, tip, now)):
        return now
    if now is None and await _restore_branch(place, ref, tip):
        warnings.append("The agent's branch was gone; it was created again at the agent's last commit.")
        return tip
    if now and await is_ancestor(place.common_dir, now, tip) and await _may_move(place, ref):
        await update_refs(place.common_dir, [f"update {ref} {tip} {now}"], "forkjoin: moved to the last commit")
        warnings.append("The agent worked off its branch; the branch was moved to its last commit.")
        return tip
    kept_as = await kept_refs.keep_commit(place.common_dir, tip, keep_as)
    warnings.append(f"The agent's HEAD had left its branch; its commit is kept as {kept_as}, and is not merged.")
    return now


async def _restore_branch(place: RegisteredWorktree, ref: str, tip: str) -> bool:
    """Create a deleted branch again.

    Return False if a branch whose name is a prefix or extension is in the way.
    """
    try:
        await update_refs(place.common_dir, [f"create {ref} {tip}"], "forkjoin: restored")
    except GitRefusedError:
        return False
    return True


async def _may_move(place: RegisteredWorktree, ref: str) -> bool:
    """Return whether no other worktree has the agent's branch checked out."""
    try:
        return await find_checkout(place.common_dir, ref) in (None, str(place.path))
    except CallerError:
        return False


async def keep_abandoned_commits(common_dir: str, worktree: Path, branch: str, tip: str | None, keep_as: str) -> None:
    """Keep the commits that a reset, amend or rebase by the agent has abandoned.

    Call this before the agent's worktree is removed.

    Raises:
        GitError: The commits can't be read.
    """
    if place := await find_registered_worktree(common_dir, worktree):
        await head_reflog.keep_abandoned_commits(place, branch, tip, keep_as)


async def _keep_detached(place: RegisteredWorktree, keep_as: str) -> list[str]:
    """Keep the commits that the agent made on a detached HEAD and left.

    Return a warning if there are any.
    """
    try:
        ref = await head_reflog.keep_detached_commits(place, keep_as)
    except GitRefusedError as error:
        return [f"Commits that the agent made on no branch can't be read: {error.last_line}."]
    return [f"Commits that the agent made on no branch are kept, and not merged: {ref}."] if ref else []


# -- files that stay in the worktree


async def _describe_remaining_files(place: RegisteredWorktree, status: Status) -> list[str]:
    warnings: list[str] = []
    if status.repositories:
        warnings.append(
            f"Repositories within the worktree stay there, and are not merged: {printable_list(status.repositories)}."
        )
    if status.ignored:
        copied = {*await included(place.path, place.variables), *await to_thread.run_sync(shared, place)}
        if names := [name for name in status.ignored if name.removesuffix("/") not in copied]:
            warnings.append(f"Ignored files stay in the worktree and are not merged: {printable_list(names)}.")
    return warnings
