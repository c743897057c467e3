"""Retention: removing merged or unchanged agents after some days, and records that are not needed any more.

Only days on which forkjoin ran count, so that a wrong clock removes nothing. Unmerged work is never removed, nor a
worktree with new changes. An interrupted retention continues the next time.
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

#: A handle's prefix: the id of an agent or of a scratch worktree.
_HANDLE = re.compile(r"([at])([1-9]\d{0,17})-.*")


async def apply_retention(services: Services, today: date, connected: Collection[Session]) -> None:
    """Remove everything that is due.

    An error with one agent doesn't affect the others.

    Args:
        connected: The connected sessions, whose environments and answers are kept.
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

    An interrupted removal can be repeated.

    An agent is kept if it, or another candidate for its task, has new changes.
    """
    if agent.timing.removed is None:
        candidates = await services.store.agents.candidates(agent) or [agent]
        if not all([await _is_as_it_ended(services, candidate) for candidate in candidates]):
            log.info(
                "%s stays: its worktree or branch, or that of another candidate, has changes that are not merged",
                agent.label,
            )
            return
        anybodys = services.environments.find_in_project(agent.project)
        removed = await remove_agents(services, [agent], discard_unmerged=False, environment=anybodys)
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
    """Delete the folders of these attempts, once all their processes have ended."""
    for handle in handles:
        if not await services.executor.cancel(handle, services.settings.limits.stop_grace_s):
            await services.executor.forget(handle)


async def _forget_leftovers(services: Services) -> None:
    """Delete attempts of agents and scratch worktrees that have no record any more.

    While a copy of a damaged database exists, they are kept, since records may be restored from them.
    """
    if await to_thread.run_sync(set_aside_copies, services.home.records):
        return
    handles = await services.executor.list_handles()  # read before the records, so that newer attempts have a record
    handed_out, known = await services.store.restored_agents.known_numbers()
    known_of = {"a": known, "t": {scratch.number for scratch in await services.store.scratch_worktrees.all()}}
    for handle in handles:
        if found := _HANDLE.fullmatch(handle):
            number = int(found[2])
            if number not in known_of[found[1]] and (found[1] != "a" or number <= handed_out):
                await _forget_attempts(services, [handle])


async def _prune_environments(services: Services, old: Set[str], connected: Collection[Session]) -> None:
    """Forget environments in memory that are not needed any more.

    Args:
        old: The digests to consider.
    """
    needed = [(agent.environment, agent.project, agent.root_lead) for agent in await services.store.agents.live()]
    needed += [(merge.environment, merge.project, merge.lead) for merge in await services.store.merges.open()]
    services.environments.prune(old, needed, [session.hello.environment for session in connected])
