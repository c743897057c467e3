"""The records of requests: questions and permissions that wait for their first answer."""

import time
from collections.abc import Collection, Iterable

from forkjoin.core.error import CallerError
from forkjoin.core.event import Noted
from forkjoin.core.model import RUNS, Agent, State
from forkjoin.core.request import Request
from forkjoin.core.session import Call
from forkjoin.store import rows, transitions
from forkjoin.store.calls import remember
from forkjoin.store.database import Records, transaction
from forkjoin.store.queries import Queries

#: The most requests that an agent may have open, and may ever make: an agent that asks in a loop must decide itself.
_MOST_OPEN, _MOST_EVER = 16, 1000
#: Characters of a request or an answer that the agent's log shows.
_LOGGED = 200
#: States in which an agent's program may be there to ask.
_MAY_ASK = RUNS | {State.PREPARING, State.PAUSED}


class Requests(Records):
    """The part of the store for requests."""

    @transaction()
    def add(self, q: Queries, number: int, call: Call, new: rows.NewRequest) -> Request:
        """Record a request of the agent with this number, which then waits for the answer.

        A call that was recorded before returns the request that it made.

        Raises:
            CallerError: The agent may not ask now; the error says why.
        """
        known = {"agent": number, "call": f"{call.relay} {call.request}"}
        if found := q.request_of_call(**known):
            return rows.request(found)
        agent, now = q.agent(number), time.time()
        asked = list(q.requests_of(agents=(number,)))
        if why := _refusal(agent, len(asked), q.count_requests(agent=number)):
            raise CallerError(f"You can't ask: {why}")
        what = {"kind": new.kind, "text": new.text, "fallback": new.fallback}
        request = rows.request(q.request(number=q.add_request(**known, **what, asked=now, expires=now + new.seconds)))
        transitions.note(q, agent, Noted(f"asks {request.id} ({request.kind}): {request.text[:_LOGGED]}"))
        if agent.state is State.RUNNING:
            transitions.move(q, agent, State.WAITING)
        return request

    @transaction()
    def answer(self, q: Queries, request: Request, said: str, reason: str, by: str, call: Call) -> Request:
        """Record the answer to a request, and return the request as it is then.

        Raises:
            CallerError: The request was closed before; the error says how.
        """
        now = rows.request(q.request(number=request.number))
        if now.closed is not None:
            raise CallerError(f"{now.id} is closed, and the first answer counts. It was {now.outcome}")
        remember(q, call, {"request": now.number})
        return _close(q, now, said, reason, by)

    @transaction()
    def withdraw(self, q: Queries, request: Request) -> None:
        """Close a request that nobody waits for any more, unless it is closed."""
        if rows.request(q.request(number=request.number)).closed is None:
            _close(q, request, "", "", "")

    @transaction()
    def expire(self, q: Queries, now: float) -> None:
        """Close the requests that nobody has answered in time with their fallback answers."""
        for row in list(q.expired_requests(now=now)):
            request = rows.request(row)
            _close(q, request, request.fallback, "", "")

    async def postpone(self, seconds: float, before: float) -> None:
        """Let requests that were made before that time expire that many seconds later."""
        await self._database.execute("postpone_requests", seconds=seconds, before=before)

    async def next_expiry(self) -> float | None:
        """Return when the next request expires, in seconds since the epoch; None if none is open."""
        return await self._database.read_one(float, "next_expiry")

    async def get(self, number: int) -> Request | None:
        return await self._database.read_one(rows.request, "request", number=number)

    async def find(self, project: int, number: int) -> Request | None:
        """Return the request with this number; None if no agent of the project made it."""
        return await self._database.read_one(rows.request, "project_request", number=number, project=project)

    async def open(self, project: int | None = None) -> list[Request]:
        """Return the open requests of a project, or of all projects, oldest first."""
        return await self._requests("open_requests", project=project)

    async def open_of(self, agents: Collection[int]) -> list[Request]:
        """Return the open requests of these agents, oldest first."""
        return await self._requests("requests_of", agents=tuple(agents)) if agents else []

    async def open_to(self, project: int, lead: str) -> list[Request]:
        """Return the open requests of this lead's agents, oldest first."""
        return await self._requests("requests_to", project=project, lead=lead)

    async def untold(self, project: int, lead: str, requests: Iterable[Request]) -> set[int]:
        """Return the numbers of those requests that no wait of this lead has reported."""
        numbers = {request.number for request in requests}
        told = await self._database.read_rows("told_requests", project=project, lead=lead, requests=tuple(numbers))
        return numbers - {row["request"] for row in told}

    @transaction(announce=False)
    def set_told(self, q: Queries, project: int, lead: str, requests: Iterable[Request]) -> None:
        """Record that these requests were reported to the lead."""
        for request in requests:
            q.add_request_told(project=project, lead=lead, request=request.number)

    async def _requests(self, query: str, **values: object) -> list[Request]:
        return [rows.request(row) for row in await self._database.read_rows(query, **values)]


def _refusal(agent: Agent, unanswered: int, ever: int) -> str | None:
    """Return why the agent may make no request now; None if it may."""
    if agent.stop_asked or agent.state not in _MAY_ASK:
        return "you are being stopped, or have ended."
    if unanswered >= _MOST_OPEN:
        return f"{unanswered} requests of yours are open; wait for their answers first."
    if ever >= _MOST_EVER:
        return f"you have asked {ever} times; decide yourself, and say what you decided."
    return None


def _close(q: Queries, request: Request, said: str, reason: str, by: str) -> Request:
    """Record how a request was closed, and let its agent run again if it was the last open one."""
    q.close_request(number=request.number, now=time.time(), said=said, reason=reason, answered_by=by)
    closed = rows.request(q.request(number=request.number))
    agent = q.agent(request.agent)
    transitions.note(q, agent, Noted(f"{closed.id} {closed.outcome}"[: 2 * _LOGGED]))
    if agent.state is State.WAITING and not any(q.requests_of(agents=(agent.number,))):
        transitions.move(q, agent, State.RUNNING)
    return closed
