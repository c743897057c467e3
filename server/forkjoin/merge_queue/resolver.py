"""Resolvers: agents spawned for the conflicts of a merge job. They are recorded together with the job's report.

A resolver starts from the target after the merge, with the conflicting merge already begun in its worktree (see
git/worktrees/merge_in_worktree.py). If conflicts have files in common, each of their resolvers starts from the work of
the resolver before it.
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
from forkjoin.merge_queue.conflict_source import find_original_agent
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.report import MergeReport
from forkjoin.merge_queue.resolver_task import MergeConflict, write_resolver_task
from forkjoin.store.rows import NewAgent, Others, Place
from forkjoin.workspace.agent_work import find_work_end
from forkjoin.workspace.workspace import find_account

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The fields of an agent's spec that its resolver gets too.
_COPIED_FIELDS = {
    *("agent", "model", "exclusive", "paths", "priority", "timeout_minutes", "silence_minutes", "budget_usd"),
    *("retries", "permissions"),
}
#: Characters of a resolver's name. A number may be added.
_NAME_CHARS = 58


@dataclass(frozen=True, slots=True)
class ResolverAssignments:
    """The resolvers of a job's conflicts: agents that exist, and agents that are recorded with the job's report."""

    existing: dict[int, int]  #: the number of the resolver, by the number of the conflicting agent
    new: list[NewAgent]
    place: Place  #: makes the branch name and the worktree path of a new agent

    def add_to(self, report: MergeReport, numbers: Sequence[int]) -> MergeReport:
        """Return the report with the resolvers' ids.

        Args:
            numbers: The numbers that the new resolvers got, in the order of `new`.
        """
        resolvers = self.existing | {new.resolves: number for new, number in zip(self.new, numbers, strict=True)}
        ids = {f"a{number}": f"a{resolver}" for number, resolver in resolvers.items()}
        return replace(report, conflicted=tuple(replace(one, resolving=ids.get(one.id)) for one in report.conflicted))


async def assign_resolvers(context: MergeContext, report: MergeReport) -> ResolverAssignments:
    """Find a resolver for each conflict of a job, or make a new one's record.

    The caller has moved the target. A conflict at which git fails gets no resolver.
    """
    store, job = context.services.store, context.job
    naming = await find_naming_scheme(context.common_dir, context.services.home.worktrees)
    assignments = ResolverAssignments({}, [], naming)
    resolvers = [
        one for one in await store.merges.resolvers(job.project, job.target) if not await _is_stuck(context, one)
    ]
    conflicts = [conflict for one in resolvers if (conflict := await _find_current_conflict(context, report, one))]
    for agent in await store.agents.get_all(int(branch.id[1:]) for branch in report.conflicted):
        theirs = await find_work_end(store, context.common_dir, agent)
        same = (one for one in resolvers if (one.conflict.agent, one.conflict.commit) == (agent.number, theirs))
        if resolver := next(same, None):
            assignments.existing[agent.number] = resolver.number
            continue
        found = _find_conflict(context, report, agent, theirs, conflicts) if theirs else None
        conflict = await _unless_git_refuses(agent, found) if found else None
        if conflict and (new := await _unless_git_refuses(agent, _make_resolver(context, report, conflict, conflicts))):
            assignments.new.append(new)
            conflicts.append(conflict)
    return assignments


async def _unless_git_refuses(agent: Agent, result: Awaitable[T]) -> T | None:
    try:
        return await result
    except GitRefusedError as error:
        log.warning("no resolver for the conflict of %s: %s", agent.label, error)
        return None


async def _is_stuck(context: MergeContext, resolver: Agent) -> bool:
    """Return whether a resolver contains a dependency that won't be merged.

    The resolver contains, or will contain, the work of that dependency. Such a resolver is not used again for its
    conflict.
    """
    for other in await context.services.store.agents.get_all(resolver.dependencies.after):
        is_gone = other.timing.removed is not None and other.merge is not Merge.MERGED
        if is_gone or other.merge is Merge.REJECTED or other.state in FINAL - {State.SUCCEEDED}:
            end = await find_work_end(context.services.store, context.common_dir, other)
            contains_work = end and await context.is_ancestor(end, resolver.worktree.base)
            if contains_work if resolver.worktree.prepared else other.state is State.SUCCEEDED:
                return True
    return False


async def _find_current_conflict(context: MergeContext, report: MergeReport, resolver: Agent) -> MergeConflict | None:
    """Return the conflict that a resolver works on, if that conflict still exists.

    Return `None` if the resolver starts from an older commit of the target, or the conflicting agent has other work
    now.
    """
    if not (report.commit and resolver.conflict.agent):
        return None
    if not await context.is_ancestor(report.commit, resolver.worktree.base):
        return None
    for agent in await context.services.store.agents.get_all([resolver.conflict.agent]):
        theirs = resolver.conflict.commit
        if await find_work_end(context.services.store, context.common_dir, agent) == theirs:
            conflict = await _unless_git_refuses(agent, _find_conflict(context, report, agent, theirs, ()))
            return conflict and replace(conflict, resolver=resolver.number)
    return None


async def _find_conflict(
    context: MergeContext, report: MergeReport, agent: Agent, theirs: str, before: Sequence[MergeConflict]
) -> MergeConflict | None:
    """Return how an agent's work conflicts with the target now.

    Args:
        theirs: The agent's final commit.
        before: Conflicts that other resolvers resolve. Those with files in common are resolved before this one.
    """
    if report.commit is None:
        return None
    files = (await try_merge(context.common_dir, report.commit, theirs)).conflicts
    overlapping = tuple(one.agent.number for one in before if not set(one.files).isdisjoint(files))
    return MergeConflict(agent, report.commit, theirs, files, overlapping)


async def _make_resolver(
    context: MergeContext, report: MergeReport, conflict: MergeConflict, before: Sequence[MergeConflict]
) -> NewAgent:
    job, agent = context.job, conflict.agent
    verify = job.verify or agent.spec.verify
    origin = await find_original_agent(context.services.store, agent)
    copied = agent.spec.model_dump(include=_COPIED_FIELDS)
    task = await write_resolver_task(context, report, conflict, verify)
    first = [one for one in before if one.agent.number in conflict.resolved_before]
    new = [one for one in before if one.resolver is None]
    account = agent.account  # used if a restart has lost the environment
    if context.environment:
        account = find_account(context.services, context.environment, agent.spec.agent, context.recipe)
    return NewAgent(
        project=job.project,
        lead=job.lead,
        name=f"resolve-{origin.name}"[:_NAME_CHARS],
        derived=True,
        spec=Spec(task=task, verify=verify, on_failed_dependency="run", **copied),
        base=conflict.ours,
        checkout=job.checkout,
        conversation=str(uuid.uuid4()),
        environment=job.environment,
        account=account,
        recipe=context.recipe,
        after=Others(
            tuple(one.resolver for one in first if one.resolver),
            tuple(place for place, one in enumerate(new) if one in first),
        ),
        resolves=agent.number,
        theirs=conflict.theirs,
    )
