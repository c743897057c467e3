"""The commit that an agent starts from: its base, merged with the work of its dependencies."""

from dataclasses import replace

from forkjoin.agents.candidates import rank_agents
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent, State
from forkjoin.git import merge_tree
from forkjoin.git.fast_import import make_commit
from forkjoin.git.file_names import printable_list
from forkjoin.git.refs import is_ancestor, resolve_commit
from forkjoin.services import Services
from forkjoin.workspace.agent_work import find_work_end

#: The maximum number of conflicting files that an error names.
_FILES_NAMED = 10


async def determine_base(services: Services, common_dir: str, agent: Agent) -> Agent:
    """Determine and record the agent's base commit. Return the agent with this base.

    A base that the lead named is used as it is. Otherwise the work of all dependencies is merged into the base. Once
    the worktree is prepared, the base does not change any more.

    Raises:
        CallerError: The base agent has no work, or the work of dependencies conflicts.
    """
    if agent.worktree.prepared or (agent.spec.base is not None and not agent.dependencies.base_agents):
        return agent
    base = await (_find_base_work if agent.dependencies.base_agents else _merge_dependencies)(
        services, common_dir, agent
    )
    if base != agent.worktree.base:
        await services.store.agents.update(agent, base=base)
    return replace(agent, worktree=replace(agent.worktree, base=base))


async def _find_base_work(services: Services, common_dir: str, agent: Agent) -> str:
    """Return the last commit of the agent that the spec names as its base.

    If the base is a group of candidates, return that of the best candidate that has one.
    """
    for other in await rank_agents(services.store, await services.store.agents.get_all(agent.dependencies.base_agents)):
        tip = await find_work_end(services.store, common_dir, other)
        if tip and await resolve_commit(common_dir, tip):
            return tip
    raise CallerError(
        f"Its base {agent.spec.base} has no work to start from. Spawn the agent again with another `base`: a commit, "
        "or an agent that has begun."
    )


async def _merge_dependencies(services: Services, common_dir: str, agent: Agent) -> str:
    """Return the agent's base, merged with the work of succeeded dependencies.

    Of a group of candidates, only the work of the best candidate is merged, if it succeeded.
    """
    base, ended = agent.worktree.base, await services.store.agents.final_states(agent.dependencies.after)
    succeeded = [number for number in agent.dependencies.after if ended.get(number) is State.SUCCEEDED]
    if agent.dependencies.best_of:
        several = [await services.store.agents.get_all(candidates) for candidates in agent.dependencies.best_of]
        ranked = [await rank_agents(services.store, candidates) for candidates in several]
        best = {winner.number for winner, *_ in filter(None, ranked)}
        succeeded = [number for number in succeeded if number in best]
    for other in await services.store.agents.get_all(succeeded):
        if tip := await find_work_end(services.store, common_dir, other):
            base = await _merge_work(common_dir, base, tip, agent, other)
    return base


async def _merge_work(common_dir: str, base: str, tip: str, agent: Agent, other: Agent) -> str:
    """Return a commit that contains both `base` and `tip`, the last commit of `other`.

    If one of the two commits contains the other, it is returned. Otherwise a merge commit is made.

    Raises:
        CallerError: The two conflict.
    """
    if await is_ancestor(common_dir, tip, base):
        return base
    if await is_ancestor(common_dir, base, tip):
        return tip
    merged = await merge_tree.try_merge(common_dir, base, tip)
    if merged.conflicts:
        files = printable_list(merged.conflicts, _FILES_NAMED)
        raise CallerError(
            f"The work of {other.label} conflicts with that of the other agents in `after`, in {files}. Merge these "
            "agents with merge_worktree, then spawn this agent again."
        )
    message = f"Base of {agent.label}, with the work of {other.label}\n"
    return await make_commit(common_dir, base, merged.tree, tip, message, agent.timing.created)
