"""Stopping agents: all their processes end, and their work is committed and kept."""

import logging
from collections.abc import Sequence

import anyio
from anyio import to_thread

from forkjoin.agents.restore_records import save_requested_end
from forkjoin.agents.wait_for_agents import wait
from forkjoin.core.error import CallerError, RecordsError
from forkjoin.core.event import Noted
from forkjoin.core.model import Agent
from forkjoin.git.file_names import printable_list
from forkjoin.services import Services
from forkjoin.workspace import shell_command
from forkjoin.workspace.workspace import command_handles

log = logging.getLogger(__name__)

#: Seconds until processes that could not be killed are tried again.
_AGAIN_S = 5.0
#: Seconds after the grace period for which `stop` waits at most. Committing a large worktree takes long.
_FINISH_S = 120


async def stop(services: Services, agents: Sequence[Agent]) -> list[Agent]:
    """Stop agents and their nested agents, and wait for their end.

    Return the new records of the given agents.

    An agent that had ended is unchanged. An agent whose processes can't be ended stays in the state `finishing`, and is
    returned after the grace period and two minutes.

    Raises:
        CallerError: The stop can't be recorded. Processes were ended, but the agents may start again.
    """
    try:
        whole = await services.store.lifecycle.ask_stop(agents)
    except RecordsError:  # the disk is full, perhaps because of one of these agents
        whole = await _end_unrecorded(services, agents)
    await wait(services.store, whole, "all", services.settings.limits.stop_grace_s + _FINISH_S)
    return await services.store.agents.get_all(agent.number for agent in agents)


async def _end_unrecorded(services: Services, agents: Sequence[Agent]) -> list[Agent]:
    """End the processes of agents and nested agents, then record the stop.

    Return the agents and their nested agents.

    Raises:
        CallerError: The stop still can't be recorded.
    """
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
        others = f"These processes can't be ended: {printable_list(left)}. All others" if left else "All processes"
        raise CallerError(
            f"{others} have ended, and the agents' files are kept, but their stop could not be recorded: {error.why}. "
            "Solve the problem and call stop_agents again. Otherwise the agents count as lost, and may start again."
        ) from error


async def end_processes(services: Services, agent: Agent, handles: Sequence[str] = ()) -> None:
    """End all processes of an agent's attempts and commands, and start none of them.

    Return only once all processes have ended. Those that can't be ended are tried again, and the agent's log says so.

    Args:
        handles: Handles of attempts and commands. If empty, everything that runs for the agent is ended.
    """
    await to_thread.run_sync(save_requested_end, services.home, agent)
    for handle in handles or await _all_handles(services, agent):
        named: list[str] = []
        while left := await services.executor.cancel(handle, services.settings.limits.stop_grace_s):
            if left != named:
                log.warning("%s: can't be ended: %s", agent.label, ", ".join(left))
                await services.store.events.add(agent, [(Noted(f"can't be ended: {', '.join(left)}"), -1)])
                named = left
            await anyio.sleep(_AGAIN_S)


async def _all_handles(services: Services, agent: Agent) -> list[str]:
    judging = shell_command.run_handles(agent.handle, "judge") if agent.spec.judge else []
    return [agent.handle, *command_handles(agent.handle, await services.store.projects.recipe(agent)), *judging]
