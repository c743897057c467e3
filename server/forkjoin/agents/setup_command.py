"""Before an agent's first program starts: its worktree is made ready as its repository wants it, once."""

from collections.abc import Mapping

import anyio

from forkjoin.agents.prepare import workplace_of
from forkjoin.core.error import CallerError
from forkjoin.core.event import Noted
from forkjoin.core.model import Agent
from forkjoin.git.worktrees.falsely_changed_files import fingerprint
from forkjoin.git.worktrees.worktree_folder import find_place
from forkjoin.services import Services


async def set_up(services: Services, agent: Agent, environment: Mapping[str, str]) -> bool:
    """Make the agent's worktree ready, unless that was done; false where the agent is to be stopped."""
    recipe = await services.store.recipe(agent)
    if not (recipe.share or recipe.setup):
        return True
    workplace = await workplace_of(services, agent, environment)
    place = await find_place(workplace.common_dir, workplace.path)
    assert place
    done = anyio.Path(place.folder, "forkjoin-set-up")
    if await done.exists():
        return True
    ready = await workplace.make_ready()
    await services.store.note(agent, [(Noted(note), -1) for note in ready.notes])
    if (await services.store.agent(agent.number)).stop_asked:
        return False
    if ready.failed and agent.conflict.agent is None:
        raise CallerError(ready.failed)
    if ready.failed:  # what it reads may be in conflict: whoever resolves that was told to run it again
        await services.store.note(agent, [(Noted(f"goes on all the same: {ready.failed}"), -1)])
    if files := await fingerprint(workplace.common_dir, workplace.path):
        await services.store.note_set_up(agent, files)
    await done.touch()
    return True
