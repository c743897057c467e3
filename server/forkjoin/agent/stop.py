"""Stopping: the whole tree of processes ends, and the work that was there is committed and kept."""

from collections.abc import Sequence

import anyio

from forkjoin.agent.prepare import handle_of
from forkjoin.attempt.executor import Executor
from forkjoin.config import Settings
from forkjoin.model import FINAL, Agent
from forkjoin.record.store import Store

#: How long, beyond the grace, the end of a stopped agent may take: committing what it left in a large tree.
_FINISH_S = 120


async def stop(store: Store, executor: Executor, settings: Settings, agents: Sequence[Agent]) -> list[Agent]:
    """Stop agents and see them to their ends; as they are then. Those that had ended already stay as they were.

    An agent is left in `finishing` only if processes of it can't be ended.
    """
    live = [agent for agent in agents if agent.state not in FINAL]
    await store.ask_stop(live)
    grace = settings.limits.stop_grace_s
    async with anyio.create_task_group() as tasks:
        for agent in live:
            tasks.start_soon(_see_to_its_end, store, executor, agent, grace)
    return [await store.agent(agent.number) for agent in agents]


async def _see_to_its_end(store: Store, executor: Executor, agent: Agent, grace: float) -> None:
    async def end() -> bool | None:
        now = await store.agent(agent.number)
        for handle in (handle_of(now), handle_of(now, "verify")):
            await executor.cancel(handle, grace)
        return True if (await store.agent(agent.number)).state in FINAL else None

    with anyio.move_on_after(grace + _FINISH_S):
        await store.changes.until(end)
