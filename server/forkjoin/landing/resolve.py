"""Whom a landing's conflicts are given to: an agent for each, recorded with the answer that names it.

Each starts from the target as the landing leaves it, with the merge that conflicts put in place (branch/merging.py);
one whose files meet those of another starts from that one's resolution.
"""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from forkjoin.branch import git
from forkjoin.branch.conflict import try_merge
from forkjoin.branch.naming import find_naming
from forkjoin.error import GitError, is_passing
from forkjoin.landing.answer import Landed
from forkjoin.landing.brief import Conflict, find_origin, write_brief
from forkjoin.landing.order import Order
from forkjoin.model import Agent, Spec
from forkjoin.record.rows import NewAgent, Others, Place

log = logging.getLogger(__name__)

#: What whoever resolves a conflict is told as was the one whose work conflicts.
_ALIKE = {
    *("agent", "model", "exclusive", "paths", "priority", "timeout_minutes", "silence_minutes", "budget_usd", "retries")
}
#: Characters of a name: a number may follow.
_NAME = 58


@dataclass(frozen=True, slots=True)
class Resolving:
    """Who resolves which conflict: whoever does already, by the number of the one that conflicts; and new ones."""

    known: dict[int, int]
    new: list[NewAgent]
    place: Place

    def tell(self, landed: Landed, numbers: Sequence[int]) -> Landed:
        """The answer that names them, where the new ones have these numbers."""
        found = self.known | {new.resolves: number for new, number in zip(self.new, numbers, strict=True)}
        by = {f"a{number}": f"a{resolver}" for number, resolver in found.items()}
        return replace(landed, conflicted=tuple(replace(one, resolving=by.get(one.id)) for one in landed.conflicted))


async def find_resolving(order: Order, landed: Landed) -> Resolving:
    """Who is to resolve the conflicts of a landing, which has moved its target."""
    resolving = Resolving({}, [], await find_naming(order.common_dir, order.rooms.home.worktrees))
    conflicts: list[Conflict] = []
    for agent in await order.rooms.store.agents_numbered(int(one.id[1:]) for one in landed.conflicted):
        if by := await order.rooms.store.resolver(agent):
            resolving.known[agent.number] = by
            continue
        try:
            if conflict := await _look(order, landed, agent, conflicts):
                resolving.new.append(await _make(order, landed, conflict, conflicts))
                conflicts.append(conflict)
        except GitError as error:
            if is_passing(error):
                raise
            log.warning("nobody can be given the conflict of %s: %s", agent.label, error)
    return resolving


async def _look(order: Order, landed: Landed, agent: Agent, before: Sequence[Conflict]) -> Conflict | None:
    """How an agent's work conflicts with the target now; none where its branch is gone."""
    theirs = await git.tip(order.common_dir, f"refs/heads/{agent.branch}")
    if theirs is None or landed.commit is None:
        return None
    files = (await try_merge(order.common_dir, landed.commit, theirs)).conflicts
    behind = [one for one in before if not set(one.files).isdisjoint(files)]
    return Conflict(agent, landed.commit, theirs, files, tuple(one.agent.number for one in behind))


async def _make(order: Order, landed: Landed, conflict: Conflict, before: Sequence[Conflict]) -> NewAgent:
    landing, agent = order.landing, conflict.agent
    verify = landing.verify or agent.spec.verify
    origin = await find_origin(order.rooms.store, agent)
    alike = agent.spec.model_dump(include=_ALIKE)
    task = await write_brief(order, landed, conflict, verify)
    behind = tuple(place for place, one in enumerate(before) if one.agent.number in conflict.behind)
    return NewAgent(
        project=landing.project,
        lead=landing.lead,
        name=f"resolve-{origin.name}"[:_NAME],
        derived=True,
        spec=Spec(task=task, verify=verify, on_failed_dependency="run", **alike),
        base=conflict.ours,
        checkout=landing.checkout,
        conversation=str(uuid.uuid4()),
        environment=landing.environment,
        account=agent.account,
        recipe=order.recipe,
        after=Others((), behind),
        resolves=agent.number,
        theirs=conflict.theirs,
    )
