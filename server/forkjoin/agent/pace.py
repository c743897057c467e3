"""Pausing in midst: an agent's program is stopped, or goes on, as its record says."""

from collections.abc import Iterable

from forkjoin.agent.prepare import handle_of
from forkjoin.model import Agent, State
from forkjoin.rooms import Rooms

#: Whose program is there, stopped in midst or not.
_IN_PROGRAM = frozenset({State.RUNNING, State.WAITING, State.PAUSED})


class Pace:
    """Knows what it has done; of what an earlier daemon did, nothing, so that it does that again."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._frozen: dict[tuple[int, int], bool] = {}  #: by agent and attempt

    def forget_all_but(self, agents: Iterable[Agent]) -> None:
        """Know nothing of others any more."""
        keys = {(agent.number, agent.attempt) for agent in agents}
        self._frozen = {key: frozen for key, frozen in self._frozen.items() if key in keys}

    def is_due(self, agent: Agent) -> bool:
        """Whether there is something to do for what is recorded of this agent."""
        return agent.state in _IN_PROGRAM and self._frozen.get((agent.number, agent.attempt)) is not agent.frozen

    async def follow(self, number: int) -> None:
        """Do what is recorded.

        Raises:
            OSError: There is no room to note that it is frozen.
        """
        agent = await self._rooms.store.agent(number)
        if self.is_due(agent) and not agent.stop_asked:
            executor = self._rooms.executor
            await (executor.freeze if agent.frozen else executor.thaw)(handle_of(agent))
        self._frozen[agent.number, agent.attempt] = agent.frozen
