"""How an agent's record moves: from state to state, and from one attempt to the next, which is told what waits.

Where it goes on it waits, as long as a request of it is open; where its program is to end, its requests are withdrawn.
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
#: How many warnings of earlier attempts a result has.
_MOST_EARLIER = 20
#: How such a warning begins.
_EARLIER = re.compile(r"In attempt \d+: ")


def move(q: Queries, agent: Agent, to: State, pause: Pause | None = None) -> None:
    """Move an agent to another state.

    Raises:
        BrokenPromiseError: It is not in the state that `agent` says, or the table allows no such move.
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
    """Record that this has happened to an agent."""
    text = text_of(event).encode(errors="replace")[:TEXT_LIMIT].decode(errors="ignore")
    q.add_event(agent=agent.number, attempt=agent.attempt, at=time.time(), kind=event.kind, text=text, offset=offset)
    q.set_last_event(agent=agent.number, text=" ".join(text.split())[:LAST_EVENT])


def end(q: Queries, agent: Agent, result: Result, merge: Merge) -> None:
    """Record an attempt's end with its result, and with what earlier results warned of."""
    move(q, agent, result.state)
    if (before := q.result(agent=agent.number)) is not None:
        result = replace(result, warnings=(*result.warnings, *_earlier(rows.RESULT.validate_json(before), result)))
    q.add_result(agent=agent.number, attempt=result.attempt, result=result)
    q.set_merge(number=agent.number, merge=merge)


def _earlier(before: Result, now: Result) -> list[str]:
    """Return the warnings of earlier attempts that the new result doesn't repeat, newest first, as such."""
    marked = (one if _EARLIER.match(one) else f"In attempt {before.attempt}: {one}" for one in before.warnings)
    return [one for one in marked if _EARLIER.sub("", one) not in now.warnings][:_MOST_EARLIER]


def stop(q: Queries, agent: Agent) -> None:
    """Note that an agent is to be stopped, unless it has ended; one that never started is stopped at once."""
    if agent.state in FINAL:
        return
    q.ask_stop(number=agent.number)
    q.withdraw_requests(agent=agent.number, now=time.time())
    if agent.has_begun and not agent.under_way:
        move(q, agent, State.FINISHING)
    elif not agent.has_begun:
        end(q, agent, Result(agent.attempt, State.STOPPED, "Stopped before it started.", ""), Merge.NOTHING)


def begin_again(q: Queries, agent: Agent, text: str) -> None:
    """Queue an agent's next attempt, which is told `text` and what waits for it, unless it begins anew."""
    move(q, agent, State.QUEUED)
    q.begin_attempt(number=agent.number)
    attempt = {"agent": agent.number, "attempt": agent.attempt + 1}
    waiting = [row["text"] for row in q.waiting_mail(agent=agent.number)]
    q.add_message(**attempt, text="\n\n".join(filter(None, [text, *waiting])))
    q.give_mail(**attempt)


def wake(q: Queries, agent: Agent, environment: str | None = None, account: str | None = None) -> None:
    """Queue another attempt of one that has ended, which is told what waits; in this environment, if given."""
    q.wake_agent(number=agent.number, environment=environment, account=account)
    begin_again(q, agent, "")


def add_to_turn(q: Queries, agent: Agent) -> None:
    """Give what waits to the attempt that is queued."""
    attempt = {"agent": agent.number, "attempt": agent.attempt}
    for row in q.waiting_mail(agent=agent.number):
        q.extend_message(**attempt, text=row["text"])
    q.give_mail(**attempt)
