"""Removing: an agent's worktree and branch go; what it did stays reachable unless it is merged.

Whether it is merged git is asked, not the record: a target may have been set back since, or somebody merged by hand.
Everything is looked at before the first thing goes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

from forkjoin.branch import git, kept, loose, worktree
from forkjoin.branch.checkout import find_checkout
from forkjoin.error import CallerError, GitError
from forkjoin.model import FINAL, Agent, Merge
from forkjoin.rooms import Rooms


async def remove(rooms: Rooms, agents: Sequence[Agent], *, discard_unmerged: bool) -> dict[int, str | None]:
    """Take away the agents' worktrees and branches; where the work of each that was unmerged is kept, as a ref.

    Raises:
        CallerError: One is still at work, has unmerged work and `discard_unmerged` was not given, or something of it
            would be lost or can't be told; nothing went.
    """
    async with rooms.removing.setdefault(agents[0].project, anyio.Lock()):
        agents = [one for one in await rooms.store.agents_numbered(a.number for a in agents) if one.removed is None]
        _check_ended(agents)
        kept_as: dict[int, str | None] = dict.fromkeys(agent.number for agent in agents)
        standing = [await _examine(rooms, agent) for agent in agents if agent.prepared]
        _check_merged([one for one in standing if one.unmerged], discard_unmerged)
        tips = [await _commit_loose(one) for one in standing]
        for one, tip in zip(standing, tips, strict=True):
            kept_as[one.agent.number] = await _take_away(one, tip)
        for agent in agents:
            await rooms.store.set_removed(agent.number)
        return kept_as


def _check_ended(agents: Sequence[Agent]) -> None:
    live = [agent.label for agent in agents if agent.state not in FINAL]
    if live:
        raise CallerError(f"Still at work: {', '.join(live)}. Call stop_agents first; nothing was removed.")
    if landing := [agent.label for agent in agents if agent.merge is Merge.QUEUED]:
        raise CallerError(f"Being merged: {', '.join(landing)}. Wait for merge_worktree; nothing was removed.")


@dataclass(frozen=True, slots=True)
class _Standing:
    """An agent, and how its branch stands; `unmerged` is whether no other branch, and no tag, has its commits."""

    agent: Agent
    common_dir: str
    tip: str | None
    unmerged: bool

    @property
    def path(self) -> Path:
        return Path(self.agent.worktree)


async def _examine(rooms: Rooms, agent: Agent) -> _Standing:
    common_dir = (await rooms.store.project_numbered(agent.project)).common_dir
    result = await rooms.store.result(agent.number)
    ref = f"refs/heads/{agent.branch}"
    if await to_thread.run_sync(worktree.is_locked, common_dir, Path(agent.worktree)):
        raise _refuse(agent, f"its worktree is locked; first: git worktree unlock {agent.worktree}")
    try:
        where = await find_checkout(common_dir, ref)
    except CallerError as error:
        raise _refuse(agent, str(error).removesuffix(".")) from error
    if where and not await to_thread.run_sync(_is_same, where, agent.worktree):
        raise _refuse(agent, f"its branch is checked out in {where}; switch to another there")
    tip = await git.tip(common_dir, ref) or (result.commit if result else None)
    try:
        unmerged = tip is not None and not await kept.is_elsewhere(common_dir, tip, agent.base)
    except GitError as error:
        raise _refuse(agent, f"git can't tell whether its work is merged: {error.last_line}") from error
    return _Standing(agent, common_dir, tip, unmerged)


def _is_same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _refuse(agent: Agent, why: str) -> CallerError:
    return CallerError(f"{agent.label}: {why}. Nothing was removed.")


def _check_merged(unmerged: Sequence[_Standing], discard_unmerged: bool) -> None:
    if unmerged and not discard_unmerged:
        raise CallerError(
            f"Unmerged work: {', '.join(one.agent.label for one in unmerged)}. Call merge_worktree first, or pass "
            "discard_unmerged=true (it stays reachable under refs/forkjoin/kept/); nothing was removed."
        )


async def _commit_loose(one: _Standing) -> str | None:
    """Commit what was left in the worktree since the agent's end; the branch's commit then."""
    agent, message = one.agent, f"Left in the worktree of {one.agent.label}"
    try:
        left = await loose.commit_loose(one.common_dir, one.path, agent.branch, message, None, agent.slug)
    except GitError as error:
        raise _refuse(agent, f"what is uncommitted in its worktree can't be committed: {error.last_line}") from error
    if left.repositories:
        names = ", ".join(git.readable(name) for name in left.repositories[:5])
        raise _refuse(agent, f"repositories in its worktree have commits of their own ({names}); move them away first")
    return left.tip or one.tip


async def _take_away(one: _Standing, tip: str | None) -> str | None:
    """Take worktree and branch away; the ref that keeps what was on it, where nothing else does."""
    agent, kept_as = one.agent, None
    if tip and not await kept.is_elsewhere(one.common_dir, tip, agent.base):
        kept_as = await kept.keep(one.common_dir, tip, agent.slug)
    try:
        await worktree.remove(one.common_dir, one.path)
    except OSError as error:
        raise CallerError(
            f"{agent.label}: its worktree can't be taken away ({error}). Its commits are kept."
        ) from error
    if tip:
        await worktree.retire_branch(one.common_dir, agent.branch, tip)
    return kept_as
