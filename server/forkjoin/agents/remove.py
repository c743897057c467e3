"""Removing agents: their worktrees and branches are deleted, and unmerged work stays reachable.

Whether work is merged is read from git and not from the records: somebody may have reset a target, or merged by hand.
All checks come before the first deletion, and the decision to delete is recorded. If a daemon ends during a removal,
the next one repeats the checks, unless files of the worktree were deleted already. In that case it archives the files
that were created since, and deletes the others.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio import to_thread

from forkjoin.agents.attach import end_person_program
from forkjoin.agents.removal_checks import (
    check_merged,
    check_not_in_use,
    is_repository_gone,
    is_unmerged,
    refuse_removal,
)
from forkjoin.agents.setup_and_teardown import tear_down
from forkjoin.agents.work_to_keep import (
    commit_leftovers,
    find_uncommittable,
    find_unsaved,
    keep_branch,
    keep_late_files,
    keep_left_behind,
    keep_unsaved,
)
from forkjoin.core.error import CallerError, GitError
from forkjoin.core.event import Noted
from forkjoin.core.model import Agent, Removal
from forkjoin.git.file_names import printable_list
from forkjoin.git.refs import describe_symbolic_target, find_symbolic_target, find_tip
from forkjoin.git.worktrees import worktree
from forkjoin.git.worktrees.autocommit import AutocommitResult
from forkjoin.git.worktrees.checkout import find_checkout
from forkjoin.services import Services
from forkjoin.workspace import config_tampering
from forkjoin.workspace.agent_work import is_worktree_at

log = logging.getLogger(__name__)


class RemovalResult(NamedTuple):
    """The outcome of a removal of one or more agents."""

    kept_as: dict[int, str | None]  #: by agent number, the ref that keeps unmerged work; None if there was none
    warnings: list[str]


async def remove_agents(
    services: Services, agents: Sequence[Agent], *, discard_unmerged: bool, environment: Mapping[str, str] | None
) -> RemovalResult:
    """Run the agents' teardown, then delete their worktrees and branches.

    All agents are of one project.

    Args:
        discard_unmerged: Whether to remove unmerged work, too. It stays reachable under refs/forkjoin/kept/.
        environment: The environment for teardowns if that of an agent's own lead is lost.

    Raises:
        CallerError: A check failed, and no agent was removed. Or some worktrees could not be deleted: then the message
            says which agents were removed.
    """
    async with _removal_lock(services, agents[0].project):
        return await _remove_agents(
            services, agents, Removal.DISCARD if discard_unmerged else Removal.MERGED, environment
        )


async def finish_removals(services: Services) -> None:
    """Finish or cancel the removals that the end of an earlier daemon interrupted."""
    for agent in await services.store.agents.half_removed():
        try:
            async with _removal_lock(services, agent.project):
                (now,) = await services.store.agents.get_all(
                    [agent.number]
                )  # a call may have removed it before the lock was free
                if now.removing and now.timing.removed is None:
                    outcome = await _finish(services, now)
                    log.warning("%s: %s", agent.id, outcome)
                    await services.store.events.add(agent, [(Noted(outcome), -1)])
        except Exception:  # a boundary: the other agents are removed anyway
            log.exception("%s could not be removed. Call remove_worktrees again.", agent.label)


async def _finish(services: Services, agent: Agent) -> str:
    """Finish an interrupted removal, or cancel it if a check fails now.

    Return a sentence about the outcome.
    """
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    how = Removal.MERGED if await is_repository_gone(common_dir, agent) else agent.removing
    try:
        removed = await _remove_agents(services, [agent], how, services.environments.find_in_project(agent.project))
    except CallerError as error:
        return f"its removal was interrupted, and is not finished: {error}"
    kept_as = removed.kept_as[agent.number]
    kept_words = f"; its work is kept as {kept_as}" if kept_as else ""
    return " ".join([f"its removal was interrupted, and is done now{kept_words}.", *removed.warnings])


async def _remove_agents(
    services: Services, agents: Sequence[Agent], how: Removal, environment: Mapping[str, str] | None
) -> RemovalResult:
    """Remove agents of one project. The caller holds the project's removal lock."""
    common_dir = (await services.store.projects.get(agents[0].project)).common_dir
    agents = await services.store.agents.get_all(agent.number for agent in agents)
    remaining = [agent for agent in agents if agent.timing.removed is None]
    begun = [agent for agent in remaining if agent.removing and await _has_begun(common_dir, agent)]
    whole = [agent for agent in remaining if agent not in begun]
    check_not_in_use(services, begun)
    try:
        warnings = await _check_and_keep(services, common_dir, whole, how, environment)
    except CallerError:
        if kept := [agent for agent in whole if agent.removing]:
            await services.store.agents.update(*kept, removing=Removal.NONE)
        raise
    warnings += [note for agent in begun for note in await keep_late_files(common_dir, agent)]
    return RemovalResult(await _delete_all(services, common_dir, agents), warnings)


async def _check_and_keep(
    services: Services, common_dir: str, whole: Sequence[Agent], how: Removal, environment: Mapping[str, str] | None
) -> list[str]:
    """Check that agents can be removed, keep their work, and record the decision.

    Return warnings.

    Raises:
        CallerError: One of the agents can't be removed.
    """
    check_not_in_use(services, whole)
    discard = how is Removal.DISCARD
    made = [agent for agent in whole if agent.worktree.prepared]
    without_repository = [agent for agent in made if await is_repository_gone(common_dir, agent)]
    known = [agent for agent in made if agent not in without_repository]
    unmerged = [agent for agent in known if await is_unmerged(services, common_dir, agent)]
    if not discard:
        check_merged(unmerged, without_repository)
        await find_unsaved(common_dir, known, {}, discard=False)
    for agent in made:
        await end_person_program(services, agent)
    symbolic = [note for agent in known if (note := await _warn_of_symbolic_branch(common_dir, agent))]
    leftovers = {agent.number: await commit_leftovers(services, common_dir, agent) for agent in known}
    if late := [agent for agent in known if agent.removing and leftovers[agent.number].uncommitted and not discard]:
        raise refuse_removal(
            late[0], "its worktree got new files after its removal was interrupted. They are on its branch now"
        )
    to_tear_down = [
        agent for agent in known if not agent.removing
    ]  # for the other agents, the removal that was interrupted ran it
    warnings = [*symbolic, *await tear_down(services, to_tear_down, environment)]
    leftovers |= await _commit_newer_changes(services, common_dir, whole, leftovers)
    uncommittable = {agent.number: await find_uncommittable(services, common_dir, agent, leftovers) for agent in known}
    unsaved = await find_unsaved(common_dir, known, uncommittable, discard=discard)
    warnings += [await keep_unsaved(common_dir, agent, found) for agent, found in unsaved]
    for agent in known:
        await keep_left_behind(common_dir, agent, leftovers[agent.number], discard=discard)
    check_not_in_use(services, whole)  # attach refuses only once the next line has recorded the removal
    check_not_in_use(services, await services.store.lifecycle.begin_removal(whole, how))
    return warnings


async def _has_begun(common_dir: str, agent: Agent) -> bool:
    """Return whether the deletion of the agent's worktree has begun."""
    return await to_thread.run_sync(worktree.removal_began_at, common_dir, Path(agent.worktree.path)) is not None


def _removal_lock(services: Services, project: int) -> anyio.Lock:
    """Return the lock that allows one removal at a time in a project."""
    return services.removal_locks.setdefault(project, anyio.Lock())


async def _commit_newer_changes(
    services: Services, common_dir: str, agents: Sequence[Agent], leftovers: Mapping[int, AutocommitResult]
) -> dict[int, AutocommitResult]:
    """Commit changes that worktrees got while the teardown ran, which may take long.

    Args:
        leftovers: By agent number, the state of each branch after the commits before the teardown.

    Returns:
        By agent number, the new state of each branch that got another commit.

    Raises:
        CallerError: An agent is in use again, or its branch has moved.
    """
    added: dict[int, AutocommitResult] = {}
    now = await services.store.agents.get_all(agent.number for agent in agents)
    check_not_in_use(services, now)
    for agent in (agent for agent in now if agent.number in leftovers):
        tip = leftovers[agent.number].tip
        if await find_tip(common_dir, agent.ref) != tip:
            raise refuse_removal(
                agent, "its branch was moved while its teardown ran. Check that branch, then call again"
            )
        if not await is_worktree_at(services.store, common_dir, agent, tip, or_less=True):
            added[agent.number] = await commit_leftovers(services, common_dir, agent)
    return added


async def _warn_of_symbolic_branch(common_dir: str, agent: Agent) -> str | None:
    """Return a warning if the agent's branch was made a symbolic ref."""
    target = await find_symbolic_target(common_dir, agent.ref)
    return None if target is None else f"{agent.label}: its branch was {describe_symbolic_target(target)}"


async def _delete_all(services: Services, common_dir: str, agents: Sequence[Agent]) -> dict[int, str | None]:
    """Delete the worktrees and branches of agents.

    Returns:
        By agent number, the ref that keeps the agent's work, or `None` if no ref is needed.

    Raises:
        CallerError: Some worktrees could not be deleted. All others were deleted.
    """
    kept_as: dict[int, str | None] = {}
    failed: list[str] = []
    for agent in agents:
        try:
            kept_as[agent.number] = await _delete_agent(services, common_dir, agent)
        except (OSError, GitError) as error:
            log.warning("%s: it could not be removed completely: %s", agent.label, error)
            failed.append(f"{agent.label} ({error})")
    if failed:
        others = f" These were removed: {printable_list([f'a{number}' for number in kept_as], 20)}." if kept_as else ""
        raise CallerError(
            f"Not removed completely: {'; '.join(failed[:5])}. Their commits are kept. Solve the problem, then call "
            f"remove_worktrees again.{others}"
        )
    return kept_as


async def _delete_agent(services: Services, common_dir: str, agent: Agent) -> str | None:
    """Delete an agent's worktree and branch.

    Return the ref that keeps the agent's work, or `None` if no ref is needed. For an agent that was removed before,
    only return the ref.
    """
    repository_is_gone = await is_repository_gone(common_dir, agent)
    tip = None if repository_is_gone else await find_tip(common_dir, agent.ref)
    kept_as = (
        None
        if repository_is_gone or not agent.worktree.prepared
        else await keep_branch(services, common_dir, agent, tip)
    )
    if agent.timing.removed is not None:
        return kept_as
    if agent.worktree.prepared:
        await worktree.remove(common_dir, Path(agent.worktree.path))
        if not repository_is_gone and not (agent.removing and await _is_checked_out(common_dir, agent)):
            await worktree.delete_branch(common_dir, agent.worktree.branch, tip)
    await config_tampering.delete_ignore_rules(services, agent)
    await services.store.agents.update(
        agent, removed=time.time()
    )  # last: until then, the next daemon finishes the removal
    return kept_as


async def _is_checked_out(common_dir: str, agent: Agent) -> bool:
    """Return whether a worktree has checked out the agent's branch."""
    try:
        return await find_checkout(common_dir, agent.ref) is not None
    except CallerError:  # the branch is being rebased
        return True
