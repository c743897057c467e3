"""Keeping an agent's work before its worktree and branch are removed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.agents.removal_checks import refuse_removal
from forkjoin.core.error import CallerError, GitError, reason_of
from forkjoin.core.model import Agent
from forkjoin.core.regular_file import is_gone
from forkjoin.git import folder_archive, kept_refs
from forkjoin.git.file_names import printable_list
from forkjoin.git.unsaved import unsaved_work
from forkjoin.git.unsaved.unsaved_work import UnsavedWork
from forkjoin.git.worktrees import worktree
from forkjoin.git.worktrees.autocommit import AutocommitResult
from forkjoin.git.worktrees.head_reflog import keep_abandoned_commits
from forkjoin.git.worktrees.hidden_files import find_hidden_work
from forkjoin.services import Services
from forkjoin.workspace import config_tampering
from forkjoin.workspace.agent_work import commit_uncommitted, find_result_commit


async def commit_leftovers(services: Services, common_dir: str, agent: Agent) -> AutocommitResult:
    """Commit the changes that the worktree got after the agent's end.

    Return the state of the agent's branch.
    """
    try:
        return await commit_uncommitted(services.store, common_dir, agent, f"Left in the worktree of {agent.label}")
    except GitError as error:
        raise refuse_removal(agent, f"git can't commit the changes in its worktree: {error.last_line}") from error


async def find_uncommittable(
    services: Services, common_dir: str, agent: Agent, leftovers: Mapping[int, AutocommitResult]
) -> list[UnsavedWork]:
    """Return files in the worktree that git can't commit or doesn't see.

    git does not see files that its index or changed ignore rules hide.

    Args:
        leftovers: By agent number, the state of the branch after the last commit.
    """
    top = Path(agent.worktree.path)
    found = await find_hidden_work(common_dir, top, await config_tampering.find_ignore_rules(services, agent))
    found |= dict.fromkeys(leftovers[agent.number].refused, "git can't take it")
    uncommittable = [UnsavedWork(name, what, (top / name,)) for name, what in found.items()]
    return [work for work in uncommittable if not await to_thread.run_sync(is_gone, work.folders[0])]


async def find_unsaved(
    common_dir: str, agents: Sequence[Agent], uncommittable: Mapping[int, Sequence[UnsavedWork]], *, discard: bool
) -> list[tuple[Agent, list[UnsavedWork]]]:
    """Return the agents with work that exists only in their worktrees, and this work.

    Args:
        uncommittable: By agent number, files that git can't commit. They count as such work.
        discard: Whether such work may be removed.

    Raises:
        CallerError: There is such work and `discard` is false, or git can't read the worktree.
    """
    work: list[tuple[Agent, list[UnsavedWork]]] = []
    for agent in agents:
        try:
            found = await unsaved_work.find_unsaved_work(common_dir, Path(agent.worktree.path), agent.worktree.base)
        except (GitError, PermissionError) as error:
            why = reason_of(error)
            raise refuse_removal(agent, f"git can't read its worktree: {why}") from error
        found += uncommittable.get(agent.number, ())
        if found and not discard:
            raise refuse_removal(
                agent,
                f"its worktree has work that is nowhere else: {printable_list([str(item) for item in found])}. "
                "Push it, or move it away, or pass discard_unmerged=true (it is kept as a tar file under "
                "refs/forkjoin/kept/)",
            )
        work += [(agent, found)] if found else []
    return work


async def keep_unsaved(common_dir: str, agent: Agent, found: Sequence[UnsavedWork]) -> str:
    """Archive work that exists only in a worktree under a ref.

    Return a sentence that says how to restore it.
    """
    try:
        ref = await unsaved_work.archive_unsaved(common_dir, Path(agent.worktree.path), found, agent.slug)
    except (GitError, CallerError) as error:
        why = reason_of(error)
        raise refuse_removal(agent, f"{printable_list([str(work) for work in found])}: {why}") from error
    names = printable_list([str(work) for work in found])
    command = folder_archive.restore_command(common_dir, ref, Path(agent.worktree.path).parent)
    return f"{agent.label}: {names} is kept in {ref}. This restores it: {command}"


async def keep_late_files(common_dir: str, agent: Agent) -> list[str]:
    """Archive files that were created after the deletion of the worktree began.

    Return a list with a sentence that says how to restore them, or an empty list if there are none.
    """
    path = Path(agent.worktree.path)
    since = await to_thread.run_sync(worktree.removal_began_at, common_dir, path)
    late = await to_thread.run_sync(unsaved_work.find_late_files, common_dir, path, since or 0)
    return [await keep_unsaved(common_dir, agent, late)] if late else []


async def keep_left_behind(common_dir: str, agent: Agent, left: AutocommitResult, *, discard: bool) -> None:
    """Keep commits that a reset or a rebase left behind under refs.

    Only reflogs name these commits.

    Args:
        left: The state of the agent's branch after the last commit.
        discard: Whether to continue if these commits can't be read.

    Raises:
        CallerError: These commits can't be read, and `discard` is false.
    """
    try:
        await keep_abandoned_commits(common_dir, Path(agent.worktree.path), agent.worktree.branch, left.tip, agent.slug)
    except GitError as error:
        if not discard:
            give_up = "Pass discard_unmerged=true to give them up"
            why = f"commits that it left behind can't be read: {error.last_line}. {give_up}"
            raise refuse_removal(agent, why) from error


async def keep_branch(services: Services, common_dir: str, agent: Agent, tip: str | None) -> str | None:
    """Keep an agent's commits under a ref, unless another branch or tag has them.

    Args:
        tip: The branch's commit, or `None` if the branch is gone.

    Returns:
        The ref, or `None` if no ref was needed.
    """
    if tip is None:  # the agent deleted its branch, or an earlier removal did
        if found := await kept_refs.find_kept_ref(common_dir, agent.slug):
            return found
        tip = await find_result_commit(services.store, agent)
    if tip is None or await kept_refs.is_reachable_elsewhere(common_dir, tip, agent.worktree.base):
        return None
    return await kept_refs.keep_commit(common_dir, tip, agent.slug)
