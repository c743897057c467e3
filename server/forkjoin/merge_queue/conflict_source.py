"""Whose work it is that resolves a conflict: that may be one that resolves another's, and so on."""

from collections.abc import AsyncIterator

from forkjoin.core.model import Agent, Merge
from forkjoin.git import git
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.report import MERGE_REPORT
from forkjoin.store.store import Store
from forkjoin.workspace.agent_work import find_end


async def find_origin(store: Store, agent: Agent) -> Agent:
    """Whose task it is about, in truth: of one that resolves a conflict, the agent whose work that is."""
    async for other in _climb(store, agent):
        agent = other
    return agent


async def find_resolved(order: MergeContext, agent: Agent, tip: str) -> dict[int, str]:
    """Those whose conflict it resolves, or that one's, and whose work its branch has, all of it: where that ends."""
    found: dict[int, str] = {}
    async for other in _climb(order.services.store, agent):
        if other.timing.removed:
            continue
        theirs = await find_end(order.services.store, order.common_dir, other)
        if other.merge is Merge.MERGED or not (theirs and await order.has(theirs, tip)):
            break
        found[other.number] = theirs
    return found


async def find_undone(order: MergeContext, tip: str, target: str) -> list[Agent]:
    """Those whose work was merged into the target, is in it no more, and would be again with `tip`."""
    new = set((await git.output(order.common_dir, "rev-list", tip, f"^{target}", "--")).split())
    merges = await order.services.store.merges.into(order.landing.project, order.landing.target)
    merged = [one for landing in merges for one in MERGE_REPORT.validate_json(landing.answer or "").merged]
    numbers = dict.fromkeys(int(one.id[1:]) for one in merged if one.commit in new)
    agents = await order.services.store.agents.get_all(numbers)
    return [agent for agent in agents if agent.merge is not Merge.MERGED]


async def _climb(store: Store, agent: Agent) -> AsyncIterator[Agent]:
    """The one whose conflict it resolves, the one whose conflict that resolves, and so on, while they are recorded."""
    while agent.conflict.agent is not None and await store.agents.final_states([agent.conflict.agent]):
        agent = await store.agents.get(agent.conflict.agent)
        yield agent
