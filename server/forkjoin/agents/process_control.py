"""Freezing, resuming and ending agents' programs, as the records ask for it."""

from collections.abc import Iterable
from typing import Literal

from forkjoin.agents.stop import end_processes
from forkjoin.core.model import Agent, PauseKind, State
from forkjoin.services import Services


class ProcessControl:
    """Brings each agent's program into the state that the agent's record asks for.

    A daemon that takes over repeats what an earlier daemon did, which is harmless.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._done: dict[tuple[int, int], str] = {}  #: the state reached last, by agent number and attempt

    def forget_others(self, agents: Iterable[Agent]) -> None:
        """Forget all agents except these."""
        keys = {(agent.number, agent.attempt) for agent in agents}
        self._done = {key: done for key, done in self._done.items() if key in keys}

    def is_pending(self, agent: Agent) -> bool:
        """Return whether the program must still be frozen, resumed or ended."""
        return self._wanted(agent) not in (None, self._done.get((agent.number, agent.attempt)))

    async def apply(self, number: int) -> None:
        """Freeze, resume or end the agent's program, as its current record asks for.

        Raises:
            OSError: The program can't be frozen now. Try again later.
        """
        agent = await self._services.store.agents.get(number)
        wanted = self._wanted(agent)
        if wanted is None or not self.is_pending(agent):
            return
        executor = self._services.executor
        match wanted:
            case "ended" if agent.stop_asked:
                await end_processes(self._services, agent)
            case "ended":  # only the program: a verify of the same attempt may follow
                await end_processes(self._services, agent, [agent.handle])
            case "frozen":
                await executor.freeze(agent.handle)
            case "waiting":
                await executor.thaw(agent.handle)
                await executor.pause_silence_limit(agent.handle)
            case "running":
                await executor.thaw(agent.handle)
        self._done[agent.number, agent.attempt] = wanted

    def _wanted(self, agent: Agent) -> Literal["ended", "frozen", "waiting", "running"] | None:
        """Return the state that the agent's program should be in.

        `None` means that it may be in any state.
        """
        if agent.stop_asked or agent.phase is PauseKind.ENDING:
            return "ended"
        if agent.phase is PauseKind.FROZEN:
            return "frozen"
        is_waiting_for_nested = agent.state is State.RUNNING and agent.number in self._services.waiting_for_nested
        if agent.state is State.WAITING or is_waiting_for_nested:
            return "waiting"
        return "running" if agent.state is State.RUNNING else None
