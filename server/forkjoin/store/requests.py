"""The records of requests: questions and permissions that wait for their first answer."""

import time
from collections.abc import Collection, Iterable

from forkjoin.core.error import CallerError
from forkjoin.core.event import Noted
from forkjoin.core.model import RUNS, Agent, State
from forkjoin.core.request import Request
from forkjoin.core.session import Call
from forkjoin.store import rows
from forkjoin.store.calls import remember
from forkjoin.store.database import Records, transaction
from forkjoin.store.lifecycle import change_state, log_event
from forkjoin.store.queries import Queries

#: The most requests that an agent may have open, and may ever make. An agent that asks in a loop must decide itself.
_MOST_OPEN, _MOST_EVER = 16, 1000
#: Characters of a request or an answer that the agent's log shows.
_LOGGED = 200
#: States in which an agent's program may run, and therefore ask.
_MAY_ASK = RUNS | {State.PREPARING, State.PAUSED}


class Requests(Records):
    """The part of the store for requests."""

    @transaction()
    def add(self, q: Queries, number: int, call: Call, new: rows.NewRequest) -> Request:
        """Record a request of the agent with this number. The agent waits for the answer.

        A repeated call returns the request that the first call made.

        Raises:
            CallerError: The agent may not ask now. The error says why.
        """
        known = {"agent": number, "call": f"{call.relay} {call.request}"}
        if found := q.request_of_call(**known):
            return rows.request(found)
        agent, now = q.agent(number), time.time()
        asked = list(q.requests_of(agents=(number,)))
        if why := _request_refusal(agent, len(asked), q.count_requests(agent=number)):
            raise CallerError(f"You can't ask: {why}")
        what = {"kind": new.kind, "text": new.text, "fallback": new.fallback}
        request = rows.request(q.request(number=q.add_request(**known, **what, asked=now, expires=now + new.seconds)))
        log_event(q, agent, Noted(f"asks {request.id} ({request.kind}): {request.text[:_LOGGED]}"))
        if agent.state is State.RUNNING:
            change_state(q, agent, State.WAITING)
        return request

    @transaction()
    def answer(self, q: Queries, request: Request, said: str, reason: str, by: str, call: Call) -> Request:
        """Record the answer to a request, and return the closed request.

        Raises:
            CallerError: The request was closed before. The error says how.
        """
        now = rows.request(q.request(number=request.number))
        if now.closed is not None:
            raise CallerError(f"{now.id} is closed, and the first answer counts. It was {now.outcome}")
        remember(q, call, {"request": now.number})
        return _close_request(q, now, said, reason, by)

    @transaction()
    def withdraw(self, q: Queries, request: Request) -> None:
        """Close an open request for whose answer no program waits any more."""
        if rows.request(q.request(number=request.number)).closed is None:
            _close_request(q, request, "", "", "")

    @transaction()
    def expire(self, q: Queries, now: float) -> None:
        """Close the requests that have expired, with their fallback answers."""
        for row in list(q.expired_requests(now=now)):
            request = rows.request(row)
            _close_request(q, request, request.fallback, "", "")

    async def postpone(self, seconds: float, before: float) -> None:
        """Postpone the expiry of requests that were made before that time."""
        await self._database.execute("postpone_requests", seconds=seconds, before=before)

    async def next_expiry(self) -> float | None:
        """Return when the next request expires, or None if no request is open.

        The time is in seconds since the epoch.
        """
        return await self._database.read_one(float, "next_expiry")

    async def get(self, number: int) -> Request | None:
        return await self._database.read_one(rows.request, "request", number=number)

    async def find(self, project: int, number: int) -> Request | None:
        """Return the request with this number, or None if it is not of this project."""
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
        """Return the numbers of the requests that were not yet reported to the lead."""
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


def _request_refusal(agent: Agent, unanswered: int, ever: int) -> str | None:
    """Return why the agent may make no request now, or None if it may."""
    if agent.stop_asked or agent.state not in _MAY_ASK:
        return "you are being stopped, or have ended."
    if unanswered >= _MOST_OPEN:
        return f"{unanswered} requests of yours are open; wait for their answers first."
    if ever >= _MOST_EVER:
        return f"you have asked {ever} times; decide yourself, and report your decision."
    return None


def _close_request(q: Queries, request: Request, said: str, reason: str, by: str) -> Request:
    """Record how a request was closed, and return the closed request.

    The agent runs again if the request was its last open one.
    """
    q.close_request(number=request.number, now=time.time(), said=said, reason=reason, answered_by=by)
    closed = rows.request(q.request(number=request.number))
    agent = q.agent(request.agent)
    log_event(q, agent, Noted(f"{closed.id} {closed.outcome}"[: 2 * _LOGGED]))
    if agent.state is State.WAITING and not any(q.requests_of(agents=(agent.number,))):
        change_state(q, agent, State.RUNNING)
    return closed
