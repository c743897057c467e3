"""Changes of refs that are not explained by forkjoin or by the agents themselves, while an agent runs."""

from forkjoin.core.model import Agent
from forkjoin.git.changed_refs import find_changed_refs, read_ref_listing
from forkjoin.git.file_names import printable_list
from forkjoin.git.refs import short_name
from forkjoin.services import Services


async def record_refs(services: Services, agent: Agent) -> None:
    """Record the repository's refs for the comparison at the agent's end.

    Refs recorded since the agent's last result are kept.
    """
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    if (listing := await read_ref_listing(common_dir)) is not None:
        await services.store.baselines.set_refs(agent, listing)


async def find_foreign_ref_changes(services: Services, agent: Agent, common_dir: str) -> list[str]:
    """Return a warning that names refs which changed while the agent ran.

    The list is empty if none did.

    Branches of this agent and of other running agents are left out, and so are changes by merges.
    """
    before = await services.store.baselines.refs(agent)
    if before is None:
        return []
    now = await read_ref_listing(common_dir)
    if now is None:
        return [
            "forkjoin can't tell whether other branches changed while it ran: git could not list the refs at its end."
        ]
    ended = await services.store.baselines.ended_branches(agent, before.at)
    known = {f"refs/heads/{branch}": commit for branch, commit in ended.items()}
    changes = [change for change in find_changed_refs(before.listing, now, known) if change.ref != agent.ref]
    if not changes:
        return []
    names = [short_name(change.ref) for change in changes]
    branches = await services.store.baselines.active_branches(agent, names, before.at)
    merges = await services.store.baselines.merge_commits(agent.project, [change.ref for change in changes])
    working = branches.difference(ended)
    left = [
        change for change in changes if short_name(change.ref) not in working and (change.ref, change.new) not in merges
    ]
    if not left:
        return []
    named = printable_list([str(change) for change in left])
    return [f"While it ran, refs other than its own changed, and not by a merge: {named}. Check these changes."]
