"""Before agents' worktrees go: what their repository wants done there, such as ending what setup has started."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from forkjoin.agents.prepare import workplace_of
from forkjoin.core.error import CallerError, ForkjoinError, words_of
from forkjoin.core.model import Agent
from forkjoin.git.worktrees.worktree_folder import is_folder
from forkjoin.services import Services

#: How many are run at once.
_AT_ONCE = 8


async def tear_down(services: Services, agents: Sequence[Agent], environment: Mapping[str, str] | None) -> list[str]:
    """Run the teardown of each that has one, which is not done twice; what went wrong, in a sentence each.

    Args:
        environment: What it runs in where that of an agent's own lead is gone.
    """
    recipes = {agent.number: await services.store.recipe(agent) for agent in agents}
    wanting = [one for one in agents if recipes[one.number].teardown and is_folder(Path(one.worktree.path))]
    found = {one.number: services.environments.of_agent(one) for one in wanting}
    if lacking := next((one for one in wanting if found[one.number] is None and environment is None), None):
        raise CallerError(
            f"{lacking.label}: its teardown needs the environment of a session, or of any forkjoin command, in its "
            "project. Nothing was removed."
        )
    trouble: list[str] = []
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def run(agent: Agent) -> None:
        async with limiter:
            try:
                workplace = await workplace_of(services, agent, found[agent.number] or environment or {})
                why = await workplace.tear_down()
            except (ForkjoinError, OSError) as error:  # it keeps no worktree from going
                why = words_of(error)
        if why:
            trouble.append(f"The teardown of {agent.label} failed: {why}")

    async with anyio.create_task_group() as tasks:
        for agent in wanting:
            tasks.start_soon(run, agent)
    return sorted(trouble)
