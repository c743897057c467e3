"""Who has asked for a landing, where that is an agent: it runs in its environment, and ends with it."""

import os

from anyio import to_thread

from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent, MergeJob, MergeJobState, State
from forkjoin.git.refs import is_symbolic
from forkjoin.git.worktrees.checkout import find_checkout
from forkjoin.services import Services


async def find_environment(services: Services, landing: MergeJob) -> dict[str, str] | None:
    """The environment of whoever asked for it; none where a restart has lost that."""
    asker = await _find_asker(services, landing)
    return services.environments.find(landing.environment, landing.project, asker.root_lead if asker else landing.lead)


async def lacks_environment(services: Services, landing: MergeJob) -> bool:
    """Whether it must wait for what its verify runs in. A move in midst is settled without, as is what is refused."""
    runs_verify = landing.verify and not landing.dry_run and landing.state is MergeJobState.QUEUED
    if not runs_verify or await find_environment(services, landing) is not None:
        return False
    asker = await _find_asker(services, landing)
    return asker is None or not _is_refused(asker)


async def check_asker(services: Services, landing: MergeJob) -> None:
    """Check that the asker may move the merge's target.

    Raises:
        CallerError: The agent that has asked for it is at its end, or the target is no branch of its own.
    """
    asker = await _find_asker(services, landing)
    if asker is None:
        return
    if _is_refused(asker):
        raise CallerError(f"{asker.label} is at its end ({asker.state}): nothing more is merged into its branch.")
    if landing.target != asker.ref:
        raise CallerError(
            f"{asker.label} can merge only into its own branch, {asker.worktree.branch}. Nothing was merged."
        )
    await check_own_branch(services, asker)


async def check_own_branch(services: Services, agent: Agent) -> None:
    """Raise a CallerError unless a merge into the agent's branch changes that branch and its own worktree alone."""
    common_dir = (await services.store.project_numbered(agent.project)).common_dir
    if await is_symbolic(common_dir, agent.ref):
        raise CallerError(f"{agent.worktree.branch} is a symbolic ref to another branch: nothing is merged into it.")
    where = await find_checkout(common_dir, agent.ref)
    if where is not None and where != await to_thread.run_sync(os.path.realpath, agent.worktree.path):
        raise CallerError(
            f"{agent.worktree.branch} is checked out in {where}, not in its own worktree: nothing is merged there."
        )


async def _find_asker(services: Services, landing: MergeJob) -> Agent | None:
    return next(iter(await services.store.agents_numbered([landing.asker] if landing.asker else [])), None)


def _is_refused(asker: Agent) -> bool:
    return asker.is_over or asker.state is State.FINISHING
