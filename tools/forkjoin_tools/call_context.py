"""A call as a tool sees it: the services behind it, who calls from where, and which agents are meant."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from forkjoin.agents.candidates import best_first
from forkjoin.authentication import admit
from forkjoin.core.error import CallerError, GitError, UnknownAgentError
from forkjoin.core.model import FINAL, Agent, Request, State
from forkjoin.core.session import Call, Caller, Session
from forkjoin.git.git_config import find_warnings
from forkjoin.git.refs import find_tip
from forkjoin.reconciler import Reconciler
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver.context import Context
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from forkjoin_tools.blocking_calls import Patience

#: Of an agent: its id, or its name, as the server's instructions say once.
Id = str
#: An amount of money, without what adding left behind its cents' cents.
Usd = Annotated[float, AfterValidator(lambda usd: round(usd, 6))]
Ids = Annotated[list[str], Field(max_length=500)]

#: How much of a commit's id must be named, at least.
_DIGITS = 7

#: Who answers at a command line, or in a form of the lead's client.
PERSON = "the person"


class Row(BaseModel):
    """An agent as an answer names it."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    state: State


def row_of(agent: Agent) -> dict[str, Any]:
    """The fields of its row, for one that tells more."""
    return {"id": agent.id, "name": agent.name, "state": agent.state}


class Desk:
    """One call of one tool."""

    def __init__(
        self,
        reconciler: Reconciler,
        caller: Caller | CallerError,
        request: str | int,
        patience: Patience,
        context: ServerRequestContext[Any, Any],
        *,
        reads_only: bool = False,
    ) -> None:
        self.reconciler = reconciler
        self.services = reconciler.services
        self.store = reconciler.services.store
        self.patience = patience
        self._caller = caller
        self._request = request
        self._context = context
        self._reads_only = reads_only

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
    def who(self) -> str:
        """The caller, as an agent is told of them."""
        return PERSON if self.caller.session.is_person else f"lead {self.caller.lead}"

    @property
    def can_elicit(self) -> bool:
        """Whether the caller's client can put a form to its person now: an agent's has none."""
        if self.caller.session.agent:
            return False
        session = self._context.session
        declared = session.client_capabilities.elicitation if session.client_capabilities else None
        takes_forms = declared is not None and (declared.form is not None or declared.url is None)
        return takes_forms and session.can_send_request

    async def elicit(self, words: str, schema: type[BaseModel]) -> object:
        """What the person at the caller's client answers to this."""
        return await Context[Any, Any](request_context=self._context).elicit(words, schema)

    def is_given_up(self) -> bool:
        """Whether the caller has cancelled this call, or is gone; else it is a daemon that ends."""
        channel: Any = self._context.session._request_outbound  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
        return bool(channel.cancel_requested.is_set()) or self.caller.session.closed

    async def open_requests(self) -> list[Request]:
        """What those of the project's agents ask that the caller has to do with, oldest first."""
        asked = await self.store.requests.open(self.project)
        agents = await self.store.agents.get_all({request.agent for request in asked})
        seen = {agent.number for agent in agents if self.may_see(agent)}
        return [request for request in asked if request.agent in seen]

    async def find_news(self, requests: Sequence[Request]) -> list[Request]:
        """Those of these requests, and of all that this lead's agents ask, that no wait of it has told."""
        asked = {*requests, *await self.store.requests.open_to(self.project, self.caller.lead)}
        untold = await self.store.requests.untold(self.project, self.caller.lead, asked)
        return sorted((one for one in asked if one.number in untold), key=lambda one: one.number)

    @contextmanager
    def without_slot(self, agents: Sequence[Agent]) -> Generator[None]:
        """An agent that waits for its own leaves them its slot meanwhile, at its command line too: else they might
        never start. Nor is it silent then."""
        parent, awaiting = self.caller.session.agent, self.services.waiting_for_nested
        if parent is None or not all(parent.as_lead in agent.leads for agent in agents):
            yield
            return
        awaiting.append(parent.number)
        self.store.changes.announce()
        try:
            yield
        finally:
            awaiting.remove(parent.number)
            self.store.changes.announce()

    @property
    def project(self) -> int:
        return self.caller.project.number

    async def agent(self) -> Agent:
        """The agent whose program calls, as it is now."""
        assert self.caller.session.agent
        return await self.store.agents.get(self.caller.session.agent.number)

    def program_of(self, agent: Agent) -> str:
        return agent.spec.agent or self.services.settings.default_agent

    def is_command(self, agent: Agent) -> bool:
        """Whether what its program prints is its log; so it is where the settings know that program no more."""
        program = self.services.settings.programs().get(self.program_of(agent))
        return program is None or program.kind == "command"

    async def find(self, asked: str) -> Agent:
        """The agent that an id or name means; by the name of several candidates the best of them.

        Raises:
            UnknownAgentError: None in this project.
            CallerError: It is not decided yet who is the best.
        """
        found = await self._find(asked)
        if len(found) > 1 and (live := [agent.label for agent in found if agent.state not in FINAL]):
            raise CallerError(
                f"The best of {asked} is not known yet: {', '.join(live)} still to end. Call wait_agents with "
                f'ids=["{asked}"] first, or name one of them.'
            )
        return (await best_first(self.store, found))[0] if len(found) > 1 else found[0]

    async def find_at(self, asked: str) -> tuple[Agent, str | None]:
        """Find an agent by id or name, with an optional expected commit: a1@1234567.

        Returns: The agent, and that commit in full; None where none was named.

        Raises:
            CallerError: Its branch is somewhere else.
        """
        name, at, commit = asked.partition("@")
        agent = await self.find(name)
        if not at:
            return agent, None
        tip = await find_tip(self.caller.project.common_dir, agent.ref)
        if tip and len(commit) >= _DIGITS and tip.startswith(commit.lower()):
            return agent, tip
        where = f"is at {tip[:12]}" if tip else "is gone"
        raise CallerError(f"{asked[:100]}: the branch of {agent.label} {where}, not at that commit. see read_diff.")

    async def find_each(self, asked: Sequence[str]) -> list[Agent]:
        """As `find`, for each once, in the order asked for."""
        return _once([await self.find(one) for one in _some(asked)])

    async def find_all(self, asked: Sequence[str]) -> list[Agent]:
        """Whom these mean, in the order asked for, each once; by the name of several candidates all of them.

        Raises:
            UnknownAgentError: One means none.
            CallerError: None was asked for.
        """
        return _once([agent for one in _some(asked) for agent in await self._find(one)])

    @property
    def below(self) -> str | None:
        """The lead whose agents, and those below them, are all that the caller may see; `None`: it may see all."""
        session = self.caller.session
        return None if session.agent is None else session.agent.as_lead

    @property
    def own(self) -> int | None:
        """The number of the agent whose command line calls, if it only reads: it may read of itself."""
        session = self.caller.session
        return session.agent.number if session.agent and session.is_command_line and self._reads_only else None

    def may_see(self, agent: Agent) -> bool:
        """Whether the caller has to do with this agent: an agent has with those below it.

        What its command line only reads may be of itself, too.
        """
        return self.below is None or self.below in agent.leads or self.own == agent.number

    async def _find(self, asked: str) -> list[Agent]:
        try:
            found = await self.store.agents.find(self.project, asked)
        except UnknownAgentError:  # which names others
            if self.caller.session.agent is None:
                raise
            found = []
        if not found or not all(map(self.may_see, found)):
            raise CallerError(f"{asked[:80]} is not one of your agents. list_agents lists them.")
        return found

    async def meant(self, find: Callable[[], Awaitable[list[Agent]]]) -> list[Agent]:
        """Whom a call is for whose answer may be fetched later: who was found when it was made."""
        deferred = self.patience.deferred
        return await (self.store.agents.get_all(deferred.agents) if deferred else find())

    def tell_when_written(self, ended: Sequence[Agent], requests: Sequence[Request] = ()) -> None:
        """Once the reply to this call has been written, its lead counts as told how these ended, and what is asked."""
        ends = [(agent.number, agent.attempt) for agent in ended]

        async def note() -> None:
            await self.store.agents.set_told(self.project, self.caller.lead, ends)
            await self.store.requests.set_told(self.project, self.caller.lead, requests)

        if ends or requests:
            self.caller.session.when_written(self._request, note)


def _some(asked: Sequence[str]) -> Sequence[str]:
    if not asked:
        raise CallerError("ids is empty: name at least one agent; list_agents lists them.")
    return asked


def _once(found: Sequence[Agent]) -> list[Agent]:
    return list({agent.number: agent for agent in found}.values())


async def not_obeyed(repository: str) -> list[str]:
    """What in a repository's configuration is not run, in a sentence, if there is such."""
    try:
        return await find_warnings(repository)
    except CallerError as error:
        return [str(error)]
    except GitError:  # it is gone
        return []


async def open_desk(
    context: ServerRequestContext[Any, Any], tool: str, arguments: dict[str, Any], *, reads_only: bool = False
) -> Desk:
    """The desk for this call. A repeat of it has the same request id, tool and arguments: an id may be used again."""
    reconciler, session = context.lifespan_context
    assert isinstance(reconciler, Reconciler)
    assert isinstance(session, Session)
    assert context.request_id is not None
    patience = Patience(context, reconciler.services.environments.show)
    client = context.session.client_params
    lead = session.lead(client.client_info.name[:64] if client else "")
    request = patience.told_in or context.request_id
    try:
        project, environment = await admit(reconciler.services, session, lead)
    except CallerError as error:
        return Desk(reconciler, error, request, patience, context, reads_only=reads_only)
    asked = json.dumps([context.request_id, tool, arguments], sort_keys=True)
    deferred = patience.deferred
    call = deferred.call if deferred else Call(session.hello.relay, hashlib.sha256(asked.encode()).hexdigest())
    caller = Caller(session, project, lead, call, environment)
    return Desk(reconciler, caller, request, patience, context, reads_only=reads_only)
