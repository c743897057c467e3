"""Chains of resolvers: a resolver's work may conflict too, and then another resolver resolves that conflict."""

from collections.abc import AsyncIterator

from forkjoin.core.model import Agent, Merge
from forkjoin.git import git
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.report import MERGE_REPORT
from forkjoin.store.store import Store
from forkjoin.workspace.agent_work import find_work_end


async def find_original_agent(store: Store, agent: Agent) -> Agent:
    """Return the agent at the origin of a chain of resolvers.

    This is the agent whose conflict the first resolver of the chain up to `agent` resolves. Return an agent that is no
    resolver unchanged.
    """
    async for resolved in _walk_resolved_agents(store, agent):
        agent = resolved
    return agent


async def find_resolved_agents(context: MergeContext, resolver: Agent, tip: str) -> dict[int, str]:
    """Return the agents that are merged together with a resolver.

    The result has their final commits, by agent number. These are the agents whose conflicts it resolves, directly or
    through other resolvers. The walk along this chain ends at an agent that is merged already, or whose work the
    resolver's commit `tip` does not contain completely.
    """
    found: dict[int, str] = {}
    async for agent in _walk_resolved_agents(context.services.store, resolver):
        if agent.timing.removed:
            continue
        commit = await find_work_end(context.services.store, context.common_dir, agent)
        if agent.merge is Merge.MERGED or not (commit and await context.is_ancestor(commit, tip)):
            break
        found[agent.number] = commit
    return found


async def find_undone_agents(context: MergeContext, tip: str, target_commit: str) -> list[Agent]:
    """Return the agents whose undone work a merge of `tip` would bring back.

    Their merge into the target was undone, and `tip` contains their commits.
    """
    new = set((await git.output(context.common_dir, "rev-list", tip, f"^{target_commit}", "--")).split())
    jobs = await context.services.store.merges.into(context.job.project, context.job.target)
    merged = [branch for job in jobs for branch in MERGE_REPORT.validate_json(job.answer or "").merged]
    numbers = dict.fromkeys(int(branch.id[1:]) for branch in merged if branch.commit in new)
    agents = await context.services.store.agents.get_all(numbers)
    return [agent for agent in agents if agent.merge is not Merge.MERGED]


async def _walk_resolved_agents(store: Store, agent: Agent) -> AsyncIterator[Agent]:
    """Yield the agent whose conflict this agent resolves, if this agent is a resolver.

    If the yielded agent is a resolver too, yield the agent whose conflict that one resolves, and so on.
    """
    while agent.conflict.agent is not None and await store.agents.final_states([agent.conflict.agent]):
        agent = await store.agents.get(agent.conflict.agent)
        yield agent
