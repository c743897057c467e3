"""Whom a landing's conflicts are given to: an agent for each, recorded with the answer that names it.

Each starts from the target as the landing leaves it, with the merge that conflicts put in place (branch/merging.py);
one whose files meet those of another starts from that one's resolution.
"""

import logging
import uuid
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from forkjoin.core.agent_spec import Spec
from forkjoin.core.error import GitRefusedError
from forkjoin.core.model import FINAL, Agent, Merge, State
from forkjoin.git.branch_names import find_naming_scheme
from forkjoin.git.merge_tree import try_merge
from forkjoin.merge_queue.conflict_source import find_origin
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.report import MergeReport
from forkjoin.merge_queue.resolver_task import MergeConflict, write_resolver_task
from forkjoin.store.rows import NewAgent, Others, Place
from forkjoin.workspace.agent_work import find_end
from forkjoin.workspace.workspace import find_account

log = logging.getLogger(__name__)

T = TypeVar("T")

#: What whoever resolves a conflict is told as was the one whose work conflicts.
_ALIKE = {
    *("agent", "model", "exclusive", "paths", "priority", "timeout_minutes", "silence_minutes", "budget_usd"),
    *("retries", "permissions"),
}
#: Characters of a name: a number may follow.
_NAME = 58


@dataclass(frozen=True, slots=True)
class ResolverAssignments:
    """Who resolves which conflict: whoever does already, by the number of the one that conflicts; and new ones."""

    known: dict[int, int]
    new: list[NewAgent]
    place: Place

    def tell(self, landed: MergeReport, numbers: Sequence[int]) -> MergeReport:
        """The answer that names them, where the new ones have these numbers."""
        found = self.known | {new.resolves: number for new, number in zip(self.new, numbers, strict=True)}
        by = {f"a{number}": f"a{resolver}" for number, resolver in found.items()}
        return replace(landed, conflicted=tuple(replace(one, resolving=by.get(one.id)) for one in landed.conflicted))


async def assign_resolvers(order: MergeContext, landed: MergeReport) -> ResolverAssignments:
    """Who is to resolve the conflicts of a landing, which has moved its target."""
    store, landing = order.services.store, order.landing
    resolving = ResolverAssignments({}, [], await find_naming_scheme(order.common_dir, order.services.home.worktrees))
    live = [
        one for one in await store.merges.resolvers(landing.project, landing.target) if not await _is_stuck(order, one)
    ]
    conflicts = [conflict for one in live if (conflict := await _look_at(order, landed, one))]
    for agent in await store.agents.get_all(int(one.id[1:]) for one in landed.conflicted):
        theirs = await find_end(store, order.common_dir, agent)
        if by := next(
            (one for one in live if (one.conflict.agent, one.conflict.commit) == (agent.number, theirs)), None
        ):
            resolving.known[agent.number] = by.number
            continue
        conflict = await _unless_git_fails(agent, _look(order, landed, agent, theirs, conflicts)) if theirs else None
        if conflict and (new := await _unless_git_fails(agent, _make(order, landed, conflict, conflicts))):
            resolving.new.append(new)
            conflicts.append(conflict)
    return resolving


async def _unless_git_fails(agent: Agent, found: Awaitable[T]) -> T | None:
    try:
        return await found
    except GitRefusedError as error:
        log.warning("nobody can be given the conflict of %s: %s", agent.label, error)
        return None


async def _is_stuck(order: MergeContext, resolver: Agent) -> bool:
    """Whether it can't land: it has, or is to get, the work of one before it that does not."""
    for other in await order.services.store.agents.get_all(resolver.dependencies.after):
        gone = other.timing.removed is not None and other.merge is not Merge.MERGED
        if gone or other.merge is Merge.REJECTED or other.state in FINAL - {State.SUCCEEDED}:
            end = await find_end(order.services.store, order.common_dir, other)
            has_it = end and await order.has(end, resolver.worktree.base)
            if has_it if resolver.worktree.prepared else other.state is State.SUCCEEDED:
                return True
    return False


async def _look_at(order: MergeContext, landed: MergeReport, resolver: Agent) -> MergeConflict | None:
    """What one is at that starts from the target as it is now; none where that, or the work, has gone on since."""
    if landed.commit and resolver.conflict.agent and await order.has(landed.commit, resolver.worktree.base):
        for agent in await order.services.store.agents.get_all([resolver.conflict.agent]):
            if await find_end(order.services.store, order.common_dir, agent) != resolver.conflict.commit:
                return None
            conflict = await _unless_git_fails(agent, _look(order, landed, agent, resolver.conflict.commit, ()))
            return conflict and replace(conflict, resolver=resolver.number)
    return None


async def _look(
    order: MergeContext, landed: MergeReport, agent: Agent, theirs: str, before: Sequence[MergeConflict]
) -> MergeConflict | None:
    """How an agent's work conflicts with the target now."""
    if landed.commit is None:
        return None
    files = (await try_merge(order.common_dir, landed.commit, theirs)).conflicts
    behind = [one for one in before if not set(one.files).isdisjoint(files)]
    return MergeConflict(agent, landed.commit, theirs, files, tuple(one.agent.number for one in behind))


async def _make(
    order: MergeContext, landed: MergeReport, conflict: MergeConflict, before: Sequence[MergeConflict]
) -> NewAgent:
    landing, agent = order.landing, conflict.agent
    verify = landing.verify or agent.spec.verify
    origin = await find_origin(order.services.store, agent)
    alike = agent.spec.model_dump(include=_ALIKE)
    task = await write_resolver_task(order, landed, conflict, verify)
    ahead = [one for one in before if one.agent.number in conflict.behind]
    new = [one for one in before if one.resolver is None]
    account = agent.account  # a restart may have lost the environment that tells
    if order.environment:
        account = find_account(order.services, order.environment, agent.spec.agent, order.recipe)
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
        account=account,
        recipe=order.recipe,
        after=Others(
            tuple(one.resolver for one in ahead if one.resolver),
            tuple(place for place, one in enumerate(new) if one in ahead),
        ),
        resolves=agent.number,
        theirs=conflict.theirs,
    )
