"""The requester of a merge: the environment that verify gets, and what an agent as requester may merge into."""

import os

from anyio import to_thread

from forkjoin.core.error import CallerError
from forkjoin.core.merge_job import MergeJob, MergeJobState
from forkjoin.core.model import Agent, State
from forkjoin.git.refs import is_symbolic
from forkjoin.git.worktrees.checkout import find_checkout
from forkjoin.services import Services


async def find_job_environment(services: Services, job: MergeJob) -> dict[str, str] | None:
    """Return the environment in which the job's verify command runs.

    This is the environment of the lead or agent that asked for the merge. Return `None` if a restart has lost the
    environment, and no session of that lead has brought it back.
    """
    agent = await _find_requesting_agent(services, job)
    return services.environments.find(job.environment, job.project, agent.root_lead if agent else job.lead)


async def lacks_environment(services: Services, job: MergeJob) -> bool:
    """Return whether the job waits for its lead to connect again.

    The lead then brings the environment for verify. A job without verify does not wait. Neither does a job whose move
    was interrupted, or whose requesting agent has ended: the next run settles the move, or refuses the job.
    """
    runs_verify = job.verify and not job.dry_run and job.state is MergeJobState.QUEUED
    if not runs_verify or await find_job_environment(services, job) is not None:
        return False
    agent = await _find_requesting_agent(services, job)
    return agent is None or not _has_ended(agent)


async def check_requesting_agent(services: Services, job: MergeJob) -> None:
    """Raise a CallerError if an agent asked for the merge and may not move the target.

    The agent must not have ended, and may only merge into its own branch. A lead or a person may merge into any branch.
    """
    agent = await _find_requesting_agent(services, job)
    if agent is None:
        return
    if _has_ended(agent):
        raise CallerError(f"{agent.label} has ended ({agent.state}), so nothing more is merged into its branch.")
    if job.target != agent.ref:
        raise CallerError(
            f"{agent.label} can only merge into its own branch, {agent.worktree.branch}. Nothing was merged."
        )
    await check_own_branch_target(services, agent)


async def check_own_branch_target(services: Services, agent: Agent) -> None:
    """Raise a CallerError if a merge would change more than the agent's worktree.

    That is so if the branch is a symbolic ref, or is checked out in another worktree.
    """
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    if await is_symbolic(common_dir, agent.ref):
        raise CallerError(f"{agent.worktree.branch} is a symbolic ref to another branch, so nothing is merged into it.")
    where = await find_checkout(common_dir, agent.ref)
    if where is not None and where != await to_thread.run_sync(os.path.realpath, agent.worktree.path):
        raise CallerError(
            f"{agent.worktree.branch} is checked out in {where} instead of its own worktree, so nothing is merged "
            "into it."
        )


async def _find_requesting_agent(services: Services, job: MergeJob) -> Agent | None:
    if job.requesting_agent is None:
        return None
    return next(iter(await services.store.agents.get_all([job.requesting_agent])), None)


def _has_ended(agent: Agent) -> bool:
    return agent.is_over or agent.state is State.FINISHING
