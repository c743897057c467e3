"""Stopping: the whole tree of processes ends, and the work that was there is committed and kept."""

import logging
from collections.abc import Sequence

import anyio
from anyio import to_thread

from forkjoin.agents.restore_records import leave_word
from forkjoin.agents.wait import wait
from forkjoin.core.error import CallerError, RecordsError
from forkjoin.core.event import Noted
from forkjoin.core.model import Agent
from forkjoin.git.file_names import printable_list
from forkjoin.services import Services
from forkjoin.workspace import shell_command
from forkjoin.workspace.workspace import handles_beside

log = logging.getLogger(__name__)

#: How long what could not be killed is left before it is tried again.
_AGAIN_S = 5.0
#: How long, beyond the grace, the end of a stopped agent may take: committing what it left in a large tree.
_FINISH_S = 120


async def stop(services: Services, agents: Sequence[Agent]) -> list[Agent]:
    """Ask for agents to be stopped and wait for their ends; as they are then. Those that had ended stay as they were.

    With each those are stopped that it has spawned.

    An agent is left in `finishing` only if processes of it can't be ended.

    Raises:
        CallerError: That can't be recorded; their programs have ended all the same, and may go on unless it is later.
    """
    try:
        whole = await services.store.lifecycle.ask_stop(agents)
    except RecordsError:  # a full disk, which one of them may be filling
        whole = await _end_unrecorded(services, agents)
    await wait(services.store, whole, "all", services.settings.limits.stop_grace_s + _FINISH_S)
    return await services.store.agents.get_all(agent.number for agent in agents)


async def _end_unrecorded(services: Services, agents: Sequence[Agent]) -> list[Agent]:
    """End the processes of agents first, and then ask for them to be stopped; as `ask_stop`."""
    left: list[str] = []

    async def cancel(handle: str) -> None:
        left.extend(await services.executor.cancel(handle, services.settings.limits.stop_grace_s))

    async with anyio.create_task_group() as tasks:
        for agent in (*agents, *await services.store.agents.live_below(agents)):
            for handle in await _all_handles(services, agent):
                tasks.start_soon(cancel, handle)
    try:
        return await services.store.lifecycle.ask_stop(agents)
    except RecordsError as error:
        done = (
            f"These processes can't be ended: {printable_list(left)}; all others have" if left else "All processes have"
        )
        raise CallerError(
            f"{done} ended, and what the agents wrote stays, but their stop could not be recorded: {error.why}. Call "
            "stop_agents again then; else they count as lost, and those with retries start again."
        ) from error


async def end_processes(services: Services, agent: Agent, handles: Sequence[str] = ()) -> None:
    """End what runs for an agent under these handles, else all; what would be started under them never starts."""
    await to_thread.run_sync(leave_word, services.home, agent)
    for handle in handles or await _all_handles(services, agent):
        named: list[str] = []
        while left := await services.executor.cancel(handle, services.settings.limits.stop_grace_s):
            if left != named:
                log.warning("%s: can't be ended: %s", agent.label, ", ".join(left))
                await services.store.events.add(agent, [(Noted(f"can't be ended: {', '.join(left)}"), -1)])
                named = left
            await anyio.sleep(_AGAIN_S)


async def _all_handles(services: Services, agent: Agent) -> list[str]:
    judging = shell_command.handles(agent.handle, "judge") if agent.spec.judge else []
    return [agent.handle, *handles_beside(agent.handle, await services.store.projects.recipe(agent)), *judging]
