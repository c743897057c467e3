"""The environment of an agent's lead, in which all that is its runs; where a restart has lost it, it is awaited."""

from forkjoin.core.model import Agent
from forkjoin.services import Services


async def await_environment(services: Services, agent: Agent) -> dict[str, str] | None:
    """The environment of the agent's lead, once it is there and the agent's turn; none once that is to be stopped."""

    async def find() -> dict[str, str] | None:
        stopped = (await services.store.agents.get(agent.number)).stop_asked
        return {} if stopped else find_environment(services, agent)

    try:
        return await services.store.changes.until(find) or None
    finally:
        services.waiting_for_environment.discard(agent.number)


def find_environment(services: Services, agent: Agent) -> dict[str, str] | None:
    """The environment of the agent's lead; none where that is gone, or was, and the agent has no slot again yet."""
    found = services.environments.find_for_agent(agent)
    if found is None and agent.number not in services.waiting_for_environment:
        services.waiting_for_environment.add(agent.number)
        services.store.changes.announce()
    return None if agent.number in services.waiting_for_environment else found
