"""Checks before an agent's worktree and branch are removed."""

import os
from collections.abc import Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import CallerError, GitError
from forkjoin.core.model import FINAL, Agent, Merge
from forkjoin.core.regular_file import is_gone
from forkjoin.git import kept_refs
from forkjoin.git.refs import find_tip, resolve_commit
from forkjoin.git.worktrees import worktree_folder
from forkjoin.git.worktrees.checkout import find_checkout
from forkjoin.services import Services
from forkjoin.workspace.agent_work import find_result_commit


def refuse_removal(agent: Agent, why: str) -> CallerError:
    """Return a CallerError that says why an agent is not removed."""
    return CallerError(f"{agent.label}: {why}. Nothing was removed.")


def check_not_in_use(services: Services, agents: Sequence[Agent]) -> None:
    """Raise a CallerError if an agent has not ended, is being merged or attached to."""
    if live := [agent.label for agent in agents if agent.state not in FINAL]:
        raise CallerError(f"Not ended yet: {', '.join(live)}. Call stop_agents first. Nothing was removed.")
    if queued := [agent.label for agent in agents if agent.merge is Merge.QUEUED]:
        raise CallerError(f"Being merged: {', '.join(queued)}. Wait for merge_worktree. Nothing was removed.")
    if attached := [agent.label for agent in agents if agent.number in services.attached]:
        raise CallerError(f"A person is in the conversation of {', '.join(attached)}. Nothing was removed.")


async def is_repository_gone(common_dir: str, agent: Agent) -> bool:
    """Return whether the agent's repository is gone.

    A different repository at its path, without the agent's commits, counts as gone too.
    """
    if await to_thread.run_sync(worktree_folder.git_folder, common_dir, Path(agent.worktree.path)):
        return False
    return not (await find_tip(common_dir, agent.ref) or await resolve_commit(common_dir, agent.worktree.base))


async def is_unmerged(services: Services, common_dir: str, agent: Agent) -> bool:
    """Return whether the agent has commits that no other branch or tag has.

    An agent whose commits were squashed is merged if another branch or tag has one of the squash commits, and its
    branch has no new commits.

    Raises:
        CallerError: The worktree is locked, the branch is checked out elsewhere, or git can't tell.
    """
    if await to_thread.run_sync(worktree_folder.is_locked, common_dir, Path(agent.worktree.path)):
        raise refuse_removal(
            agent, f"its worktree is locked. Unlock it first: git worktree unlock {agent.worktree.path}"
        )
    ref = agent.ref
    try:
        where = await find_checkout(common_dir, ref, leaving=Path(agent.worktree.path))
    except CallerError as error:
        raise refuse_removal(agent, str(error).removesuffix(".")) from error
    if where and not await to_thread.run_sync(lambda: os.path.realpath(where) == os.path.realpath(agent.worktree.path)):
        raise refuse_removal(agent, f"its branch is checked out in {where}. Switch to another branch there")
    ended_at = await find_result_commit(services.store, agent)
    tip = await find_tip(common_dir, ref) or ended_at
    try:
        if tip is None or await kept_refs.is_reachable_elsewhere(common_dir, tip, agent.worktree.base):
            return False
        is_whole = tip == ended_at and agent.merge is Merge.MERGED  # no commit was added after the merge
        squashed = await services.store.merges.squash_commits(agent) if is_whole else []
        return not any(
            [await kept_refs.is_reachable_elsewhere(common_dir, commit, agent.worktree.base) for commit in squashed]
        )
    except GitError as error:
        raise refuse_removal(agent, f"git can't tell whether its work is merged: {error.last_line}") from error


def check_merged(unmerged: Sequence[Agent], without_repository: Sequence[Agent]) -> None:
    """Raise a CallerError if the removal of these agents would lose work.

    Args:
        unmerged: Agents with commits that were not merged.
        without_repository: Agents whose repository is gone. Their worktrees may hold the only copy of their work.
    """
    if unmerged:
        raise CallerError(
            f"Unmerged work: {', '.join(agent.label for agent in unmerged)}. Call merge_worktree first, or pass "
            "discard_unmerged=true (the work stays reachable under refs/forkjoin/kept/). Nothing was removed."
        )
    if left := next((agent for agent in without_repository if not is_gone(Path(agent.worktree.path))), None):
        raise refuse_removal(
            left,
            "its repository is gone, with everything that it committed. Copy the files that you want to keep from "
            f"{left.worktree.path}, then pass discard_unmerged=true",
        )
