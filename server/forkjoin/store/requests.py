"""The records of what agents ask: a question or a permission, which waits for its first answer."""

import time
from collections.abc import Collection, Iterable

from forkjoin.core.error import CallerError
from forkjoin.core.event import Noted
from forkjoin.core.model import RUNS, Agent, Request, State
from forkjoin.core.session import Call
from forkjoin.store import rows, transitions
from forkjoin.store.database import Queries
from forkjoin.store.merges import remember
from forkjoin.store.transaction import Transactions

#: How much an agent may ask at once, and ever: one that asks in a loop is to decide by itself.
_MOST_OPEN, _MOST = 16, 1000
#: Characters of what is asked, and answered, that the agent's log shows.
_WORDS = 200
#: States in which a program may be there that asks.
_MAY_ASK = RUNS | {State.PREPARING, State.PAUSED}


class Requests(Transactions):
    """The part of the store that tells of requests."""

    @Transactions.step()
    def ask(self, q: Queries, number: int, call: Call, new: rows.NewRequest) -> Request:
        """Record what an agent asks, unless this call was recorded; the agent waits then.

        Raises:
            CallerError: It may not ask now; the message says why.
        """
        known = {"agent": number, "call": f"{call.relay} {call.request}"}
        if found := q.request_of_call(**known):
            return rows.request(found)
        agent, now = q.agent(number), time.time()
        asked = list(q.requests_of(agents=(number,)))
        if why := _why_not(agent, len(asked), q.count_requests(agent=number)):
            raise CallerError(f"You can't ask: {why}")
        what = {"kind": new.kind, "text": new.text, "fallback": new.fallback}
        request = rows.request(q.request(number=q.add_request(**known, **what, asked=now, expires=now + new.seconds)))
        transitions.note(q, agent, Noted(f"asks {request.id} ({request.kind}): {request.text[:_WORDS]}"))
        if agent.state is State.RUNNING:
            transitions.move(q, agent, State.WAITING)
        return request

    async def request(self, number: int) -> Request | None:
        return await self._one(rows.request, "request", number=number)

    async def request_in(self, project: int, number: int) -> Request | None:
        """The request of this number, if one of the project's agents has asked it."""
        return await self._one(rows.request, "project_request", number=number, project=project)

    async def open_requests(self, project: int | None = None) -> list[Request]:
        """What of a project's agents, or of all, is open, oldest first."""
        return [rows.request(row) for row in await self._rows("open_requests", project=project)]

    async def requests_of(self, agents: Collection[int]) -> list[Request]:
        """What of these agents is open, oldest first."""
        return [rows.request(row) for row in await self._rows("requests_of", agents=tuple(agents))] if agents else []

    async def requests_to(self, project: int, lead: str) -> list[Request]:
        """What of this lead's agents is open, oldest first."""
        return [rows.request(row) for row in await self._rows("requests_to", project=project, lead=lead)]

    @Transactions.step()
    def answer(self, q: Queries, request: Request, said: str, reason: str, by: str, call: Call) -> Request:
        """Record the answer to a request; the request as it is then.

        Raises:
            CallerError: It was closed before; the message says how.
        """
        now = rows.request(q.request(number=request.number))
        if now.closed is not None:
            raise CallerError(f"{now.id} is closed, and the first answer counts. It was {now.outcome}")
        remember(q, call, {"request": now.number})
        return _close(q, now, said, reason, by)

    @Transactions.step()
    def withdraw(self, q: Queries, request: Request) -> None:
        """Close a request that nobody waits for any more, unless it is closed."""
        if rows.request(q.request(number=request.number)).closed is None:
            _close(q, request, "", "", "")

    @Transactions.step()
    def expire_requests(self, q: Queries, now: float) -> None:
        """Close what nobody has answered in time, with what counts then."""
        for row in list(q.expired_requests(now=now)):
            request = rows.request(row)
            _close(q, request, request.fallback, "", "")

    async def postpone_requests(self, seconds: float, before: float) -> None:
        """Give what was asked before this so much longer."""
        await self._set("postpone_requests", seconds=seconds, before=before)

    async def next_expiry(self) -> float | None:
        """When the next request expires, in seconds since the epoch; none where none is open."""
        return await self._one(float, "next_expiry")

    async def untold_requests(self, project: int, lead: str, requests: Iterable[Request]) -> set[int]:
        """The numbers of those of these that no wait of this lead has told."""
        numbers = {request.number for request in requests}
        told = await self._rows("told_requests", project=project, lead=lead, requests=tuple(numbers))
        return numbers - {row["request"] for row in told}

    @Transactions.step(quiet=True)
    def set_requests_told(self, q: Queries, project: int, lead: str, requests: Iterable[Request]) -> None:
        """Note that this lead was told of these."""
        for request in requests:
            q.add_request_told(project=project, lead=lead, request=request.number)


def _why_not(agent: Agent, unanswered: int, ever: int) -> str | None:
    """Why an agent may ask nothing now; none where it may."""
    if agent.stop_asked or agent.state not in _MAY_ASK:
        return "you are being stopped, or have ended."
    if unanswered >= _MOST_OPEN:
        return f"{unanswered} requests of yours are open; wait for their answers first."
    if ever >= _MOST:
        return f"you have asked {ever} times; decide yourself, and say what you decided."
    return None


def _close(q: Queries, request: Request, said: str, reason: str, by: str) -> Request:
    """Record how a request was closed; its agent goes on where that was the last."""
    q.close_request(number=request.number, now=time.time(), said=said, reason=reason, answered_by=by)
    closed = rows.request(q.request(number=request.number))
    agent = q.agent(request.agent)
    transitions.note(q, agent, Noted(f"{closed.id} {closed.outcome}"[: 2 * _WORDS]))
    if agent.state is State.WAITING and not any(q.requests_of(agents=(agent.number,))):
        transitions.move(q, agent, State.RUNNING)
    return closed
