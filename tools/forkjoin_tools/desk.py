"""A call as a tool sees it: the rooms behind it, who calls from where, and which agents are meant."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from forkjoin.agent.contest import best_first
from forkjoin.branch import git
from forkjoin.error import CallerError, GitError
from forkjoin.loop import Loop
from forkjoin.model import FINAL, Agent, State
from forkjoin.session import Call, Caller, Session
from mcp.server.context import ServerRequestContext
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from forkjoin_tools.patience import Patience

Id = Annotated[str, Field(description="Agent id or name.")]
#: An amount of money, without what adding left behind its cents' cents.
Usd = Annotated[float, AfterValidator(lambda usd: round(usd, 6))]
Ids = Annotated[list[str], Field(max_length=500, description="Agent ids or names.")]


class Row(BaseModel):
    """An agent as an answer names it."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    state: State


class Desk:
    """One call of one tool."""

    def __init__(self, loop: Loop, caller: Caller | CallerError, request: str | int, patience: Patience) -> None:
        self.loop = loop
        self.rooms = loop.rooms
        self.store = loop.rooms.store
        self.patience = patience
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

    def program_of(self, agent: Agent) -> str:
        return agent.spec.agent or self.rooms.settings.default_agent

    def is_command(self, agent: Agent) -> bool:
        """Whether what its program prints is its log; so it is where the settings know that program no more."""
        program = self.rooms.settings.programs().get(self.program_of(agent))
        return program is None or program.kind == "command"

    async def find(self, asked: str) -> Agent:
        """The agent that an id or name means; by the name of several candidates the best of them.

        Raises:
            UnknownAgentError: None in this project.
            CallerError: It is not decided yet who is the best.
        """
        found = await self.store.find(self.project, asked)
        if len(found) > 1 and (live := [agent.label for agent in found if agent.state not in FINAL]):
            raise CallerError(
                f"The best of {asked} is not known yet: {', '.join(live)} still to end. Call wait_agents with "
                f'ids=["{asked}"] first, or name one of them.'
            )
        return (await best_first(self.store, found))[0] if len(found) > 1 else found[0]

    async def find_each(self, asked: Sequence[str]) -> list[Agent]:
        """As `find`, for each once, in the order asked for."""
        return _once([await self.find(one) for one in _some(asked)])

    async def find_all(self, asked: Sequence[str]) -> list[Agent]:
        """Whom these mean, in the order asked for, each once; by the name of several candidates all of them.

        Raises:
            UnknownAgentError: One means none.
            CallerError: None was asked for.
        """
        return _once([agent for one in _some(asked) for agent in await self.store.find(self.project, one)])

    async def meant(self, find: Callable[[], Awaitable[list[Agent]]]) -> list[Agent]:
        """Whom a call is for whose answer may be fetched later: who was found when it was made."""
        deferred = self.patience.deferred
        return await (self.store.agents_numbered(deferred.agents) if deferred else find())

    def tell_when_written(self, ended: Sequence[Agent]) -> None:
        """Once the reply to this call has been written, its lead counts as told how these ended."""
        ends = [(agent.number, agent.attempt) for agent in ended]

        async def note() -> None:
            await self.store.set_told(self.project, self.caller.lead, ends)

        if ends:
            self.caller.session.when_written(self._request, note)


def _some(asked: Sequence[str]) -> Sequence[str]:
    if not asked:
        raise CallerError("ids is empty: name at least one agent; list_agents tells them.")
    return asked


def _once(found: Sequence[Agent]) -> list[Agent]:
    return list({agent.number: agent for agent in found}.values())


async def not_obeyed(repository: str) -> list[str]:
    """What in a repository's configuration is not run, in a sentence, if there is such."""
    try:
        return await git.warn(repository)
    except CallerError as error:
        return [str(error)]
    except GitError:  # it is gone
        return []


async def open_desk(context: ServerRequestContext[Any, Any], tool: str, arguments: dict[str, Any]) -> Desk:
    """The desk for this call. A repeat of it has the same request id, tool and arguments: an id may be used again."""
    loop, session = context.lifespan_context
    assert isinstance(loop, Loop)
    assert isinstance(session, Session)
    assert context.request_id is not None
    patience = Patience(context, loop.rooms.environments.redact)
    client = context.session.client_params
    lead = session.lead(client.client_info.name[:64] if client else "")
    request = patience.written or context.request_id
    try:
        project, environment = await loop.admit(session, lead)
    except CallerError as error:
        return Desk(loop, error, request, patience)
    asked = json.dumps([context.request_id, tool, arguments], sort_keys=True)
    deferred = patience.deferred
    call = deferred.call if deferred else Call(session.hello.relay, hashlib.sha256(asked.encode()).hexdigest())
    return Desk(loop, Caller(session, project, lead, call, environment), request, patience)
