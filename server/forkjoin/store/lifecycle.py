"""The records of the steps of agents' lives, from spawn to removal.

Each method of `Lifecycle` is one transaction. The functions change records within a transaction.

An agent with an open request goes to `WAITING` instead of `RUNNING`. When its program ends, its requests are withdrawn.
"""

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from forkjoin.core.error import BrokenPromiseError
from forkjoin.core.event import TEXT_LIMIT, Event, text_of
from forkjoin.core.model import FINAL, RUNS, TRANSITIONS, Agent, Merge, Pause, PauseKind, Removal, State
from forkjoin.core.result import Result
from forkjoin.core.session import Call
from forkjoin.store import rows
from forkjoin.store.agents import Columns
from forkjoin.store.calls import remember
from forkjoin.store.database import Records, transaction
from forkjoin.store.new_agents import add_agents
from forkjoin.store.queries import Queries

#: Characters of the last event that a list shows.
_LAST_EVENT = 120
#: The most warnings of earlier attempts that a result repeats.
_MOST_EARLIER_WARNINGS = 20
#: The beginning of a warning of an earlier attempt.
_EARLIER_WARNING = re.compile(r"In attempt \d+: ")


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
        change_state(q, agent, to, pause)
        if event:
            log_event(q, agent, event)
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
            change_state(q, now, State.PAUSED, how)
            if how.starts_over:
                q.add_message(agent=now.number, attempt=now.attempt + 1, text="")
        else:
            change_state(q, now, State.FINISHING)
        log_event(q, now, event)
        return q.agent(agent.number)

    @transaction()
    def queue_again(self, q: Queries, agent: Agent, text: str) -> Agent:
        """Queue the agent's next attempt, and return the agent's new record.

        Args:
            text: The attempt's first message, unless the attempt starts with the task again.
        """
        q.take_back_mail(agent=agent.number, attempt=agent.attempt, all_=agent.converses)
        queue_next_attempt(q, agent, text)
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
            record_stop(q, agent)
        return list(all_agents.values())

    @transaction()
    def finish(self, q: Queries, agent: Agent, result: Result, merge: Merge) -> None:
        """Record an attempt's result, and the agent's final state with it.

        The agent's live descendants are asked to stop. If a message waits for the agent, its next attempt is queued.

        Raises:
            BrokenPromiseError: The agent has already ended. Its record stays unchanged.
        """
        end_agent(q, agent, result, merge)
        q.delete_refs_before(agent=agent.number)
        q.set_last_event(agent=agent.number, text=result.summary[:_LAST_EVENT])
        q.take_back_mail(agent=agent.number, attempt=agent.attempt, all_=False)
        for row in q.live_below(numbers=(agent.number,)):
            record_stop(q, rows.agent(row))
        now = q.agent(agent.number)
        if not now.stop_asked and any(q.waiting_mail(agent=agent.number)):
            queue_ended_agent(q, now)

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


def change_state(q: Queries, agent: Agent, to: State, pause: Pause | None = None) -> None:
    """Move an agent to another state.

    Raises:
        BrokenPromiseError: The agent is not in the state that `agent` says, or may not move from it to `to`.
    """
    now = time.time()
    pause = pause or Pause()
    is_allowed = (pause.kind if to is State.PAUSED else to) in TRANSITIONS[agent.phase]
    is_moved = is_allowed and q.move_agent(
        number=agent.number,
        from_=agent.state,
        attempt=agent.attempt,
        was_frozen=agent.phase is PauseKind.FROZEN,
        was_ending=agent.phase is PauseKind.ENDING,
        to=to,
        started=now if to is State.RUNNING else None,
        ended=now if to in FINAL else None,
        frozen=pause.kind is PauseKind.FROZEN,
        ending=pause.kind is PauseKind.ENDING,
        pause_reason=pause.reason,
        paused_why=pause.why,
        not_before=pause.not_before,
        counts=pause.counts,
    )
    if not is_moved:
        raise BrokenPromiseError(f"{agent.label} can't go from {agent.phase} to {to}")
    if to is State.RUNNING and any(q.requests_of(agents=(agent.number,))):
        change_state(q, replace(agent, state=to, pause=Pause()), State.WAITING)
    elif to not in RUNS and pause.kind is PauseKind.RESTING:
        q.withdraw_requests(agent=agent.number, now=now)


def log_event(q: Queries, agent: Agent, event: Event, offset: int = -1) -> None:
    """Add an event to the agent's log. Its text is cut at `TEXT_LIMIT` bytes."""
    text = text_of(event).encode(errors="replace")[:TEXT_LIMIT].decode(errors="ignore")
    failed = event.kind == "turn_ended" and not event.ok
    attempt = {"agent": agent.number, "attempt": agent.attempt}
    q.add_event(**attempt, at=time.time(), kind=event.kind, text=text, offset=offset, failed=failed)
    q.set_last_event(agent=agent.number, text=" ".join(text.split())[:_LAST_EVENT])


def end_agent(q: Queries, agent: Agent, result: Result, merge: Merge) -> None:
    """Record an agent's final state and result.

    The result also gets the warnings of earlier results.
    """
    change_state(q, agent, result.state)
    if (before := q.result(agent=agent.number)) is not None:
        earlier = _earlier_warnings(rows.RESULT.validate_json(before), result)
        result = replace(result, warnings=(*result.warnings, *earlier))
    q.add_result(agent=agent.number, attempt=result.attempt, result=result)
    q.set_merge(number=agent.number, merge=merge)


def _earlier_warnings(before: Result, now: Result) -> list[str]:
    """Return the warnings of earlier attempts that the new result lacks, newest first.

    Each names its attempt.
    """
    marked = (
        warning if _EARLIER_WARNING.match(warning) else f"In attempt {before.attempt}: {warning}"
        for warning in before.warnings
    )
    unrepeated = [warning for warning in marked if _EARLIER_WARNING.sub("", warning) not in now.warnings]
    return unrepeated[:_MOST_EARLIER_WARNINGS]


def record_stop(q: Queries, agent: Agent) -> None:
    """Record that an agent should stop. Do nothing if the agent has ended.

    An agent that never started is stopped at once.
    """
    if agent.state in FINAL:
        return
    q.ask_stop(number=agent.number)
    q.withdraw_requests(agent=agent.number, now=time.time())
    if agent.has_begun and not agent.under_way:
        change_state(q, agent, State.FINISHING)
    elif not agent.has_begun:
        end_agent(q, agent, Result(agent.attempt, State.STOPPED, "Stopped before it started.", ""), Merge.NOTHING)


def queue_next_attempt(q: Queries, agent: Agent, text: str) -> None:
    """Queue an agent's next attempt, with `text` and the agent's waiting messages.

    An attempt that starts with the task again keeps the empty message that marks it.
    """
    change_state(q, agent, State.QUEUED)
    q.begin_attempt(number=agent.number)
    attempt = {"agent": agent.number, "attempt": agent.attempt + 1}
    waiting = [row["text"] for row in q.waiting_mail(agent=agent.number)]
    q.add_message(**attempt, text="\n\n".join(filter(None, [text, *waiting])))
    q.give_mail(**attempt)


def queue_ended_agent(q: Queries, agent: Agent, environment: str | None = None, account: str | None = None) -> None:
    """Queue another attempt of an agent that has ended, with its waiting messages.

    Args:
        environment: The digest of the new environment. None keeps the agent's environment.
        account: The new account. None keeps the agent's account.
    """
    q.wake_agent(number=agent.number, environment=environment, account=account)
    queue_next_attempt(q, agent, "")


def add_messages_to_attempt(q: Queries, agent: Agent) -> None:
    """Add the agent's waiting messages to its queued attempt."""
    attempt = {"agent": agent.number, "attempt": agent.attempt}
    for row in q.waiting_mail(agent=agent.number):
        q.extend_message(**attempt, text=row["text"])
    q.give_mail(**attempt)
