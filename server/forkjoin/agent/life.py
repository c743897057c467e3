"""An agent's life, from where its record stands to its end.

Each state's work can be done twice without harm, so that taking over an agent, after the daemon was killed at any
moment, is nothing but living on from its record.
"""

import logging
from dataclasses import replace
from functools import partial

from forkjoin.adapter.all import ADAPTERS
from forkjoin.adapter.contract import Adapter, Retry
from forkjoin.agent.attach import end_visit
from forkjoin.agent.conclude import conclude
from forkjoin.agent.finish import finish, give_up
from forkjoin.agent.listen import listen
from forkjoin.agent.machine import note_peak
from forkjoin.agent.prepare import handle_of, order, prepare
from forkjoin.agent.rate_limit import note_refusal
from forkjoin.agent.rest import rest_after
from forkjoin.agent.setup import set_up
from forkjoin.agent.stop import end_processes
from forkjoin.agent.tell import deliver
from forkjoin.error import is_passing, words_of
from forkjoin.event import Noted, RateLimited
from forkjoin.model import FINAL, RUNS, Agent, Outcome, State
from forkjoin.rooms import Rooms

log = logging.getLogger(__name__)

#: Ends after which something of it may still run: its shim is gone, or could not end it.
_LEFT_BEHIND = ("lost", "timed_out", "limited")


class Life:
    """What it takes to carry agents through their states."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self._executor = rooms.executor

    async def live(self, agent: Agent) -> None:
        """Carry an agent that is under way on to its end, or to where it waits for a turn; its trouble is its own."""
        try:
            while agent.under_way:
                agent = await self._step(agent)
        except Exception as error:
            if is_passing(error):
                raise  # the agent is well: whoever called tries again
            log.exception("%s: in state %s", agent.label, agent.state)
            await self._give_up(await self._store.agent(agent.number), error)

    async def _step(self, agent: Agent) -> Agent:
        match agent.state:
            case State.PREPARING:
                return await self._prepare(agent)
            case State.RUNNING | State.WAITING | State.PAUSED:
                return await self._run(agent)
            case State.FINISHING:
                return await self._finish(agent)
            case _:
                raise AssertionError(f"{agent.label} is not under way: {agent.state}")

    async def _prepare(self, agent: Agent) -> Agent:
        await end_visit(self._rooms, agent)  # of a person who is not back since a restart
        agent = await prepare(self._rooms, agent)
        environment = await self._environment(agent)
        if environment is None or not await set_up(self._rooms, agent, environment):
            return await self._store.move(agent, State.FINISHING, Noted("stopped before it started"))
        spec = await order(self._rooms, await self._store.agent(agent.number), environment)
        await self._executor.submit(spec)
        return await self._store.move(agent, State.RUNNING, Noted(f"started: {spec.argv[0]}"))

    async def _run(self, agent: Agent) -> Agent:
        adapter = self._adapter(agent)
        await listen(self._rooms, adapter, agent)
        outcome = await self._outcome(agent)
        await deliver(self._rooms, agent)  # so that what a daemon had sent that died counts as sent
        await note_peak(self._rooms, agent, outcome)
        concluded = await conclude(self._rooms, adapter, agent, outcome)
        if concluded.retry is Retry.WHEN_TAKEN:
            await note_refusal(self._rooms, agent, RateLimited(concluded.error or str(outcome)))
        if concluded.retry is Retry.WHEN_FUNDED:
            await self._store.spend_grant(agent)
        rest = rest_after(self._rooms, agent, concluded)
        how = f"{rest.why}; it is to go on" if rest else str(outcome)
        done = concluded.ok or outcome.kind == "timed_out"
        return await self._store.end_attempt(agent, Noted(f"ended: {how}"), rest, done=done)

    async def _outcome(self, agent: Agent) -> Outcome:
        """How the newest attempt ended; what may be left of it is ended first."""
        outcome = await self._executor.outcome(handle_of(agent))
        if agent.stop_asked or outcome.kind in _LEFT_BEHIND:
            await end_processes(self._rooms, agent)
            outcome = replace(outcome, left=())
        return outcome

    async def _finish(self, agent: Agent) -> Agent:
        outcome = await self._outcome(agent)
        await finish(self._rooms, self._adapter(agent), agent, outcome, partial(self._environment, agent))
        return await self._store.agent(agent.number)

    def _adapter(self, agent: Agent) -> Adapter:
        return ADAPTERS[self._rooms.settings.program(agent.spec.agent).kind]

    async def _environment(self, agent: Agent) -> dict[str, str] | None:
        """The environment of the agent's lead; where a restart has lost it, once it is there and the agent's turn.

        None once the agent is to be stopped.
        """

        async def find() -> dict[str, str] | None:
            stopped = (await self._store.agent(agent.number)).stop_asked
            return {} if stopped else find_environment(self._rooms, agent)

        try:
            return await self._store.changes.until(find) or None
        finally:
            self._rooms.stalled.discard(agent.number)

    async def _give_up(self, agent: Agent, error: Exception) -> None:
        """Record that we could not carry the agent further, whatever state that was in."""
        await end_processes(self._rooms, agent)
        if agent.state in (*RUNS, State.PAUSED):
            agent = await self._store.move(agent, State.FINISHING)
        if agent.state in FINAL:
            return
        await give_up(self._rooms, agent, words_of(error))


def find_environment(rooms: Rooms, agent: Agent) -> dict[str, str] | None:
    """The environment of the agent's lead; none where that is gone, or was, and the agent has no slot again yet."""
    found = rooms.environments.find(agent.environment, agent.project, agent.first_lead)
    if found is None and agent.number not in rooms.stalled:
        rooms.stalled.add(agent.number)
        rooms.store.changes.announce()
    return None if agent.number in rooms.stalled else found
