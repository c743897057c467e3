"""Removing: an agent's worktree and branch go; what it did stays reachable unless it is merged."""

from collections.abc import Sequence
from pathlib import Path

from forkjoin.branch import loose, worktree
from forkjoin.error import CallerError
from forkjoin.model import FINAL, Agent, Merge
from forkjoin.rooms import Rooms

#: Branches that hold nothing that is not elsewhere.
_SAFE = frozenset({Merge.MERGED, Merge.NOTHING})


async def remove(rooms: Rooms, agents: Sequence[Agent], *, discard_unmerged: bool) -> dict[int, str | None]:
    """Take away the agents' worktrees and branches; where the work of each that was unmerged is kept, as a ref.

    Raises:
        CallerError: One is still at work, or has unmerged work and `discard_unmerged` was not given; nothing went.
    """
    _check(agents, discard_unmerged)
    kept: dict[int, str | None] = {}
    for agent in agents:
        if agent.removed is None:
            kept[agent.number] = await _remove(rooms, agent)
    return kept


def _check(agents: Sequence[Agent], discard_unmerged: bool) -> None:
    live = [agent.label for agent in agents if agent.state not in FINAL]
    if live:
        raise CallerError(f"Still at work: {', '.join(live)}. Call stop_agents first; nothing was removed.")
    if landing := [agent.label for agent in agents if agent.merge is Merge.QUEUED]:
        raise CallerError(f"Being merged: {', '.join(landing)}. Wait for merge_worktree; nothing was removed.")
    unmerged = [agent.label for agent in agents if agent.merge not in _SAFE and agent.removed is None]
    if unmerged and not discard_unmerged:
        raise CallerError(
            f"Unmerged work: {', '.join(unmerged)}. Call merge_worktree first, or pass discard_unmerged=true "
            "(it stays reachable under refs/forkjoin/kept/); nothing was removed."
        )


async def _remove(rooms: Rooms, agent: Agent) -> str | None:
    store = rooms.store
    if not agent.prepared:  # a branch of that name, if there is one, is somebody else's
        await store.set_removed(agent.number)
        return None
    project = await store.project_numbered(agent.project)
    path, message = Path(agent.worktree), f"Left in the worktree of {agent.label}"
    left = await loose.commit_loose(project.common_dir, path, agent.branch, message, None, agent.slug)
    result = await store.result(agent.number)
    merged = agent.merge is Merge.MERGED and result is not None and left.tip == result.commit
    keep = not merged and left.tip not in (None, agent.base)
    await worktree.remove(project.common_dir, path)
    kept_as = await worktree.retire_branch(project.common_dir, agent.branch, agent.slug if keep else None)
    await store.set_removed(agent.number)
    return kept_as
