"""Running a merge job: its branches are merged and verified, the target moves once, and the report is recorded.

The move is recorded before the first file changes, so that the next daemon can settle a move that was interrupted.
Errors that may pass by themselves, such as a full disk, are raised. The caller then runs the job again after a pause.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from forkjoin.core.error import BrokenPromiseError, CallerError, GitError, RecordsError, describe_error, is_transient
from forkjoin.core.merge_job import MergeJob, MergeJobState
from forkjoin.core.model import FINAL
from forkjoin.git.merging import move_target
from forkjoin.git.merging.files_in_the_way import find_files_in_the_way
from forkjoin.git.refs import find_tip, short_name
from forkjoin.git.worktrees.checkout import TargetMovedError, find_checkout, lock_checkout
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.recovery import settle_interrupted_move
from forkjoin.merge_queue.report import MERGE_REPORT, PLANNED_MOVE, MergeReport, PlannedMove, limit_names
from forkjoin.merge_queue.requester import check_requesting_agent
from forkjoin.merge_queue.resolver import assign_resolvers
from forkjoin.merge_queue.scratch import forget_runs
from forkjoin.merge_queue.train import merge_all
from forkjoin.merge_queue.undo import undo
from forkjoin.services import Services
from forkjoin.workspace import config_tampering
from forkjoin.workspace.agent_work import accept_commit, find_result_commit

log = logging.getLogger(__name__)

#: How often a job merges and verifies again because somebody else moved the target during its merge.
_RESTARTS = 10
#: How often a job is run again after an error that may pass.
_RETRIES = 12
#: How often a job is run again if the error left a checkout partly moved. The checkout must not stay so.
_RETRIES_PARTLY_MOVED = 120
#: How often a job is run again after git failed at the lock of another git process. git itself waits for a lock for ten
#: seconds before it fails.
_RETRIES_LOCKED = 2


class MergeRunner:
    """Runs merge jobs, and counts how often each has failed."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._failures: dict[int, int] = {}  #: how often each job has failed, by its number

    async def run(self, job: MergeJob, environment: Mapping[str, str] | None) -> None:
        """Run a job and record its report.

        Nothing is recorded if the job must wait for its environment.

        Args:
            environment: The environment for verify; `None` if a restart has lost it.

        Raises:
            Exception: The job should be run again after a pause.
        """
        common_dir = (await self._store.projects.get(job.project)).common_dir
        context = MergeContext(self._services, job, common_dir, environment, await self._store.projects.recipe(job))
        try:
            if context.verify:  # verify runs agents' code, which may change the git configuration of the repository
                await config_tampering.take_snapshot(self._services, job)
            report = await _run_job(context)
        except Exception as error:
            if self._should_retry(job, error):
                raise
            if not isinstance(error, CallerError):
                log.exception("merge job %d", job.number)
            report = MergeReport(short_name(job.target), None, error=_describe_error(job, error))
        if report:
            await forget_runs(context)
            warnings = await config_tampering.find_tampering_warnings(self._services, job)
            note = " ".join(filter(None, (report.note, *warnings))) or None
            await self._record(context, replace(report, note=note))
            await config_tampering.delete_snapshot(self._services, job)
            self._failures.pop(job.number, None)

    def _should_retry(self, job: MergeJob, error: Exception) -> bool:
        """Return whether a job should be run again after an error, and count the error.

        An error that prevents the report is not counted: it is retried until it has passed.
        """
        may_pass, is_partly_moved = is_transient(error), isinstance(error, BrokenPromiseError)
        if isinstance(error, RecordsError) or (is_partly_moved and may_pass):
            return True  # a report may not be given while it can't be recorded, or while a checkout is partly moved
        failures = self._failures[job.number] = self._failures.get(job.number, 0) + 1
        if is_partly_moved:
            return failures <= _RETRIES_PARTLY_MOVED
        if isinstance(error, GitError) and error.met_lock:
            return may_pass and failures <= _RETRIES_LOCKED
        return may_pass and failures <= _RETRIES

    async def _record(self, context: MergeContext, report: MergeReport) -> None:
        """Record a merge in one transaction.

        That is the report, the agents' merge states, and the new resolvers.
        """
        job = context.job
        await _extend_agents_work(context)
        states = {} if job.dry_run else report.merge_states()
        undone = () if report.reverted else [int(agent_id.removeprefix("a")) for agent_id in report.undone]
        end = partial(self._store.merges.finish, job, states, undone)
        if job.on_conflict == "agent" and report.conflicted:
            try:
                resolvers = await assign_resolvers(context, report)
                return await end(
                    lambda numbers: _dump(resolvers.add_to(report, numbers)), resolvers.new, resolvers.place
                )
            except CallerError as error:  # no ports are free, for example; the report is recorded without resolvers
                note = f"{report.note or ''} No agent was spawned for the conflicts. {error}".strip()
                report = replace(report, note=note)
        return await end(lambda _: _dump(report))


async def _extend_agents_work(context: MergeContext) -> None:
    """Record commits that were merged into an ended agent's branch as its work.

    Nothing is recorded if the branch had other commits before the merge, or has got other commits since.
    """
    store, target = context.services.store, context.job.target
    agent = await store.agents.of_branch(context.job.project, target)
    if agent is None or agent.state not in FINAL:
        return
    recorded = (await store.merges.get(context.job.number)).move
    if recorded is None:
        return
    move = PLANNED_MOVE.validate_json(recorded).move
    if await find_result_commit(store, agent) == move.old and await find_tip(context.common_dir, target) == move.new:
        await accept_commit(
            store, context.common_dir, agent, move.new, f"Since its end its branch was moved: {move.why}."
        )


def _dump(report: MergeReport) -> str:
    return MERGE_REPORT.dump_json(report).decode()


def _describe_error(job: MergeJob, error: Exception) -> str:
    """Return the words about an error for the lead, with what to do next."""
    target = short_name(job.target)
    if isinstance(error, GitError):
        said = error.last_line.removesuffix(".")
        return f"git refused: {said}. Nothing was merged into {target}; merge again later."
    if isinstance(error, PermissionError):
        return (
            f"You may not use {error.filename2 or error.filename}: it or its folder belongs to another user "
            f"({error.strerror}). Nothing was merged into {target}; let its owner allow that (in a folder with the "
            "sticky bit, chmod -t) or merge it, then merge again."
        )
    return describe_error(error)


async def _run_job(context: MergeContext) -> MergeReport | None:
    """Merge the branches or undo a merge, and move the target. Return the report.

    Return `None` if the job must wait for its environment.

    Raises:
        CallerError: The job can't be done, or others moved the target during each attempt.
    """
    if context.job.state is MergeJobState.MOVING and (report := await _settle_move(context)):
        return report
    if context.verify and context.environment is None:
        await check_requesting_agent(context.services, context.job)
        return None
    for _ in range(_RESTARTS):
        plan = await _plan(context)
        if context.job.dry_run or plan.move.new == plan.move.old or await _move_target(context, plan):
            return plan.report
    raise CallerError(f"Others kept moving {context.target_name} during the merge. Nothing was merged; merge again.")


async def _plan(context: MergeContext) -> PlannedMove:
    if context.job.undoes is None:
        return await merge_all(context)
    return await undo(context, await context.services.store.merges.get(context.job.undoes))


async def _settle_move(context: MergeContext) -> MergeReport | None:
    """Complete the move that a daemon's death interrupted. Return its report.

    Return `None` if somebody else has moved the target since. Then the files in the checkout are rolled back, and the
    job must merge again.
    """
    assert context.job.move is not None
    plan = PLANNED_MOVE.validate_json(context.job.move)
    if await settle_interrupted_move(context.common_dir, plan.move, context.lock_owner):
        return plan.report
    return plan.report if await _move_target(context, plan) else None


async def _move_target(context: MergeContext, plan: PlannedMove) -> bool:
    """Move the target, and the files of the checkout that has it checked out.

    Return False if somebody else has moved the target since it was merged into. Then nothing is changed.

    Raises:
        CallerError: Uncommitted or untracked files would be overwritten, or the requesting agent may not merge.
    """
    store, target = context.services.store, context.job.target
    try:
        where = await find_checkout(context.common_dir, target)
        async with lock_checkout(context.common_dir, where, target, context.lock_owner) as checkout:
            move = replace(plan.move, checkout=where, folder=str(checkout.folder) if checkout else None)
            if checkout:
                checkout, blocking = await find_files_in_the_way(checkout, move.old, move.new)
                if blocking:
                    raise CallerError(
                        f"These files in {where} are in the way: {', '.join(limit_names(blocking))}. Nothing was "
                        "merged; commit them or move them away, then merge again."
                    )
            recorded = PLANNED_MOVE.dump_json(replace(plan, move=move), by_alias=True).decode()
            await store.merges.set_state(context.job, MergeJobState.MOVING, move=recorded)
            # From here on, an agent that asked for the merge can't end before the move does.
            await check_requesting_agent(context.services, context.job)
            await move_target.apply_move(context.common_dir, move, checkout)
    except TargetMovedError:
        await store.merges.set_state(context.job, MergeJobState.QUEUED)
        return False
    return True
