"""The setup of a worktree before its agent's first attempt, and the teardown before its removal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from forkjoin.agents.prepare import workspace_of
from forkjoin.core.error import CallerError, ForkjoinError, describe_error
from forkjoin.core.event import Noted
from forkjoin.core.model import Agent
from forkjoin.git.worktrees.falsely_changed_files import fingerprint
from forkjoin.git.worktrees.worktree_folder import find_registered_worktree, is_folder
from forkjoin.services import Services

#: The number of teardowns that run at the same time.
_MAX_TEARDOWNS = 8


async def set_up(services: Services, agent: Agent, environment: Mapping[str, str]) -> bool:
    """Share files with the agent's worktree and run setup, once.

    Returns:
        Whether the agent's program may start: `False` if a stop was requested while setup ran.

    Raises:
        CallerError: Setup failed, and the agent does not resolve a conflict. An agent that does starts anyway.
    """
    recipe = await services.store.projects.recipe(agent)
    if not (recipe.share or recipe.setup):
        return True
    workspace = await workspace_of(services, agent, environment)
    place = await find_registered_worktree(workspace.common_dir, workspace.path)
    assert place
    done = anyio.Path(place.folder, "forkjoin-set-up")
    if await done.exists():
        return True
    ready = await workspace.make_ready()
    await services.store.events.add(agent, [(Noted(note), -1) for note in ready.notes])
    if (await services.store.agents.get(agent.number)).stop_asked:
        return False
    if ready.failed and agent.conflict.agent is None:
        raise CallerError(ready.failed)
    if ready.failed:  # setup may have failed because of conflicted files; the agent's task says to run it again
        await services.store.events.add(agent, [(Noted(f"continues although {ready.failed}"), -1)])
    if files := await fingerprint(workspace.common_dir, workspace.path):
        await services.store.baselines.set_setup_files(agent, files)
    await done.touch()
    return True


async def tear_down(services: Services, agents: Sequence[Agent], environment: Mapping[str, str] | None) -> list[str]:
    """Run the teardown command in each agent's worktree.

    Return a warning for each that failed.

    A teardown that an earlier call has run in the same worktree is not run again.

    Args:
        environment: The environment for the agents of a lead whose own environment is lost; `None` if there is none.

    Raises:
        CallerError: There is no environment to run a teardown in.
    """
    recipes = {agent.number: await services.store.projects.recipe(agent) for agent in agents}
    wanting = [agent for agent in agents if recipes[agent.number].teardown and is_folder(Path(agent.worktree.path))]
    found = {agent.number: services.environments.find_for_agent(agent) for agent in wanting}
    if lacking := next((agent for agent in wanting if found[agent.number] is None and environment is None), None):
        raise CallerError(
            f"{lacking.label}: its teardown needs the environment of its lead, which is lost. Run any forkjoin command "
            "in its project, then remove it again. Nothing was removed."
        )
    trouble: list[str] = []
    limiter = anyio.CapacityLimiter(_MAX_TEARDOWNS)

    async def run(agent: Agent) -> None:
        async with limiter:
            try:
                workspace = await workspace_of(services, agent, found[agent.number] or environment or {})
                why = await workspace.tear_down()
            except (ForkjoinError, OSError) as error:  # a warning is enough: the removal goes on
                why = describe_error(error)
        if why:
            trouble.append(f"The teardown of {agent.label} failed: {why}")

    async with anyio.create_task_group() as tasks:
        for agent in wanting:
            tasks.start_soon(run, agent)
    return sorted(trouble)
