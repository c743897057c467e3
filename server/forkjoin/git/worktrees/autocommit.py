"""Autocommits: commits of the uncommitted work in an agent's worktree, in any state that its program left.

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
from forkjoin.git.worktrees.delete_path import delete_path
from forkjoin.git.worktrees.falsely_changed_files import omit_untouched_files
from forkjoin.git.worktrees.files_shared_from_checkout import read_shared_paths
from forkjoin.git.worktrees.included_files import list_included_files
from forkjoin.git.worktrees.staging import Status, read_status, stage
from forkjoin.git.worktrees.worktree import delete_symbolic_ref, repair_gitdir_file
from forkjoin.git.worktrees.worktree_folder import (
    RegisteredWorktree,
    find_registered_worktree,
    find_worktree_with_files,
    is_folder,
    is_linked,
    remove_pipes,
)
from forkjoin.git.worktrees.worktree_repair import repair_git_folder


@dataclass(frozen=True, slots=True)
class AutocommitResult:
    """The outcome of an autocommit."""

    tip: str | None  #: the commit of the agent's branch; `None` if the branch is gone
    uncommitted: int  #: the number of uncommitted paths that were committed
    warnings: list[str]  #: sentences for the lead
    conflicts: list[str] = field(default_factory=list[str])  #: paths with unresolved merge conflicts
    refused: list[str] = field(default_factory=list[str])  #: paths that are still uncommitted, because git refused them


async def commit_uncommitted_work(
    common_dir: str, worktree: Path, branch: str, message: str, keep_as: str, *, set_up: bytes = b""
) -> AutocommitResult:
    """Commit all uncommitted and untracked files in an agent's worktree.

    This is idempotent. The commit is made on top of HEAD. Then the agent's branch is moved to it. If HEAD has left the
    branch and doesn't contain it, the branch stays, and the commit is kept under refs/forkjoin/kept/`keep_as`. The
    caller ensures that no program runs in the worktree.

    Args:
        common_dir: The common git folder of the repository.
        worktree: The agent's worktree.
        branch: The short name of the agent's branch.
        message: The message of the commit.
        keep_as: The name for refs that keep commits which the branch can't take.
        set_up: The fingerprint of the files that setup wrote, which are not the agent's work (see `fingerprint`).
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
    status = await _read_repaired_status(place, warnings)
    if status.branch != branch and (symbolic := await _drop_symbolic(common_dir, place, branch)):
        warnings += symbolic
        status = await _read_repaired_status(place, warnings)
    status = await omit_untouched_files(place, status, set_up)
    status = replace(status, unmerged=await merge_in_worktree.find_unresolved(place, status.unmerged))
    is_on_branch = status.head and status.branch == branch
    warnings += await to_thread.run_sync(_warn_of_moves, place, branch, status)
    theirs = await _find_commit_to_merge(place, status)
    head, committed = await _commit(place, status, theirs, branch, message, warnings)
    tip = head if is_on_branch else await _move_branch_to(place, branch, head, keep_as, warnings)
    warnings += [*await _keep_detached(place, keep_as), *await _describe_remaining_files(place, status)]
    now = await omit_untouched_files(place, await read_status(place), set_up) if status.uncommitted else status
    refused = [path for path in now.uncommitted if path not in now.repositories]
    return AutocommitResult(tip, committed, warnings, status.unmerged, refused)


async def is_clean_at(
    common_dir: str, worktree: Path, commit: str | None, *, or_less: bool = False, set_up: bytes = b""
) -> bool:
    """Return whether a worktree is at a commit and has no uncommitted files.

    Ignored files don't count.

    Also return True if the worktree is gone.

    Args:
        common_dir: The common git folder of the repository.
        worktree: The worktree.
        commit: The id of the commit.
        or_less: Whether files of the commit may be missing.
        set_up: As for `commit_uncommitted_work`.
    """
    place = await find_worktree_with_files(common_dir, worktree)
    if place is None:
        return True
    status = await omit_untouched_files(place, await read_status(place), set_up)
    different = status.uncommitted
    if or_less:
        different = await to_thread.run_sync(lambda: [one for one in status.uncommitted if not is_gone(worktree / one)])
    return status.head == commit and not different and not status.repositories


async def repair(common_dir: str, worktree: Path, branch: str) -> None:
    """Repair a worktree and its git folder, so that git can be called there.

    An agent's program may have left lock files and pipes, or deleted `.git`. The caller ensures that no program runs in
    the worktree.
    """
    await to_thread.run_sync(repair_gitdir_file, common_dir, worktree)
    if place := await find_registered_worktree(common_dir, worktree):
        await to_thread.run_sync(_repair, place, branch)


def _repair(place: RegisteredWorktree, branch: str) -> list[str]:
    """Remove locks and pipes, repair the git folder, and restore a missing `.git`.

    Blocks. Return warnings for the lead.
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


async def _read_repaired_status(place: RegisteredWorktree, warnings: list[str]) -> Status:
    """Return the worktree's status.

    If the index is missing or damaged, rebuild it from HEAD first, and append a warning to `warnings`.
    """
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
    """Delete the agent's branch if it is a symbolic ref.

    Detach HEAD of the agent's worktree first, at its last own commit.

    Args:
        common_dir: The common git folder of the repository.
        place: The agent's worktree, or `None` if it is not registered.
        branch: The short name of the agent's branch.

    Returns:
        A list with a warning for the lead. An empty list if the branch is no symbolic ref.
    """
    ref = f"refs/heads/{branch}"
    target = await find_symbolic_target(common_dir, ref)
    if target is None:
        return []
    if place and (last := await _last_head(place)):
        reason = "forkjoin: left a symbolic branch"
        await update_refs(common_dir, [f"update HEAD {last}"], reason, extra=place.variables)
    await delete_symbolic_ref(common_dir, ref)
    return [f"The agent's branch was {describe_symbolic_target(target)}."]


# -- committing


async def _find_commit_to_merge(place: RegisteredWorktree, status: Status) -> str | None:
    """Return the commit that a resolved merge in progress merges, or `None`.

    If the merge has conflicts, or HEAD contains the commit already, end the merge and return `None`.
    """
    theirs = await merge_in_worktree.find_merged_commit(place)
    if theirs and (status.unmerged or (status.head and await is_ancestor(place.common_dir, theirs, status.head))):
        await to_thread.run_sync(merge_in_worktree.end, place)
        return None
    return theirs


async def _commit(
    place: RegisteredWorktree, status: Status, theirs: str | None, branch: str, message: str, warnings: list[str]
) -> tuple[str, int]:
    """Commit the uncommitted work on top of HEAD, and move HEAD.

    Args:
        place: The agent's worktree.
        status: Its status.
        theirs: The commit that a resolved merge in progress merges, or `None`. It becomes the second parent.
        branch: The short name of the agent's branch.
        message: The message of the commit.
        warnings: Sentences for the lead are appended to this list.

    Returns:
        The commit at HEAD, and the number of paths that were committed.
    """
    parent = status.head or await _last_head(place)
    if parent and not status.uncommitted and not theirs:
        return parent, 0
    if status.branch not in (None, branch):  # another worktree may have moved the branch that HEAD is on
        parent = await _last_head(place, with_reason=True) or parent
    tree = await stage(place, status, warnings)
    committed = len(await changes_between(place.common_dir, parent, tree) if parent else status.uncommitted)
    if parent and not committed and not theirs:
        return parent, 0
    who = await find_fallback_identity(place.common_dir)
    parents = [f"-p{commit}" for commit in (parent, theirs) if commit]
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
    """Move HEAD to `tip`.

    If HEAD is on the agent's branch, move that branch. If HEAD is on another branch, detach HEAD, since that branch
    must not move.
    """
    if status.branch != branch:
        lines = ["option no-deref", f"update HEAD {tip}"]
    elif status.head:
        lines = [f"update refs/heads/{branch} {tip} {status.head}"]
    else:  # the agent's branch is gone: _move_branch_to creates it again
        return
    await update_refs(place.common_dir, lines, "forkjoin: uncommitted work", extra=place.variables)


def _warn_of_moves(place: RegisteredWorktree, branch: str, status: Status) -> list[str]:
    """Return warnings if the agent's branch was moved or deleted from elsewhere.

    Only what happened while HEAD was on that branch is found.
    """
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
    """Return the last commit in HEAD's reflog, or `None`.

    HEAD's reflog remains if the branch is deleted.

    Args:
        place: The worktree.
        with_reason: Whether to omit entries without a reason. `git symbolic-ref` makes them when it points HEAD to
            another branch. The files don't change then.
    """
    entries = [entry for entry in await head_reflog.read_log(place) if entry.why or not with_reason]
    commit = next((name for entry in reversed(entries) for name in (entry.new, entry.old) if name.strip("0")), None)
    return await resolve_commit(place.common_dir, commit) if commit else None


async def _move_branch_to(
    place: RegisteredWorktree, branch: str, tip: str | None, keep_as: str, warnings: list[str]
) -> str | None:
    """Move the agent's branch to the commit at HEAD, or keep that commit under a ref.

    The branch is only moved forward, and only if no other worktree has it checked out. A missing branch is created.

    Args:
        place: The agent's worktree.
        branch: The short name of the agent's branch.
        tip: The commit at HEAD, or `None` if HEAD has no commit.
        keep_as: The name of the ref below refs/forkjoin/kept/.
        warnings: A sentence for the lead is appended to this list.

    Returns:
        The commit that the branch points to now, or `None` if the branch doesn't exist.
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

    Return False if git refuses, e.g. because there is a branch `a/b` and the deleted branch was `a`.
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


async def _keep_detached(place: RegisteredWorktree, keep_as: str) -> list[str]:
    """Keep the commits that the agent made on a detached HEAD, if HEAD has left them.

    Return a list with a warning, or an empty list if there are no such commits.
    """
    try:
        ref = await head_reflog.keep_detached_commits(place, keep_as)
    except GitRefusedError as error:
        return [f"Commits that the agent made on no branch can't be read: {error.last_line}."]
    return [f"Commits that the agent made on no branch are kept, and not merged: {ref}."] if ref else []


# -- files that stay in the worktree


async def _describe_remaining_files(place: RegisteredWorktree, status: Status) -> list[str]:
    """Return warnings that name the ignored files and nested repositories.

    They are not committed.

    Ignored files that were copied from the checkout, or are shared with it, are not named.
    """
    warnings: list[str] = []
    if status.repositories:
        warnings.append(
            f"Repositories within the worktree stay there, and are not merged: {printable_list(status.repositories)}."
        )
    if status.ignored:
        copied = {
            *await list_included_files(place.path, place.variables),
            *await to_thread.run_sync(read_shared_paths, place),
        }
        if names := [name for name in status.ignored if name.removesuffix("/") not in copied]:
            warnings.append(f"Ignored files stay in the worktree and are not merged: {printable_list(names)}.")
    return warnings
