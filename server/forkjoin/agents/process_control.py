"""Doing to agents' programs what their records say: stop in midst, go on, end."""

from collections.abc import Iterable
from typing import Literal

from forkjoin.agents.stop import end_processes
from forkjoin.core.model import Agent, State
from forkjoin.services import Services


class Obey:
    """Does each once; of what an earlier daemon did, it knows nothing, and does that again, which is harmless."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._done: dict[tuple[int, int], str] = {}  #: by agent and attempt

    def forget_all_but(self, agents: Iterable[Agent]) -> None:
        """Know nothing of others any more."""
        keys = {(agent.number, agent.attempt) for agent in agents}
        self._done = {key: done for key, done in self._done.items() if key in keys}

    def is_due(self, agent: Agent) -> bool:
        """Whether there is something to do for what is recorded of this agent."""
        return self._wanted(agent) not in (None, self._done.get((agent.number, agent.attempt)))

    async def follow(self, number: int) -> None:
        """Do what is recorded now.

        Raises:
            OSError: It can't be frozen now.
        """
        agent = await self._services.store.agent(number)
        wanted = self._wanted(agent)
        if wanted is None or not self.is_due(agent):
            return
        match wanted:
            case "ended" if agent.stop_asked:
                await end_processes(self._services, agent)
            case "ended":  # its program alone: where that is done, a verify may come
                await end_processes(self._services, agent, [agent.handle])
            case "frozen":
                await self._services.executor.freeze(agent.handle)
            case "waiting":
                await self._services.executor.thaw(agent.handle)
                await self._services.executor.excuse(agent.handle)
            case "running":
                await self._services.executor.thaw(agent.handle)
        self._done[agent.number, agent.attempt] = wanted

    def _wanted(self, agent: Agent) -> Literal["ended", "frozen", "waiting", "running"] | None:
        """What is to be true of the agent's program; none where it has none, or whatever it does is right."""
        if agent.stop_asked or agent.pause.ending:
            return "ended"
        if agent.pause.frozen:
            return "frozen"
        if agent.state is State.WAITING or (
            agent.state is State.RUNNING and agent.number in self._services.waiting_for_nested
        ):
            return "waiting"
        return "running" if agent.state is State.RUNNING else None
