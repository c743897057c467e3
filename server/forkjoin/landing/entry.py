"""What is to be landed: branches in their order, none before what it was built on, and why some are not tried."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from forkjoin.branch import git, merging
from forkjoin.decision.contest import rank
from forkjoin.decision.gate import ATTACHED
from forkjoin.landing.answer import MERGED_BEFORE, NOTHING, Skipped
from forkjoin.landing.order import Order
from forkjoin.landing.origin import find_origin, find_resolved, find_undone, has
from forkjoin.model import FINAL, Agent, State, Strategy


@dataclass(frozen=True, slots=True)
class Entry:
    """An agent's branch that may land."""

    agent: Agent
    tip: git.Tip
    message: str
    needs: frozenset[int]  #: the numbers of those whose work it has too, and that land first
    base: str | None  #: where what is new in it begins, if the rest is in the target in other commits
    #: Those whose conflicts it resolves, which are merged with it: their numbers, and where their work ends.
    brings: Mapping[int, str] = field(hash=False)


async def find_entries(
    order: Order, agents: Sequence[Agent], target: git.Tip, tips: Mapping[str, git.Tip]
) -> list[Entry | Skipped]:
    """What is to become of each of a landing's agents, in the order in which they land."""
    tasks = await order.rooms.store.tasks(order.landing.agents)
    found: dict[int, Entry | Skipped] = {}
    lost = await _find_lost(order, agents)
    for agent in _sort(agents, await order.rooms.store.before(order.landing.agents)):
        if agent.number in found:  # with whoever resolves its conflict
            continue
        if agent.number in lost:
            found[agent.number] = Skipped(agent.id, lost[agent.number])
            continue
        tip = tips.get(f"refs/heads/{agent.branch}") if agent.prepared else None
        task = tasks.get(agent.number, "") if agent.resolves is None else await _task_of_origin(order, agent)
        message = _message(order.landing.strategy, agent, task)
        found[agent.number] = one = await _find(order, agent, tip, message, target.commit, found)
        found |= dict.fromkeys(one.brings, one) if isinstance(one, Entry) else {}
    return list(dict.fromkeys(found.values()))


async def _find_lost(order: Order, agents: Sequence[Agent]) -> dict[int, str]:
    """Who of these is not the best of the candidates for one task that are named here, with why it does not land."""
    results = await order.rooms.store.results([agent for agent in agents if agent.contest])
    best: dict[int, Agent] = {}
    ranked = rank([agent for agent in agents if agent.contest], results)
    lost = [agent for agent in ranked if best.setdefault(agent.contest, agent) is not agent and agent.state in FINAL]
    words = "it lost to {}; named alone, it is merged all the same"
    return {agent.number: words.format(best[agent.contest].label) for agent in lost}


def _sort(agents: Sequence[Agent], before: Mapping[int, AbstractSet[int]]) -> list[Agent]:
    """These in their order, but one that comes after a later one, or whose conflict that resolves, follows it.

    Args:
        before: Whom each comes after, also by others.
    """
    waiting = {agent.number: agent for agent in agents}
    sorted_: list[Agent] = []
    while waiting:
        resolved = {agent.resolves for agent in waiting.values()}
        free = (n for n in waiting if n not in resolved and waiting.keys().isdisjoint(before.get(n, ())))
        sorted_.append(waiting.pop(next(free, next(iter(waiting)))))
    return sorted_


async def _find(
    order: Order,
    agent: Agent,
    tip: git.Tip | None,
    message: str,
    target: str,
    before: Mapping[int, Entry | Skipped],
) -> Entry | Skipped:
    why = ATTACHED if agent.number in order.rooms.attached else None
    why = why or _why_not(agent, tip, include_failed=order.landing.include_failed)
    if why := why or (None if tip else await _why_gone(order, agent, target)):
        return Skipped(agent.id, why)
    assert tip is not None
    if agent.resolves is not None and (why := await _why_no_resolution(order, agent, tip.commit, target, before)):
        return Skipped(agent.id, why)
    ground = await _find_ground(order, agent, tip.commit, target, before)
    if isinstance(ground, Skipped):
        return ground
    base = await _gone_on_from(order, agent, tip.commit, target) or ground.base
    return Entry(agent, tip, message, ground.needs, base, await find_resolved(order, agent, tip.commit))


class _Ground(NamedTuple):
    """What a branch was built on that the target has not as commits; as the fields of `Entry`."""

    needs: frozenset[int] = frozenset()
    base: str | None = None


async def _find_ground(
    order: Order, agent: Agent, tip: str, target: str, before: Mapping[int, Entry | Skipped]
) -> _Ground | Skipped:
    """What a branch stands on; or why it can't land now."""
    found = await _inherited(order, agent, tip, target) if agent.after else {}
    here = {other.number for other in found if await _is_squashed(order, other, target)}
    inherited = _one_of_each(found, before, here)
    for other in inherited:
        if other.number not in here.union(before) and not other.removed:
            into = git.short(order.landing.target)
            return Skipped(agent.id, f"it has the work of {other.label}, which is not in {into}: name that one too")
        if isinstance(skipped := before.get(other.number), Skipped) and skipped.why not in (MERGED_BEFORE, NOTHING):
            return Skipped(agent.id, f"it has the work of {other.label}, which is skipped")
    ahead = (before.get(other.number) for other in inherited)
    needs = frozenset(one.agent.number for one in ahead if isinstance(one, Entry))
    apart = {other.number for other in inherited if order.landing.strategy == "squash" or other.number not in before}
    return _Ground(needs, agent.base if apart and apart <= here.union(before) else None)


async def _is_squashed(order: Order, agent: Agent, target: str) -> bool:
    """Whether the target has a branch's work as a commit of its own."""
    squashed = await order.rooms.store.squashed_at(agent, order.landing)
    return squashed is not None and await has(order.common_dir, squashed[1], target)


async def _gone_on_from(order: Order, agent: Agent, tip: str, target: str) -> str | None:
    """Where a branch was when it was squashed into the target, if both have that still."""
    if agent.attempt == 1 or (squashed := await order.rooms.store.squashed_at(agent, order.landing)) is None:
        return None
    was, made = squashed
    both = was and await has(order.common_dir, was, tip) and await has(order.common_dir, made, target)
    return was if both else None


async def _why_no_resolution(
    order: Order, agent: Agent, tip: str, target: str, before: Mapping[int, Entry | Skipped]
) -> str | None:
    """Why what resolves a conflict does not land: it leaves it, or would bring what was taken back."""
    if agent.state is not State.SUCCEEDED and (
        why := await merging.why_unresolved(order.common_dir, agent.base, agent.theirs, tip)
    ):
        return f"it did not resolve the conflict: {why}"
    undone = [one for one in await find_undone(order, tip, target) if not isinstance(before.get(one.number), Entry)]
    if undone:
        others = git.listed([one.label for one in undone])
        return f"it would bring back what is in the target no more, the work of {others}: merge that first, or with it"
    return None


async def _task_of_origin(order: Order, agent: Agent) -> str:
    return await order.rooms.store.task((await find_origin(order.rooms.store, agent)).number)


def _message(strategy: Strategy, agent: Agent, task: str) -> str:
    text = " ".join(task.split())[:200]
    subject = f"Merge {agent.label}" if strategy == "merge" else f"{agent.name}: {text}"[:72]
    return f"{subject}\n\n{text}\n\nForkjoin-Agent: {agent.id}\n"


def _why_not(agent: Agent, tip: git.Tip | None, *, include_failed: bool) -> str | None:
    """Why an agent's branch is not even tried, if there is a reason."""
    if agent.state not in FINAL:
        return f"not ended yet (it is {agent.state}); wait for it with wait_agents"
    if agent.state is not State.SUCCEEDED and not include_failed:
        return f"it did not succeed (it is {agent.state}); see get_result"
    return NOTHING if tip and tip.commit == agent.base else None


async def _why_gone(order: Order, agent: Agent, target: str) -> str:
    result = await order.rooms.store.result(agent.number)
    if result and result.commit and await has(order.common_dir, result.commit, target):
        return NOTHING if result.commit == agent.base else MERGED_BEFORE
    return "its branch is gone"


async def _inherited(order: Order, agent: Agent, tip: str, target: str) -> dict[Agent, str]:
    """Those it came after whose work its branch has, and the target has not; for one without work, those before it.

    With each, the commit at which it ended.
    """
    common_dir, found = order.common_dir, dict[Agent, str]()
    numbers = list(agent.after)
    for number in numbers:
        for other in await order.rooms.store.agents_numbered([number]):
            result = await order.rooms.store.result(number)
            commit = result.commit if result else None
            if commit == other.base:
                numbers += [one for one in other.after if one not in numbers]
            elif commit and await has(common_dir, commit, tip) and not await has(common_dir, commit, target):
                found[other] = commit
    return found


def _one_of_each(
    inherited: Mapping[Agent, str], before: Mapping[int, Entry | Skipped], here: AbstractSet[int]
) -> list[Agent]:
    """Those, but of candidates with the same commit one alone: who lands, or has landed here, if any."""

    def is_missing(one: Agent) -> bool:
        return one.number not in here and not isinstance(before.get(one.number), Entry)

    one_of = dict[tuple[int, str], Agent]()
    for other in sorted(inherited, key=is_missing):
        one_of.setdefault((other.contest or -other.number, inherited[other]), other)
    return list(one_of.values())
