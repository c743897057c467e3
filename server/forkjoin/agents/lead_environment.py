"""Waiting for the environment of an agent's lead, which a reboot, a logout or a missing tmpfs may have lost."""

from forkjoin.core.model import Agent
from forkjoin.services import Services


async def await_environment(services: Services, agent: Agent) -> dict[str, str] | None:
    """Return the environment of the agent's lead, or `None` if the agent is stopped.

    If the environment is lost, wait until the lead or a person connects in the project, which brings an environment,
    and the scheduler gives the agent a slot again.
    """

    async def find() -> dict[str, str] | None:
        stopped = (await services.store.agents.get(agent.number)).stop_asked
        return {} if stopped else find_or_give_slot_back(services, agent)

    try:
        return await services.store.changes.until(find) or None
    finally:
        services.waiting_for_environment.discard(agent.number)


def find_or_give_slot_back(services: Services, agent: Agent) -> dict[str, str] | None:
    """Return the environment of the agent's lead, or `None` if it is lost.

    Then the agent gives its slot back: it is added to `services.waiting_for_environment`. While the agent is in that
    set, the function returns `None`. The scheduler removes it once there is an environment and a slot.
    """
    found = services.environments.find_for_agent(agent)
    if found is None and agent.number not in services.waiting_for_environment:
        services.waiting_for_environment.add(agent.number)
        services.store.changes.announce()
    return None if agent.number in services.waiting_for_environment else found
