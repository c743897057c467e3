"""Retention: the removal of merged or unchanged agents after some days, and of records that nobody needs any more.

Only days on which forkjoin ran count, so that a wrong clock removes nothing. Unmerged work is never removed, nor a
worktree with new changes. If a daemon ends during a retention, the next retention continues it.
"""

import logging
import re
from collections.abc import Collection, Iterable, Set
from datetime import date

from anyio import to_thread

from forkjoin.agents.remove import remove_agents
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.core.session import Session
from forkjoin.git.refs import find_tip
from forkjoin.services import Services
from forkjoin.store.damage_detection import set_aside_copies
from forkjoin.workspace.agent_work import find_result_commit, is_worktree_at

log = logging.getLogger(__name__)

#: A handle, which begins with the id of an agent (`a1`) or of a scratch worktree (`t1`).
_HANDLE = re.compile(r"([at])([1-9]\d{0,17})-.*")


async def apply_retention(services: Services, today: date, connected: Collection[Session]) -> None:
    """Remove agents, attempts, records and environments that are not needed any more.

    If an agent can't be removed, it stays, and the others are removed anyway.

    Args:
        today: The current date. The first call of a date counts as a day on which forkjoin ran.
        connected: The connected sessions. Their environments, and the answers that they may ask for again, are kept.
    """
    store, days, old = services.store, services.settings.retention.days, services.environments.digests
    day = await store.retention.count_day(today.isoformat())
    if days:
        for agent in await store.retention.settled_agents(day - days):
            try:
                await _remove_completely(services, agent)
            except CallerError as error:
                log.info("%s stays: %s", agent.label, error)
            except Exception:  # a boundary: the other agents are removed anyway
                log.exception("%s can't be removed now. It is tried again later.", agent.label)
        await _forget_leftovers(services)
    await store.retention.prune(day, [session.hello.relay for session in connected])
    await _prune_environments(services, old, connected)


async def _remove_completely(services: Services, agent: Agent) -> None:
    """Remove an agent's worktree, then its logs, then its record.

    Nothing is removed if the agent, or another candidate of its group, has changes since its end.
    """
    if agent.timing.removed is None:
        candidates = await services.store.agents.candidates(agent) or [agent]
        if not all([await _is_as_it_ended(services, candidate) for candidate in candidates]):
            log.info(
                "%s stays: its worktree or branch, or that of another candidate, has changes that are not merged",
                agent.label,
            )
            return
        environment = services.environments.find_in_project(agent.project)
        removed = await remove_agents(services, [agent], discard_unmerged=False, environment=environment)
        for warning in removed.warnings:
            log.warning("%s", warning)
    await _forget_attempts(
        services, (name for name in await services.executor.list_handles() if name.startswith(f"{agent.id}-"))
    )
    await services.store.retention.delete_agent(agent.number)
    log.info("%s was removed: it was merged or unchanged for %d days", agent.label, services.settings.retention.days)


async def _is_as_it_ended(services: Services, agent: Agent) -> bool:
    """Return whether the agent's branch and worktree are unchanged since its end."""
    if not agent.worktree.prepared:
        return True
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    ended_at = await find_result_commit(services.store, agent) or agent.worktree.base
    tip = await find_tip(common_dir, agent.ref)
    return tip in (None, ended_at) and await is_worktree_at(services.store, common_dir, agent, ended_at)


async def _forget_attempts(services: Services, handles: Iterable[str]) -> None:
    """End these attempts, and delete the folders of those that have no process left."""
    for handle in handles:
        if not await services.executor.cancel(handle, services.settings.limits.stop_grace_s):
            await services.executor.forget(handle)


async def _forget_leftovers(services: Services) -> None:
    """Delete the attempts' folders of agents and scratch worktrees without a record.

    While a copy of a damaged database exists, all are kept, since records may be restored from them.
    """
    if await to_thread.run_sync(set_aside_copies, services.home.records):
        return
    # Listed before the records are read: an agent is recorded before its attempt starts, so a listed attempt without a
    # record belongs to a deleted agent.
    handles = await services.executor.list_handles()
    handed_out, known = await services.store.restored_agents.known_numbers()
    known_of = {"a": known, "t": {scratch.number for scratch in await services.store.scratch_worktrees.all()}}
    for handle in handles:
        if found := _HANDLE.fullmatch(handle):
            number = int(found[2])
            if number not in known_of[found[1]] and (found[1] != "a" or number <= handed_out):
                await _forget_attempts(services, [handle])


async def _prune_environments(services: Services, old: Set[str], connected: Collection[Session]) -> None:
    """Forget environments that no live agent, open merge or session needs.

    Args:
        old: The digests of the environments that may be forgotten. Environments that came later are kept.
    """
    needed = [(agent.environment, agent.project, agent.root_lead) for agent in await services.store.agents.live()]
    needed += [(merge.environment, merge.project, merge.lead) for merge in await services.store.merges.open()]
    services.environments.prune(old, needed, [session.hello.environment for session in connected])
