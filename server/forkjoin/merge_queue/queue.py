"""Recording of merge jobs. A job merges branches or undoes a merge, after the earlier jobs with the same target."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from forkjoin.core.error import CallerError
from forkjoin.core.merge_job import MergeJob, OnConflict, Strategy
from forkjoin.core.model import Agent
from forkjoin.core.session import Caller
from forkjoin.core.settings import RepositorySettings
from forkjoin.git.refs import find_branch, is_ancestor, short_name
from forkjoin.git.repository import Checkout, read_checkout
from forkjoin.merge_queue.report import MERGE_REPORT, PLANNED_MOVE, MergeReport
from forkjoin.merge_queue.requester import check_own_branch_target
from forkjoin.services import Services
from forkjoin.store.rows import NewMergeJob
from forkjoin.store.store import Store


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """The agents whose branches to merge, in this order, and how to merge them."""

    agents: Sequence[Agent]
    verify: str | None
    recipe: RepositorySettings
    strategy: Strategy | None  #: `None` for the strategy in the settings
    include_failed: bool
    dry_run: bool
    on_conflict: OnConflict = "report"


async def enqueue(
    services: Services, caller: Caller, into: str | None, options: MergeOptions, *, confirmed: bool
) -> MergeJob:
    """Record a merge job.

    If the call repeats an earlier call, return the job that was recorded then.

    Args:
        into: The target branch; `None` for the branch checked out in the caller's folder.
        confirmed: Whether the person has agreed to a merge into a protected branch.
    """
    if (earlier := await services.store.calls.answer_to(caller.call)) is not None:
        return await services.store.merges.get(earlier["landing"])
    if options.dry_run and options.on_conflict == "agent":
        raise CallerError("on_conflict='agent' spawns agents, but a dry run changes nothing; leave one of them out.")
    checkout = await read_checkout(caller.session.folder)
    target = await _find_agents_own_branch(services, caller) or await find_target(checkout, into)
    if not (confirmed or options.dry_run):
        _check_not_protected(services.settings.merge.protected, target)
    new = NewMergeJob(
        project=caller.project.number,
        lead=caller.lead,
        agents=tuple(dict.fromkeys(agent.number for agent in options.agents)),
        target=target,
        verify=options.verify,
        dry_run=options.dry_run,
        environment=caller.environment,
        checkout=checkout.top or "",
        recipe=options.recipe,
        strategy=options.strategy or services.settings.merge.strategy,
        include_failed=options.include_failed,
        on_conflict=options.on_conflict,
    )
    return await services.store.merges.add(new, caller.call)


async def enqueue_undo(services: Services, caller: Caller, into: str | None, *, confirmed: bool) -> MergeJob:
    """Record a job that undoes the last merge into a branch.

    Raises:
        CallerError: The branch contains no merge by forkjoin that isn't undone yet.
    """
    if (earlier := await services.store.calls.answer_to(caller.call)) is not None:
        return await services.store.merges.get(earlier["landing"])
    checkout = await read_checkout(caller.session.folder)
    target = await _find_agents_own_branch(services, caller) or await find_target(checkout, into)
    if not confirmed:
        _check_not_protected(services.settings.merge.protected, target)
    last = await _find_last_merge(services, caller.project.number, checkout.common_dir, target)
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


async def _find_last_merge(services: Services, project: int, common_dir: str, target: str) -> MergeJob | None:
    """Return the last merge job that can be undone.

    It is not undone yet, and the target still contains its commit. Return `None` if there is no such job. A person may
    have reset the target to a commit before a merge.
    """
    for job in await services.store.merges.not_undone(project, target):
        assert job.move is not None
        if await is_ancestor(common_dir, PLANNED_MOVE.validate_json(job.move).move.new, target):
            return job
    return None


async def _find_agents_own_branch(services: Services, caller: Caller) -> str | None:
    """Return the full ref name of the calling agent's branch, as recorded.

    Return `None` if the caller is no agent.

    Raises:
        CallerError: The branch is a symbolic ref, or is checked out outside of the agent's worktree.
    """
    agent = caller.session.agent
    if agent is None:
        return None
    await check_own_branch_target(services, agent)
    return agent.ref


async def find_target(checkout: Checkout, into: str | None) -> str:
    """Return the full ref name of the target branch.

    This is the branch `into`, or the checked-out branch if `into` is `None`.

    Raises:
        CallerError: There is no such branch, or none is checked out.
    """
    if into is None:
        if checkout.branch is None:
            raise CallerError("HEAD is detached here, so there is no branch to merge into; name one in `into`.")
        return checkout.branch
    found = await find_branch(checkout.common_dir, into.removeprefix("refs/heads/"))
    if found is None:
        raise CallerError(f"into: there is no branch {into[:100]!r} in this repository; name one that exists.")
    return found


def _check_not_protected(protected: Sequence[str], target: str) -> None:
    """Raise a CallerError if the target matches one of the protected patterns."""
    name = short_name(target)
    if any(fnmatchcase(name, pattern) for pattern in protected):
        raise CallerError(
            f"{name} is protected by the settings; nothing was changed. Ask the person, and once they agree call again "
            "with confirm=true; or name another branch in `into`."
        )


async def wait_for_report(store: Store, job: MergeJob, timeout_s: float = math.inf) -> MergeReport | None:
    """Wait until a job is done, and return its report.

    Return `None` after `timeout_s` seconds.

    Raises:
        CallerError: The job failed.
    """

    async def read_answer() -> str | None:
        return (await store.merges.get(job.number)).answer

    answer = await store.changes.within(timeout_s, read_answer)
    if answer is None:
        return None
    report = MERGE_REPORT.validate_json(answer)
    if report.error:
        raise CallerError(report.error)
    return report
