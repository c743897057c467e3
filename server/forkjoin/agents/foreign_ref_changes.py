"""Changes of refs while an agent runs that neither forkjoin nor an agent's own work explains."""

from forkjoin.core.model import Agent
from forkjoin.git.changed_refs import ChangedRef, find_changed_refs, read_ref_listing
from forkjoin.git.refs import short_name
from forkjoin.services import Services


async def record_refs(services: Services, agent: Agent) -> None:
    """Record the repository's refs, for the comparison at the agent's end.

    If refs were recorded after the agent's last result, for an earlier attempt, these stay. Nothing is recorded if git
    can't list the refs.
    """
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    if (listing := await read_ref_listing(common_dir)) is not None:
        await services.store.baselines.set_refs(agent, listing)


async def find_foreign_ref_changes(services: Services, agent: Agent, common_dir: str) -> list[ChangedRef] | None:
    """Return the changes of refs since `record_refs` that forkjoin can't explain.

    It can explain changes by merges, of the agent's own branch, and of the branches of agents that run or were removed.
    The branch of an agent that has ended meanwhile may be at the commit in that agent's result.

    Returns:
        The changes, or `None` if git can't list the refs. The list is also empty if no refs were recorded.
    """
    before = await services.store.baselines.refs(agent)
    if before is None:
        return []
    now = await read_ref_listing(common_dir)
    if now is None:
        return None
    ended = await services.store.baselines.ended_branches(agent, before.at)
    expected = {f"refs/heads/{branch}": commit for branch, commit in ended.items()}
    changes = [change for change in find_changed_refs(before.listing, now, expected) if change.ref != agent.ref]
    if not changes:
        return []
    names = [short_name(change.ref) for change in changes]
    branches = await services.store.baselines.active_branches(agent, names, before.at)
    merges = await services.store.baselines.merge_commits(agent.project, [change.ref for change in changes])
    working = branches.difference(ended)
    return [
        change for change in changes if short_name(change.ref) not in working and (change.ref, change.new) not in merges
    ]
