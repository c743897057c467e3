"""The records of the steps of agents' lives, from spawn to removal. Each step is one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from forkjoin.core.event import Event
from forkjoin.core.model import FINAL, Agent, Merge, Pause, PauseKind, Removal, State
from forkjoin.core.result import Result
from forkjoin.core.session import Call
from forkjoin.store import rows, transitions
from forkjoin.store.agents import Columns
from forkjoin.store.calls import remember
from forkjoin.store.database import Records, transaction
from forkjoin.store.new_agents import add_agents
from forkjoin.store.queries import Queries


class Lifecycle(Records):
    """The part of the store that moves agents from state to state."""

    async def spawn(
        self, new: Sequence[rows.NewAgent], place: rows.Place, call: Call, *, commit: bool = True
    ) -> list[Agent]:
        """Record new agents, all or none.

        Args:
            place: Returns the branch and the worktree's path for a number and a name.
            commit: If false, nothing is recorded: the agents returned are what would be recorded.
        """

        def act(q: Queries) -> list[Agent]:
            numbers = add_agents(q, self._database.first_port, new, place)
            remember(q, call, {"agents": numbers})
            return [q.agent(number) for number in numbers]

        return await self._database.write("Lifecycle.spawn", act, commit=commit)

    @transaction()
    def move(
        self, q: Queries, agent: Agent, to: State, event: Event | None = None, pause: Pause | None = None
    ) -> Agent:
        """Move an agent to another state, and return its new record.

        Args:
            event: The reason for the transition, for the agent's log.
            pause: The pause, if `to` is `State.PAUSED`.

        Raises:
            BrokenPromiseError: The agent is not in the state that `agent` says, or may not move from it to `to`.
        """
        transitions.move(q, agent, to, pause)
        if event:
            transitions.note(q, agent, event)
        return q.agent(agent.number)

    @transaction()
    def end_attempt(self, q: Queries, agent: Agent, event: Event, pause: Pause | None, *, done: bool) -> Agent:
        """Record that an attempt's program has ended, and return the agent's new record.

        The agent is finishing, unless another attempt follows and the agent is not being stopped. Another attempt
        follows if `pause` is given, or if the program was asked to end for a pause and is not `done` with its task.
        """
        now = q.agent(agent.number)
        was_asked_to_end = now.phase is PauseKind.ENDING and not done
        how = replace(now.pause, kind=PauseKind.RESTING) if was_asked_to_end else pause
        if how and not now.stop_asked:
            transitions.move(q, now, State.PAUSED, how)
            if how.starts_over:
                q.add_message(agent=now.number, attempt=now.attempt + 1, text="")
        else:
            transitions.move(q, now, State.FINISHING)
        transitions.note(q, now, event)
        return q.agent(agent.number)

    @transaction()
    def queue_again(self, q: Queries, agent: Agent, text: str) -> Agent:
        """Queue the agent's next attempt, and return the agent's new record.

        Args:
            text: The attempt's first message, unless the attempt starts with the task again.
        """
        q.take_back_mail(agent=agent.number, attempt=agent.attempt, all_=agent.converses)
        transitions.begin_again(q, agent, text)
        return q.agent(agent.number)

    @transaction()
    def ask_stop(self, q: Queries, agents: Iterable[Agent]) -> list[Agent]:
        """Record that these agents and their live descendants should stop.

        Agents that never started are stopped at once.

        Returns:
            The agents and their live descendants, as they were before.
        """
        numbers = tuple(agent.number for agent in agents)
        found = (*q.agents_numbered(numbers=numbers), *q.live_below(numbers=numbers))
        all_agents = {agent.number: agent for agent in map(rows.agent, found)}
        for agent in all_agents.values():
            transitions.stop(q, agent)
        return list(all_agents.values())

    @transaction()
    def finish(self, q: Queries, agent: Agent, result: Result, merge: Merge) -> None:
        """Record an attempt's result, and the agent's final state with it.

        The agent's live descendants are asked to stop. If a message waits for the agent, its next attempt is queued.

        Raises:
            BrokenPromiseError: The agent has already ended. Its record stays unchanged.
        """
        transitions.end_agent(q, agent, result, merge)
        q.delete_refs_before(agent=agent.number)
        q.set_last_event(agent=agent.number, text=result.summary[: transitions.LAST_EVENT])
        q.take_back_mail(agent=agent.number, attempt=agent.attempt, all_=False)
        for row in q.live_below(numbers=(agent.number,)):
            transitions.stop(q, rows.agent(row))
        now = q.agent(agent.number)
        if not now.stop_asked and any(q.waiting_mail(agent=agent.number)):
            transitions.wake(q, now)

    @transaction()
    def begin_removal(self, q: Queries, agents: Sequence[Agent], how: Removal = Removal.MERGED) -> list[Agent]:
        """Record that the removal of these agents has begun.

        Records nothing if one of the agents is live or in the merge queue.

        Returns:
            The agents that are live or in the merge queue.
        """
        now = [q.agent(agent.number) for agent in agents]
        busy = [agent for agent in now if agent.state not in FINAL or agent.merge is Merge.QUEUED]
        if not busy:
            numbers = tuple(agent.number for agent in now)
            q.set_agents(**dict.fromkeys(Columns.__annotations__) | {"numbers": numbers, "removing": how})
        return busy
