"""Asking for a merge, or to take one back: it is recorded, and waits for its turn at its target."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent, MergeJob, OnConflict, Strategy
from forkjoin.core.session import Caller
from forkjoin.core.settings import Recipe
from forkjoin.git.refs import find_branch, is_ancestor, short_name
from forkjoin.git.repository import Checkout, read_checkout
from forkjoin.merge_queue.report import MERGE_REPORT, PLANNED_MOVE, MergeReport
from forkjoin.merge_queue.requester import check_own_branch_target
from forkjoin.services import Services
from forkjoin.store.rows import NewMergeJob
from forkjoin.store.store import Store


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """Which branches are to be merged, in this order, and how."""

    agents: Sequence[Agent]
    verify: str | None
    recipe: Recipe
    strategy: Strategy | None  #: none: as the settings say
    include_failed: bool
    dry_run: bool
    on_conflict: OnConflict = "report"


async def enqueue(
    services: Services, caller: Caller, into: str | None, wish: MergeOptions, *, confirmed: bool
) -> MergeJob:
    """Record a landing."""
    if (before := await services.store.calls.answer_to(caller.call)) is not None:
        return await services.store.merges.get(before["landing"])
    if wish.dry_run and wish.on_conflict == "agent":
        raise CallerError("on_conflict='agent' spawns agents, and a dry run changes nothing: leave one of them out.")
    checkout = await read_checkout(caller.session.folder)
    target = await _find_own_target(services, caller) or await find_target(checkout, into)
    if not (confirmed or wish.dry_run):
        _check_open(services.settings.merge.protected, target)
    new = NewMergeJob(
        project=caller.project.number,
        lead=caller.lead,
        agents=tuple(dict.fromkeys(agent.number for agent in wish.agents)),
        target=target,
        verify=wish.verify,
        dry_run=wish.dry_run,
        environment=caller.environment,
        checkout=checkout.top or "",
        recipe=wish.recipe,
        strategy=wish.strategy or services.settings.merge.strategy,
        include_failed=wish.include_failed,
        on_conflict=wish.on_conflict,
    )
    return await services.store.merges.add(new, caller.call)


async def enqueue_undo(services: Services, caller: Caller, into: str | None, *, confirmed: bool) -> MergeJob:
    """Record that what moved a target last, of ours, is to be taken back."""
    if (before := await services.store.calls.answer_to(caller.call)) is not None:
        return await services.store.merges.get(before["landing"])
    checkout = await read_checkout(caller.session.folder)
    target = await _find_own_target(services, caller) or await find_target(checkout, into)
    if not confirmed:
        _check_open(services.settings.merge.protected, target)
    last = await _find_last(services, caller.project.number, checkout.common_dir, target)
    if last is None:
        raise CallerError(f"forkjoin has merged nothing into {short_name(target)} that is not undone; nothing to undo.")
    new = NewMergeJob(
        project=caller.project.number,
        lead=caller.lead,
        agents=(),
        target=target,
        verify=None,
        dry_run=False,
        environment=caller.environment,
        undoes=last.number,
    )
    return await services.store.merges.add(new, caller.call)


async def _find_last(services: Services, project: int, common_dir: str, target: str) -> MergeJob | None:
    """What moved a target last, of what it still has: it may have been set back by hand."""
    for landing in await services.store.merges.not_undone(project, target):
        assert landing.move is not None
        if await is_ancestor(common_dir, PLANNED_MOVE.validate_json(landing.move).move.new, target):
            return landing
    return None


async def _find_own_target(services: Services, caller: Caller) -> str | None:
    """Return the recorded branch of a calling agent, or `None` for other callers."""
    agent = caller.session.agent
    if agent is None:
        return None
    await check_own_branch_target(services, agent)
    return agent.ref


async def find_target(checkout: Checkout, into: str | None) -> str:
    """The full name of the branch to land on."""
    if into is None:
        if checkout.branch is None:
            raise CallerError("HEAD is detached here, so there is no branch to merge into; name one in `into`.")
        return checkout.branch
    found = await find_branch(checkout.common_dir, into.removeprefix("refs/heads/"))
    if found is None:
        raise CallerError(f"into: there is no branch {into[:100]!r} in this repository.")
    return found


def _check_open(protected: Sequence[str], target: str) -> None:
    """See that a target may be changed without a word from the person."""
    name = short_name(target)
    if any(fnmatchcase(name, pattern) for pattern in protected):
        raise CallerError(
            f"{name} is protected by the settings; nothing was changed. Ask the person, and once they agree call again "
            "with confirm=true; or name another branch in `into`."
        )


async def wait_for_report(store: Store, landing: MergeJob, timeout_s: float = math.inf) -> MergeReport | None:
    """What became of a landing, once it is done; none where it is not after so many seconds."""

    async def look() -> str | None:
        return (await store.merges.get(landing.number)).answer

    found = await store.changes.within(timeout_s, look)
    if found is None:
        return None
    answer = MERGE_REPORT.validate_json(found)
    if answer.error:
        raise CallerError(answer.error)
    return answer
