"""Retention: what is merged, or changed nothing, goes after a time; and what nobody can ask for any more.

Days are those on which forkjoin ran, each counted once, so that a clock that is wrong removes nothing. Unmerged work
never goes, nor a worktree in which somebody has gone on working. A retention that is cut off goes on the next time.
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
from forkjoin.store.damaged_database import set_aside_copies
from forkjoin.workspace.agent_work import find_result_commit, is_worktree_at

log = logging.getLogger(__name__)

#: What a handle is of: an agent, or a scratch worktree.
_HANDLE = re.compile(r"([at])([1-9]\d{0,17})-.*")


async def apply_retention(services: Services, today: date, connected: Collection[Session]) -> None:
    """Let go of what is due. Each agent's trouble is its own."""
    store, days, old = services.store, services.settings.retention.days, services.environments.digests
    day = await store.retention.count_day(today.isoformat())
    if days:
        for agent in await store.retention.settled_agents(day - days):
            try:
                await _let_go(services, agent)
            except CallerError as error:
                log.info("%s stays: %s", agent.label, error)
            except Exception:  # a boundary: the others are not to stay for it
                log.exception("%s can't be let go of; trying again later", agent.label)
        await _forget_leftovers(services)
    await store.retention.prune(day, [session.hello.relay for session in connected])
    await _prune_environments(services, old, connected)


async def _let_go(services: Services, agent: Agent) -> None:
    """Take away an agent's worktree, then its logs, then its record: cut off in between, it is done again."""
    if agent.timing.removed is None:
        candidates = await services.store.agents.candidates(agent) or [agent]
        if not all([await _is_as_it_ended(services, one) for one in candidates]):
            log.info(
                "%s stays: there is something in its worktree, or on its branch, or a candidate's, that is not merged",
                agent.label,
            )
            return
        anybodys = services.environments.find_in_project(agent.project)
        removed = await remove_agents(services, [agent], discard_unmerged=False, environment=anybodys)
        for warning in removed.warnings:
            log.warning("%s", warning)
    await _forget(services, (name for name in await services.executor.handles() if name.startswith(f"{agent.id}-")))
    await services.store.retention.delete_agent(agent.number)
    log.info("%s went, as all that is merged does after %d days", agent.label, services.settings.retention.days)


async def _is_as_it_ended(services: Services, agent: Agent) -> bool:
    """Whether nothing was done on its branch or in its worktree since its end."""
    if not agent.worktree.prepared:
        return True
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    ended_at = await find_result_commit(services.store, agent) or agent.worktree.base
    tip = await find_tip(common_dir, agent.ref)
    return tip in (None, ended_at) and await is_worktree_at(services.store, common_dir, agent, ended_at)


async def _forget(services: Services, handles: Iterable[str]) -> None:
    for handle in handles:
        if not await services.executor.cancel(handle, services.settings.limits.stop_grace_s):
            await services.executor.forget(handle)


async def _forget_leftovers(services: Services) -> None:
    """Attempts of what is recorded no more; as long as a damaged database is there, they may yet tell something."""
    if await to_thread.run_sync(set_aside_copies, services.home.records):
        return
    handles = await services.executor.handles()  # before the records are read: what begins now is recorded by then
    handed_out, known = await services.store.restored_agents.known_numbers()
    known_of = {"a": known, "t": {one.number for one in await services.store.scratch_worktrees.all()}}
    for handle in handles:
        if found := _HANDLE.fullmatch(handle):
            number = int(found[2])
            if number not in known_of[found[1]] and (found[1] != "a" or number <= handed_out):
                await _forget(services, [handle])


async def _prune_environments(services: Services, old: Set[str], connected: Collection[Session]) -> None:
    needed = [(one.environment, one.project, one.root_lead) for one in await services.store.agents.live()]
    needed += [(one.environment, one.project, one.lead) for one in await services.store.merges.open()]
    services.environments.prune(old, needed, [session.hello.environment for session in connected])
