"""Freezing, resuming and ending agents' programs, as the records ask for it."""

from collections.abc import Iterable
from typing import Literal

from forkjoin.agents.stop import end_processes
from forkjoin.core.model import Agent, PauseKind, State
from forkjoin.services import Services


class ProcessControl:
    """Brings each agent's program into the state that the agent's record asks for.

    It remembers what it did in memory only. A daemon that takes over does it again, which has no further effect.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._done: dict[
            tuple[int, int], str
        ] = {}  #: by agent number and attempt, the state that the program was brought into last

    def forget_others(self, agents: Iterable[Agent]) -> None:
        """Forget the states of the programs of all agents except these."""
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
            case "ended":  # ends only the program: the commands that follow in this attempt, like verify, may run
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

        `waiting` means that the program runs, and that its limit of time without output is paused. `None` means that
        nothing needs to be done, because no program runs.
        """
        if agent.stop_asked or agent.phase is PauseKind.ENDING:
            return "ended"
        if agent.phase is PauseKind.FROZEN:
            return "frozen"
        is_waiting_for_nested = agent.state is State.RUNNING and agent.number in self._services.waiting_for_nested
        if agent.state is State.WAITING or is_waiting_for_nested:
            return "waiting"
        return "running" if agent.state is State.RUNNING else None
