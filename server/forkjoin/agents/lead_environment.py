"""The environment of an agent's lead, in which all that is its runs; where a restart has lost it, it is awaited."""

from forkjoin.core.model import Agent
from forkjoin.services import Rooms


async def await_environment(rooms: Rooms, agent: Agent) -> dict[str, str] | None:
    """The environment of the agent's lead, once it is there and the agent's turn; none once that is to be stopped."""

    async def find() -> dict[str, str] | None:
        stopped = (await rooms.store.agent(agent.number)).stop_asked
        return {} if stopped else find_environment(rooms, agent)

    try:
        return await rooms.store.changes.until(find) or None
    finally:
        rooms.stalled.discard(agent.number)


def find_environment(rooms: Rooms, agent: Agent) -> dict[str, str] | None:
    """The environment of the agent's lead; none where that is gone, or was, and the agent has no slot again yet."""
    found = rooms.environments.of_agent(agent)
    if found is None and agent.number not in rooms.stalled:
        rooms.stalled.add(agent.number)
        rooms.store.changes.announce()
    return None if agent.number in rooms.stalled else found
