"""The branches that a merge job can merge, in their order, and why it skips other branches.

A branch that contains the work of another agent is merged after that agent's branch, never without it.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from forkjoin.core.merge_job import Strategy
from forkjoin.core.model import FINAL, Agent, State
from forkjoin.git.file_names import printable_list
from forkjoin.git.merging.merge_branches_in_order import Branch
from forkjoin.git.refs import Tip, describe_symbolic_target, find_symbolic_target
from forkjoin.git.worktrees import merge_in_worktree
from forkjoin.merge_queue.conflict_source import find_original_agent, find_resolved_agents, find_undone_agents
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.report import SkippedBranch, SkipReason, skip
from forkjoin.scheduling.best_candidate import rank_candidates
from forkjoin.workspace.agent_work import BranchMove, find_result_commit


@dataclass(frozen=True, slots=True)
class EligibleBranch:
    """An agent's branch that the job tries to merge."""

    agent: Agent
    branch: Branch  #: what git needs for the merge; `branch.needs` are the base agents that this job merges too
    #: The final commits of the agents whose conflicts this agent resolves, by number. This branch contains their work.
    resolved: Mapping[int, str] = field(hash=False)


async def find_eligible_branches(
    context: MergeContext, agents: Sequence[Agent], target: Tip, tips: Mapping[str, Tip]
) -> list[EligibleBranch | SkippedBranch]:
    """Return the eligible and the skipped branches of a job's agents, in merge order.

    An agent whose conflict another agent of the job resolves has no entry of its own.

    Args:
        target: The target's commit.
        tips: The tips of the agents' branches, by full ref name. A branch that doesn't exist has none.
    """
    store = context.services.store
    origins = {agent.number: (await find_original_agent(store, agent)).number for agent in agents}
    tasks = await store.agents.tasks(origins.values())
    skipped = await _skip_worse_candidates(context, agents)
    checks = _EligibilityChecks(context, target.commit)
    for agent in _sort(agents, await store.agents.dependencies(context.job.agents)):
        if agent.number not in checks.results:
            tip = tips.get(f"refs/heads/{agent.worktree.branch}") if agent.worktree.prepared else None
            task = tasks.get(origins[agent.number], "")
            result = skipped.get(agent.number) or await checks.check(agent, tip, task)
            resolved = result.resolved if isinstance(result, EligibleBranch) else ()
            checks.results.update(dict.fromkeys((agent.number, *resolved), result))
    return list(dict.fromkeys(checks.results.values()))


async def _skip_worse_candidates(context: MergeContext, agents: Sequence[Agent]) -> dict[int, SkippedBranch]:
    """Skip the ended candidates that rank below another candidate of this job.

    Both are candidates for the same task. The result is by agent number.
    """
    candidates = [agent for agent in agents if agent.candidates.first]
    best: dict[int, Agent] = {}
    ranked = rank_candidates(candidates, await context.services.store.results.get_all(candidates))
    worse = [
        agent
        for agent in ranked
        if best.setdefault(agent.candidates.first, agent) is not agent and agent.state in FINAL
    ]
    return {
        agent.number: skip(agent.id, SkipReason.NOT_BEST_CANDIDATE, best[agent.candidates.first].label)
        for agent in worse
    }


def _sort(agents: Sequence[Agent], dependencies: Mapping[int, AbstractSet[int]]) -> list[Agent]:
    """Sort the agents so that each follows its dependencies and its resolvers.

    Otherwise the given order stays. Of agents that wait for each other in a circle, the first one does not wait.

    Args:
        dependencies: The agents that each agent depends on, directly or indirectly, by number.
    """
    waiting = {agent.number: agent for agent in agents}
    ordered: list[Agent] = []
    while waiting:
        resolved = {agent.conflict.agent for agent in waiting.values()}
        free = (n for n in waiting if n not in resolved and waiting.keys().isdisjoint(dependencies.get(n, ())))
        ordered.append(waiting.pop(next(free, next(iter(waiting)))))
    return ordered


def _commit_message(strategy: Strategy, agent: Agent, task: str) -> str:
    text = " ".join(task.split())[:200]
    subject = f"Merge {agent.label}" if strategy == "merge" else f"{agent.name}: {text}"[:72]
    return f"{subject}\n\n{text}\n\nForkjoin-Agent: {agent.id}\n"


@dataclass(frozen=True, slots=True)
class _EligibilityChecks:
    """The checks of a job's branches. Each check uses the results of the branches that were checked before."""

    context: MergeContext
    target: str  #: the target's commit
    #: The results of the checks so far, by agent number.
    results: dict[int, EligibleBranch | SkippedBranch] = field(
        default_factory=dict[int, "EligibleBranch | SkippedBranch"]
    )

    async def check(self, agent: Agent, tip: Tip | None, task: str) -> EligibleBranch | SkippedBranch:
        """Return whether an agent's branch can be merged, or why it is skipped.

        Args:
            tip: The branch's tip; `None` if there is no such branch.
            task: The task of the agent, or of the agent whose conflict it resolves. The commit message quotes it.
        """
        if skipped := await self._skip_by_state(agent):
            return skipped
        if tip is None:
            return await self._skip_missing_branch(agent)
        if skipped := await self._skip_by_commit(agent, tip.commit):
            return skipped
        inherited = await self._find_inherited_work(agent, tip.commit) if agent.dependencies.after else {}
        squashed = {other.number for other in inherited if await self._is_squashed_into_target(other)}
        base_agents = self._pick_one_candidate_each(inherited, squashed)
        if skipped := self._skip_without_base(agent, base_agents, squashed):
            return skipped
        results = (self.results.get(other.number) for other in base_agents)
        needs = frozenset(result.agent.number for result in results if isinstance(result, EligibleBranch))
        base = await self._find_squashed_tip(agent, tip.commit) or self._find_base(agent, base_agents, squashed)
        message = _commit_message(self.context.job.strategy, agent, task)
        branch = Branch(agent.number, tip, message, needs, base)
        return EligibleBranch(agent, branch, await find_resolved_agents(self.context, agent, tip.commit))

    async def _skip_by_state(self, agent: Agent) -> SkippedBranch | None:
        """Skip an agent that is attached, has not ended, or did not succeed."""
        if agent.number in self.context.services.attached:
            return skip(agent.id, SkipReason.ATTACHED)
        if agent.state not in FINAL:
            return skip(agent.id, SkipReason.NOT_ENDED, agent.state)
        if agent.state is not State.SUCCEEDED and not self.context.job.include_failed:
            return skip(agent.id, SkipReason.NOT_SUCCEEDED, agent.state)
        return None

    async def _skip_missing_branch(self, agent: Agent) -> SkippedBranch:
        """Skip an agent that has no branch, or whose branch is a symbolic ref.

        An agent whose work the target contains counts as merged before, although its branch was deleted.
        """
        result = await self.context.services.store.results.get(agent.number)
        if result and result.commit and await self.context.is_ancestor(result.commit, self.target):
            has_commits = result.commit != agent.worktree.base
            return skip(agent.id, SkipReason.ALREADY_MERGED if has_commits else SkipReason.NO_COMMITS)
        target = await find_symbolic_target(self.context.common_dir, agent.ref)
        if target is None:
            return skip(agent.id, SkipReason.BRANCH_GONE)
        return skip(agent.id, SkipReason.BRANCH_IS_SYMBOLIC, describe_symbolic_target(target))

    async def _skip_by_commit(self, agent: Agent, tip: str) -> SkippedBranch | None:
        """Return why the branch is skipped because of the commit that it is at, or `None`.

        The reasons: the branch moved since its agent's end, has no commits of its own, or was squashed into the target
        before. A resolver's branch still has the conflict, or would bring back work that was undone.
        """
        if skipped := await self._skip_moved_branch(agent, tip):
            return skipped
        if tip == agent.worktree.base:
            return skip(agent.id, SkipReason.NO_COMMITS)
        squashed = await self.context.services.store.merges.last_squash(agent, self.context.job)
        if squashed and squashed[0] == tip and await self.context.is_ancestor(squashed[1], self.target):
            # git can't see that the target contains this work: a squash commit has no second parent.
            return skip(agent.id, SkipReason.ALREADY_MERGED)
        return await self._skip_resolver(agent, tip) if agent.conflict.agent is not None else None

    async def _skip_moved_branch(self, agent: Agent, tip: str) -> SkippedBranch | None:
        """Skip a branch that is no longer at the commit at which its agent ended.

        Nobody has reviewed the difference. Return `None` if it is at that commit, or only got commits that the target
        already contains.
        """
        ended_at = await find_result_commit(self.context.services.store, agent)
        if tip == ended_at:
            return None
        is_ancestor = self.context.is_ancestor
        if ended_at and await is_ancestor(ended_at, tip) and await is_ancestor(tip, self.target):
            return None
        moved = BranchMove(agent, ended_at, tip)
        return skip(agent.id, SkipReason.MOVED_SINCE_END, moved, moved.name)

    async def _skip_resolver(self, agent: Agent, tip: str) -> SkippedBranch | None:
        """Skip a resolver that left the conflict, or would bring back undone work.

        Return `None` if its branch can be merged.
        """
        if agent.state is not State.SUCCEEDED and (
            why := await merge_in_worktree.describe_unresolved(
                self.context.common_dir, agent.worktree.base, agent.conflict.commit, tip
            )
        ):
            return skip(agent.id, SkipReason.CONFLICT_UNRESOLVED, why)
        undone = await find_undone_agents(self.context, tip, self.target)
        missing = [other.label for other in undone if not isinstance(self.results.get(other.number), EligibleBranch)]
        return skip(agent.id, SkipReason.RESTORES_UNDONE_WORK, printable_list(missing)) if missing else None

    async def _find_inherited_work(self, agent: Agent, tip: str) -> dict[Agent, str]:
        """Return the dependencies whose work is in `tip` but not in the target.

        The result has their final commits. For a dependency without commits, its own dependencies are examined instead.
        """
        found, numbers = dict[Agent, str](), list(agent.dependencies.after)
        is_ancestor = self.context.is_ancestor
        for number in numbers:
            for other in await self.context.services.store.agents.get_all([number]):
                result = await self.context.services.store.results.get(number)
                commit = result.commit if result else None
                if commit == other.worktree.base:
                    numbers += [after for after in other.dependencies.after if after not in numbers]
                elif commit and await is_ancestor(commit, tip) and not await is_ancestor(commit, self.target):
                    found[other] = commit
        return found

    async def _is_squashed_into_target(self, agent: Agent) -> bool:
        squashed = await self.context.services.store.merges.last_squash(agent, self.context.job)
        return squashed is not None and await self.context.is_ancestor(squashed[1], self.target)

    def _pick_one_candidate_each(self, inherited: Mapping[Agent, str], squashed: set[int]) -> list[Agent]:
        """Return the agents of `inherited`, with equal candidates only once.

        Candidates for a task are equal if they ended at the same commit. The one is a candidate whose work is or will
        be in the target, if there is such a candidate.

        Args:
            squashed: The numbers of the agents whose work was squashed into the target before.
        """

        def is_missing(agent: Agent) -> bool:
            return agent.number not in squashed and not isinstance(self.results.get(agent.number), EligibleBranch)

        picked = dict[tuple[int, str], Agent]()
        for agent in sorted(inherited, key=is_missing):
            picked.setdefault((agent.candidates.first or -agent.number, inherited[agent]), agent)
        return list(picked.values())

    def _skip_without_base(
        self, agent: Agent, base_agents: Sequence[Agent], squashed: set[int]
    ) -> SkippedBranch | None:
        """Skip a branch that contains the work of an unmerged base agent.

        This job does not merge the base agent, and the target lacks its work. Return `None` if there is no such base
        agent.
        """
        for other in base_agents:
            if other.number not in squashed.union(self.results) and not other.timing.removed:
                return skip(agent.id, SkipReason.BASE_AGENT_NOT_NAMED, other.label, self.context.target_name)
            result = self.results.get(other.number)
            if isinstance(result, SkippedBranch) and not result.has_nothing_to_merge:
                return skip(agent.id, SkipReason.BASE_AGENT_SKIPPED, other.label)
        return None

    def _find_base(self, agent: Agent, base_agents: Sequence[Agent], squashed: set[int]) -> str | None:
        """Return the commit from which the branch's own work begins, as merge base.

        Return `None` if git finds the right merge base. It doesn't if the work of the base agents gets into the target
        by a squash, or got into it by an earlier squash: then the target has other commits than the branch.
        """
        squash = self.context.job.strategy == "squash"
        in_other_commits = {other.number for other in base_agents if squash or other.number not in self.results}
        return agent.worktree.base if in_other_commits and in_other_commits <= squashed.union(self.results) else None

    async def _find_squashed_tip(self, agent: Agent, tip: str) -> str | None:
        """Return the commit at which the branch was squashed into the target before.

        Return `None` if it never was, or if the branch or the target no longer contains that work.
        """
        if agent.attempt == 1:
            return None
        squashed = await self.context.services.store.merges.last_squash(agent, self.context.job)
        if squashed is None:
            return None
        squashed_tip, commit = squashed
        is_ancestor = self.context.is_ancestor
        both = squashed_tip and await is_ancestor(squashed_tip, tip) and await is_ancestor(commit, self.target)
        return squashed_tip if both else None
