"""The transitions of agents' records from state to state, and from one attempt to the next.

An agent with an open request goes to `WAITING` instead of `RUNNING`. When its program ends, its requests are withdrawn.
"""

import re
import time
from dataclasses import replace

from forkjoin.core.error import BrokenPromiseError
from forkjoin.core.event import TEXT_LIMIT, Event, text_of
from forkjoin.core.model import FINAL, RUNS, TRANSITIONS, Agent, Merge, Pause, PauseKind, State
from forkjoin.core.result import Result
from forkjoin.store import rows
from forkjoin.store.queries import Queries

#: Characters of the last event that a list shows.
LAST_EVENT = 120
#: The most warnings of earlier attempts that a result repeats.
_MOST_EARLIER_WARNINGS = 20
#: The beginning of a warning of an earlier attempt.
_EARLIER_WARNING = re.compile(r"In attempt \d+: ")


def move(q: Queries, agent: Agent, to: State, pause: Pause | None = None) -> None:
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
        move(q, replace(agent, state=to, pause=Pause()), State.WAITING)
    elif to not in RUNS and pause.kind is PauseKind.RESTING:
        q.withdraw_requests(agent=agent.number, now=now)


def note(q: Queries, agent: Agent, event: Event, offset: int = -1) -> None:
    """Add an event to the agent's log. Its text is cut at `TEXT_LIMIT` bytes."""
    text = text_of(event).encode(errors="replace")[:TEXT_LIMIT].decode(errors="ignore")
    q.add_event(agent=agent.number, attempt=agent.attempt, at=time.time(), kind=event.kind, text=text, offset=offset)
    q.set_last_event(agent=agent.number, text=" ".join(text.split())[:LAST_EVENT])


def end_agent(q: Queries, agent: Agent, result: Result, merge: Merge) -> None:
    """Record an agent's final state and result.

    The result also gets the warnings of earlier results.
    """
    move(q, agent, result.state)
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


def stop(q: Queries, agent: Agent) -> None:
    """Record that an agent should stop. Do nothing if the agent has ended.

    An agent that never started is stopped at once.
    """
    if agent.state in FINAL:
        return
    q.ask_stop(number=agent.number)
    q.withdraw_requests(agent=agent.number, now=time.time())
    if agent.has_begun and not agent.under_way:
        move(q, agent, State.FINISHING)
    elif not agent.has_begun:
        end_agent(q, agent, Result(agent.attempt, State.STOPPED, "Stopped before it started.", ""), Merge.NOTHING)


def begin_again(q: Queries, agent: Agent, text: str) -> None:
    """Queue an agent's next attempt, with `text` and the agent's waiting messages.

    An attempt that starts with the task again keeps the empty message that marks it.
    """
    move(q, agent, State.QUEUED)
    q.begin_attempt(number=agent.number)
    attempt = {"agent": agent.number, "attempt": agent.attempt + 1}
    waiting = [row["text"] for row in q.waiting_mail(agent=agent.number)]
    q.add_message(**attempt, text="\n\n".join(filter(None, [text, *waiting])))
    q.give_mail(**attempt)


def wake(q: Queries, agent: Agent, environment: str | None = None, account: str | None = None) -> None:
    """Queue another attempt of an agent that has ended, with its waiting messages.

    Args:
        environment: The digest of the new environment. None keeps the agent's environment.
        account: The new account. None keeps the agent's account.
    """
    q.wake_agent(number=agent.number, environment=environment, account=account)
    begin_again(q, agent, "")


def add_to_turn(q: Queries, agent: Agent) -> None:
    """Add the agent's waiting messages to its queued attempt."""
    attempt = {"agent": agent.number, "attempt": agent.attempt}
    for row in q.waiting_mail(agent=agent.number):
        q.extend_message(**attempt, text=row["text"])
    q.give_mail(**attempt)
