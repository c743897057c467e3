"""A call as a tool sees it: the rooms behind it, who calls from where, and which agents are meant."""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any

from forkjoin.error import CallerError, UnknownAgentError
from forkjoin.loop import Loop
from forkjoin.model import Agent
from forkjoin.session import Call, Caller, Session
from mcp.server.mcpserver.context import Context
from pydantic import Field

Id = Annotated[str, Field(description="Agent id or name.")]
Ids = Annotated[list[str], Field(max_length=500, description="Agent ids or names.")]


class Desk:
    """One call of one tool."""

    def __init__(self, loop: Loop, caller: Caller | CallerError, request: str | int) -> None:
        self.loop = loop
        self.rooms = loop.rooms
        self.store = loop.rooms.store
        self._caller = caller
        self._request = request

    @property
    def caller(self) -> Caller:
        """Who calls.

        Raises:
            CallerError: They stand in no repository.
        """
        if isinstance(self._caller, CallerError):
            raise self._caller
        return self._caller

    @property
    def project(self) -> int:
        return self.caller.project.number

    async def find(self, asked: str) -> Agent:
        """The agent that an id or name means.

        Raises:
            UnknownAgentError: None in this project.
        """
        found = await self.store.find(self.project, asked)
        if found is None:
            raise UnknownAgentError(asked, await self.store.newest(self.project))
        return found

    async def find_all(self, asked: Sequence[str]) -> list[Agent]:
        """As `find`, for each once, in the order asked for.

        Raises:
            UnknownAgentError: One means none.
            CallerError: None was asked for.
        """
        if not asked:
            raise CallerError("ids is empty: name at least one agent; list_agents tells them.")
        found = [await self.find(one) for one in asked]
        return list({agent.number: agent for agent in found}.values())

    def tell_when_written(self, ended: Sequence[Agent]) -> None:
        """Once the reply to this call has been written, its lead counts as told how these ended."""
        ends = [(agent.number, agent.attempt) for agent in ended]

        async def note() -> None:
            await self.store.set_told(self.project, self.caller.lead, ends)

        if ends:
            self.caller.session.when_written(self._request, note)


async def open_desk(context: Context[Any, Any], tool: str, arguments: dict[str, Any]) -> Desk:
    """The desk for this call. A repeat of it has the same request id, tool and arguments: an id may be used again."""
    request = context.request_context
    loop, session = request.lifespan_context
    assert isinstance(loop, Loop)
    assert isinstance(session, Session)
    assert request.request_id is not None
    client = request.session.client_params
    lead = session.lead(client.client_info.name[:64] if client else "")
    try:
        project, environment = await loop.admit(session, lead)
    except CallerError as error:
        return Desk(loop, error, request.request_id)
    asked = json.dumps([request.request_id, tool, arguments], sort_keys=True)
    call = Call(session.hello.relay, hashlib.sha256(asked.encode()).hexdigest())
    return Desk(loop, Caller(session, project, lead, call, environment), request.request_id)
