"""What is to be landed: branches in their order, none before what it was built on, and why some are not tried."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from forkjoin.core.model import FINAL, Agent, State, Strategy
from forkjoin.git.file_names import printable_list
from forkjoin.git.merging.merge_branches_in_order import Branch
from forkjoin.git.refs import Tip, describe_symbolic_target, find_symbolic_target
from forkjoin.git.worktrees import merge_in_worktree
from forkjoin.merge_queue.conflict_source import find_origin, find_resolved, find_undone
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.report import MERGED_BEFORE, NOTHING, SkippedBranch
from forkjoin.scheduling.best_candidate import rank_candidates
from forkjoin.scheduling.gates import PERSON_ATTACHED
from forkjoin.workspace.agent_work import Moved, find_last


@dataclass(frozen=True, slots=True)
class EligibleBranch:
    """An agent's branch that may land."""

    agent: Agent
    branch: Branch  #: needs those whose work it has too, and that land first; numbered as its agent
    #: Those whose conflicts it resolves, which are merged with it: their numbers, and where their work ends.
    brings: Mapping[int, str] = field(hash=False)


async def find_eligible_branches(
    order: MergeContext, agents: Sequence[Agent], target: Tip, tips: Mapping[str, Tip]
) -> list[EligibleBranch | SkippedBranch]:
    """What is to become of each of a landing's agents, in the order in which they land."""
    store = order.services.store
    origins = {agent.number: (await find_origin(store, agent)).number for agent in agents}
    tasks = await store.agents.tasks(origins.values())
    lost = await _find_lost(order, agents)
    entries = _EligibilityChecks(order, target.commit)
    for agent in _sort(agents, await store.agents.dependencies(order.landing.agents)):
        if agent.number not in entries.found:  # with whoever resolves its conflict
            tip = tips.get(f"refs/heads/{agent.worktree.branch}") if agent.worktree.prepared else None
            task = tasks.get(origins[agent.number], "")
            one = lost.get(agent.number) or await entries.find(agent, tip, task)
            brought = one.brings if isinstance(one, EligibleBranch) else ()
            entries.found.update(dict.fromkeys((agent.number, *brought), one))
    return list(dict.fromkeys(entries.found.values()))


async def _find_lost(order: MergeContext, agents: Sequence[Agent]) -> dict[int, SkippedBranch]:
    """Who of these is not the best of the candidates for one task that are named here, and so does not land."""
    candidates = [agent for agent in agents if agent.candidates.first]
    best: dict[int, Agent] = {}
    ranked = rank_candidates(candidates, await order.services.store.results.get_all(candidates))
    lost = [
        agent
        for agent in ranked
        if best.setdefault(agent.candidates.first, agent) is not agent and agent.state in FINAL
    ]
    words = "it lost to {}; named alone, it is merged all the same"
    return {agent.number: SkippedBranch(agent.id, words.format(best[agent.candidates.first].label)) for agent in lost}


def _sort(agents: Sequence[Agent], before: Mapping[int, AbstractSet[int]]) -> list[Agent]:
    """These in their order, but one that comes after a later one, or whose conflict that resolves, follows it.

    Args:
        before: Whom each comes after, also by others.
    """
    waiting = {agent.number: agent for agent in agents}
    sorted_: list[Agent] = []
    while waiting:
        resolved = {agent.conflict.agent for agent in waiting.values()}
        free = (n for n in waiting if n not in resolved and waiting.keys().isdisjoint(before.get(n, ())))
        sorted_.append(waiting.pop(next(free, next(iter(waiting)))))
    return sorted_


def _message(strategy: Strategy, agent: Agent, task: str) -> str:
    text = " ".join(task.split())[:200]
    subject = f"Merge {agent.label}" if strategy == "merge" else f"{agent.name}: {text}"[:72]
    return f"{subject}\n\n{text}\n\nForkjoin-Agent: {agent.id}\n"


@dataclass(frozen=True, slots=True)
class _EligibilityChecks:
    """What is known of those that are landed first, while the next one is looked at."""

    order: MergeContext
    target: str  #: the commit
    found: dict[int, EligibleBranch | SkippedBranch] = field(
        default_factory=dict[int, "EligibleBranch | SkippedBranch"]
    )  #: by agents' numbers

    async def find(self, agent: Agent, tip: Tip | None, task: str) -> EligibleBranch | SkippedBranch:
        """What is to become of an agent's branch."""
        if why := await self._why_not(agent, tip):
            return SkippedBranch(agent.id, why)
        assert tip is not None
        inherited = await self._find_inherited(agent, tip.commit) if agent.dependencies.after else {}
        here = {other.number for other in inherited if await self._is_squashed(other)}
        grounds = self._one_of_each(inherited, here)
        if why := self._why_groundless(grounds, here):
            return SkippedBranch(agent.id, why)
        ahead = (self.found.get(other.number) for other in grounds)
        needs = frozenset(one.agent.number for one in ahead if isinstance(one, EligibleBranch))
        base = await self._gone_on_from(agent, tip.commit) or self._begins_at(agent, grounds, here)
        branch = Branch(agent.number, tip, _message(self.order.landing.strategy, agent, task), needs, base)
        return EligibleBranch(agent, branch, await find_resolved(self.order, agent, tip.commit))

    async def _why_not(self, agent: Agent, tip: Tip | None) -> str | None:
        """Why an agent's branch is not even tried, if there is a reason."""
        if agent.number in self.order.services.attached:
            return PERSON_ATTACHED
        if agent.state not in FINAL:
            return f"not ended yet (it is {agent.state}); wait for it with wait_agents"
        if agent.state is not State.SUCCEEDED and not self.order.landing.include_failed:
            return f"it did not succeed (it is {agent.state}); see get_result"
        if tip is None:
            return await self._why_gone(agent)
        if why := await self._why_unreviewed(agent, tip.commit):
            return why
        if tip.commit == agent.worktree.base:
            return NOTHING
        squashed = await self.order.services.store.merges.last_squash(agent, self.order.landing)
        if squashed and squashed[0] == tip.commit and await self.order.has(squashed[1], self.target):
            return MERGED_BEFORE  # by its resolver, it may be: git would find the conflict again
        return await self._why_no_resolution(agent, tip.commit) if agent.conflict.agent is not None else None

    async def _why_unreviewed(self, agent: Agent, tip: str) -> str | None:
        """Return why a branch that moved since its agent's end does not land, if so."""
        ended_at = await find_last(self.order.services.store, agent)
        if tip == ended_at:
            return None
        if ended_at and await self.order.has(ended_at, tip) and await self.order.has(tip, self.target):
            return None
        moved = Moved(agent, ended_at, tip)
        return f"{moved}, which nobody has reviewed. Review it with read_diff {moved.name}, then merge {moved.name}"

    async def _why_gone(self, agent: Agent) -> str:
        result = await self.order.services.store.results.get(agent.number)
        if result and result.commit and await self.order.has(result.commit, self.target):
            return NOTHING if result.commit == agent.worktree.base else MERGED_BEFORE
        target = await find_symbolic_target(self.order.common_dir, agent.ref)
        return "its branch is gone" if target is None else f"its branch is {describe_symbolic_target(target)}"

    async def _why_no_resolution(self, agent: Agent, tip: str) -> str | None:
        """Why what resolves a conflict does not land: it leaves it, or would bring what was taken back."""
        if agent.state is not State.SUCCEEDED and (
            why := await merge_in_worktree.why_unresolved(
                self.order.common_dir, agent.worktree.base, agent.conflict.commit, tip
            )
        ):
            return f"it did not resolve the conflict: {why}"
        undone = await find_undone(self.order, tip, self.target)
        others = [one.label for one in undone if not isinstance(self.found.get(one.number), EligibleBranch)]
        work = f"what is in the target no more, the work of {printable_list(others)}"
        return f"it would bring back {work}: merge that first, or with it" if others else None

    async def _find_inherited(self, agent: Agent, tip: str) -> dict[Agent, str]:
        """Those it came after whose work its branch has, and the target has not; for one without work, those before it.

        With each, the commit at which it ended.
        """
        found, numbers = dict[Agent, str](), list(agent.dependencies.after)
        for number in numbers:
            for other in await self.order.services.store.agents.get_all([number]):
                result = await self.order.services.store.results.get(number)
                commit = result.commit if result else None
                if commit == other.worktree.base:
                    numbers += [one for one in other.dependencies.after if one not in numbers]
                elif commit and await self.order.has(commit, tip) and not await self.order.has(commit, self.target):
                    found[other] = commit
        return found

    async def _is_squashed(self, agent: Agent) -> bool:
        """Whether the target has a branch's work as a commit of its own."""
        squashed = await self.order.services.store.merges.last_squash(agent, self.order.landing)
        return squashed is not None and await self.order.has(squashed[1], self.target)

    def _one_of_each(self, inherited: Mapping[Agent, str], here: set[int]) -> list[Agent]:
        """Those, but of candidates with the same commit one alone: who lands, or has landed here, if any."""

        def is_missing(one: Agent) -> bool:
            return one.number not in here and not isinstance(self.found.get(one.number), EligibleBranch)

        one_of = dict[tuple[int, str], Agent]()
        for other in sorted(inherited, key=is_missing):
            one_of.setdefault((other.candidates.first or -other.number, inherited[other]), other)
        return list(one_of.values())

    def _why_groundless(self, grounds: Sequence[Agent], here: set[int]) -> str | None:
        """Why what stands on the work of these can't land now, if it can't."""
        for other in grounds:
            if other.number not in here.union(self.found) and not other.timing.removed:
                return f"it has the work of {other.label}, which is not in {self.order.into}: name that one too"
            skipped = self.found.get(other.number)
            if isinstance(skipped, SkippedBranch) and skipped.why not in (MERGED_BEFORE, NOTHING):
                return f"it has the work of {other.label}, which is skipped"
        return None

    def _begins_at(self, agent: Agent, grounds: Sequence[Agent], here: set[int]) -> str | None:
        """Where what is new in a branch begins, if the target has, or will have, the rest in other commits."""
        squash = self.order.landing.strategy == "squash"
        apart = {other.number for other in grounds if squash or other.number not in self.found}
        return agent.worktree.base if apart and apart <= here.union(self.found) else None

    async def _gone_on_from(self, agent: Agent, tip: str) -> str | None:
        """Where a branch was when it was squashed into the target, if both have that still."""
        if agent.attempt == 1 or not (
            squashed := await self.order.services.store.merges.last_squash(agent, self.order.landing)
        ):
            return None
        was, made = squashed
        both = was and await self.order.has(was, tip) and await self.order.has(made, self.target)
        return was if both else None
