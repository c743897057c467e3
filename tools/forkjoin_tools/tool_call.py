"""One call of a tool: who calls, for which project, which agents it may see, and how it waits for its answer."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from forkjoin.agents.candidates import rank_agents
from forkjoin.authentication import admit
from forkjoin.core.error import CallerError, GitError, UnknownAgentError
from forkjoin.core.model import FINAL, Agent, State
from forkjoin.core.request import Request
from forkjoin.core.session import Call, Caller, Session
from forkjoin.git.git_config import find_warnings
from forkjoin.git.refs import find_tip
from forkjoin.reconciler import Reconciler
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver.context import Context
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from forkjoin_tools.reply_wait import ReplyWait

#: An agent's id, or its name.
Id = str
#: An amount of money without the rounding errors of additions.
Usd = Annotated[float, AfterValidator(lambda usd: round(usd, 6))]
Ids = Annotated[list[str], Field(max_length=500)]

#: The fewest digits by which a commit may be named.
_COMMIT_DIGITS = 7

#: The name of the caller at a command line, or in a form of the lead's client.
PERSON = "the person"


class AgentRow(BaseModel):
    """The fields by which every result names an agent."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    state: State


def row_fields(agent: Agent) -> dict[str, Any]:
    """Return an agent's values for the fields of `AgentRow`."""
    return {"id": agent.id, "name": agent.name, "state": agent.state}


class ToolCall:
    """One call of one tool."""

    def __init__(
        self,
        reconciler: Reconciler,
        caller: Caller | CallerError,
        reply: str | int,
        reply_wait: ReplyWait,
        context: ServerRequestContext[Any, Any],
        *,
        reads_only: bool = False,
    ) -> None:
        """Set up the call.

        Args:
            caller: An error if the caller is in no repository. It is raised when a tool needs the caller.
            reply: The key by which the session knows that the answer was written.
        """
        self.reconciler = reconciler
        self.services = reconciler.services
        self.store = reconciler.services.store
        self.reply_wait = reply_wait
        self._caller = caller
        self._reply = reply
        self._context = context
        self._reads_only = reads_only

    # -- the caller

    @property
    def caller(self) -> Caller:
        """The caller.

        Raises:
            CallerError: The caller is in no repository.
        """
        if isinstance(self._caller, CallerError):
            raise self._caller
        return self._caller

    @property
    def project(self) -> int:
        """The number of the caller's project."""
        return self.caller.project.number

    @property
    def caller_name(self) -> str:
        """The caller's name, as an agent reads it."""
        return PERSON if self.caller.session.is_person else f"lead {self.caller.lead}"

    async def calling_agent(self) -> Agent:
        """Return the current record of the agent that calls."""
        assert self.caller.session.agent
        return await self.store.agents.get(self.caller.session.agent.number)

    def is_cancelled(self) -> bool:
        """Return whether the caller cancelled the call or disconnected."""
        channel: Any = self._context.session._request_outbound  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
        return bool(channel.cancel_requested.is_set()) or self.caller.session.closed

    @property
    def can_elicit(self) -> bool:
        """Whether the caller's client can show its person a form now.

        An agent's client never can.
        """
        if self.caller.session.agent:
            return False
        session = self._context.session
        declared = session.client_capabilities.elicitation if session.client_capabilities else None
        takes_forms = declared is not None and (declared.form is not None or declared.url is None)
        return takes_forms and session.can_send_request

    async def elicit(self, message: str, schema: type[BaseModel]) -> object:
        """Show the person at the caller's client a form, and return the client's answer."""
        return await Context[Any, Any](request_context=self._context).elicit(message, schema)

    # -- which agents the caller sees

    @property
    def visible_below(self) -> str | None:
        """The lead whose agents and their descendants the caller sees.

        `None` means that the caller sees all agents of the project.
        """
        session = self.caller.session
        return None if session.agent is None else session.agent.as_lead

    @property
    def own_number(self) -> int | None:
        """The number of the agent whose command line calls a reading tool, or `None`.

        With such tools, the agent sees itself too.
        """
        session = self.caller.session
        return session.agent.number if session.agent and session.is_command_line and self._reads_only else None

    def may_see(self, agent: Agent) -> bool:
        """Return whether the caller sees the agent.

        A lead and a person see all agents of the project. An agent sees its descendants, and at its command line also
        itself, where the tool only reads.
        """
        return self.visible_below is None or self.visible_below in agent.leads or self.own_number == agent.number

    async def find(self, id_or_name: str) -> Agent:
        """Return an agent. The common name of candidates means the best of them.

        Raises:
            UnknownAgentError: The project has no such agent.
            CallerError: The best candidate is not known yet, or the caller doesn't see the agent.
        """
        found = await self._find(id_or_name)
        if len(found) > 1 and (live := [agent.label for agent in found if agent.state not in FINAL]):
            raise CallerError(
                f"The best candidate of {id_or_name} is not known until {', '.join(live)} have ended. Call wait_agents "
                f'with ids=["{id_or_name}"] first, or name one of the candidates.'
            )
        return (await rank_agents(self.store, found))[0] if len(found) > 1 else found[0]

    async def find_at(self, id_or_name: str) -> tuple[Agent, str | None]:
        """Find an agent by id or name, with an optional expected commit: a1@1234567.

        Returns: The agent, and the full id of the commit, or `None` if no commit was named.

        Raises:
            CallerError: The agent's branch is at another commit, or is gone.
        """
        name, at, commit = id_or_name.partition("@")
        agent = await self.find(name)
        if not at:
            return agent, None
        tip = await find_tip(self.caller.project.common_dir, agent.ref)
        if tip and len(commit) >= _COMMIT_DIGITS and tip.startswith(commit.lower()):
            return agent, tip
        where = f"is at {tip[:12]}" if tip else "is gone"
        raise CallerError(
            f"{id_or_name[:100]}: the branch of {agent.label} {where}, not at that commit. Call read_diff to review it."
        )

    async def find_each(self, ids: Sequence[str]) -> list[Agent]:
        """Return the agents in the order given, without repeats, as `find` does.

        Raises:
            UnknownAgentError: The project has no such agent.
            CallerError: `ids` is empty.
        """
        return _without_repeats([await self.find(id_) for id_ in _check_not_empty(ids)])

    async def find_all(self, ids: Sequence[str]) -> list[Agent]:
        """Return the agents in the order given, without repeats.

        The common name of candidates means all of them.

        Raises:
            UnknownAgentError: The project has no such agent.
            CallerError: `ids` is empty.
        """
        return _without_repeats([agent for id_ in _check_not_empty(ids) for agent in await self._find(id_)])

    async def _find(self, id_or_name: str) -> list[Agent]:
        try:
            found = await self.store.agents.find(self.project, id_or_name)
        except UnknownAgentError:  # the message names other agents, which an agent must not see
            if self.caller.session.agent is None:
                raise
            found = []
        if not found or not all(map(self.may_see, found)):
            raise CallerError(f"{id_or_name[:80]} is not one of your agents. Call list_agents for those.")
        return found

    async def resolve_agents(self, find: Callable[[], Awaitable[list[Agent]]]) -> list[Agent]:
        """Return the agents that the call is for.

        For a deferred call, they are those found when it was first made.
        """
        deferred = self.reply_wait.deferred
        return await (self.store.agents.get_all(deferred.agents) if deferred else find())

    # -- their programs

    def program_of(self, agent: Agent) -> str:
        """Return the name of the agent program that runs the agent."""
        return agent.spec.agent or self.services.settings.default_agent

    def is_command_agent(self, agent: Agent) -> bool:
        """Return whether the agent's raw output is its log.

        True also if the settings no longer know its program.
        """
        program = self.services.settings.programs().get(self.program_of(agent))
        return program is None or program.kind == "command"

    # -- their requests

    async def open_requests(self) -> list[Request]:
        """Return the open requests of the agents that the caller sees, oldest first."""
        found = await self.store.requests.open(self.project)
        agents = await self.store.agents.get_all({request.agent for request in found})
        visible = {agent.number for agent in agents if self.may_see(agent)}
        return [request for request in found if request.agent in visible]

    async def find_unreported(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests that no wait of this lead has reported, oldest first.

        Requests of all of the lead's agents are added to the given ones.
        """
        all_ = {*requests, *await self.store.requests.open_to(self.project, self.caller.lead)}
        unreported = await self.store.requests.untold(self.project, self.caller.lead, all_)
        return sorted((request for request in all_ if request.number in unreported), key=lambda request: request.number)

    # -- while the call waits, and once it is answered

    @contextmanager
    def without_slot(self, agents: Sequence[Agent]) -> Generator[None]:
        """Give up the calling agent's slot while it waits for its own agents.

        Otherwise these might never start. The time doesn't count as silence of the calling agent either.
        """
        parent, waiting = self.caller.session.agent, self.services.waiting_for_nested
        if parent is None or not all(parent.as_lead in agent.leads for agent in agents):
            yield
            return
        waiting.append(parent.number)
        self.store.changes.announce()
        try:
            yield
        finally:
            waiting.remove(parent.number)
            self.store.changes.announce()

    def mark_reported_when_written(self, ended: Sequence[Agent], requests: Sequence[Request] = ()) -> None:
        """Record the ends and requests as reported, once the answer was written."""
        ends = [(agent.number, agent.attempt) for agent in ended]

        async def record() -> None:
            await self.store.agents.set_told(self.project, self.caller.lead, ends)
            await self.store.requests.set_told(self.project, self.caller.lead, requests)

        if ends or requests:
            self.caller.session.when_written(self._reply, record)


def _check_not_empty(ids: Sequence[str]) -> Sequence[str]:
    if not ids:
        raise CallerError("ids is empty: name at least one agent. Call list_agents for all of them.")
    return ids


def _without_repeats(found: Sequence[Agent]) -> list[Agent]:
    return list({agent.number: agent for agent in found}.values())


async def find_config_warnings(repository: str) -> list[str]:
    """Return a sentence for each git setting that forkjoin does not execute."""
    try:
        return await find_warnings(repository)
    except CallerError as error:
        return [str(error)]
    except GitError:  # the repository is gone
        return []


async def open_call(
    context: ServerRequestContext[Any, Any], tool: str, arguments: dict[str, Any], *, reads_only: bool = False
) -> ToolCall:
    """Identify the caller of a request, and return the call.

    A repeat of a call has the same request id, tool and arguments. The id alone is not enough: clients may reuse ids.
    """
    reconciler, session = context.lifespan_context
    assert isinstance(reconciler, Reconciler)
    assert isinstance(session, Session)
    assert context.request_id is not None
    reply_wait = ReplyWait(context, reconciler.services.environments.show)
    client = context.session.client_params
    lead = session.lead(client.client_info.name[:64] if client else "")
    reply = reply_wait.notification or context.request_id
    try:
        project, environment = await admit(reconciler.services, session, lead)
    except CallerError as error:
        return ToolCall(reconciler, error, reply, reply_wait, context, reads_only=reads_only)
    content = json.dumps([context.request_id, tool, arguments], sort_keys=True)
    deferred = reply_wait.deferred
    identity = deferred.call if deferred else Call(session.hello.relay, hashlib.sha256(content.encode()).hexdigest())
    caller = Caller(session, project, lead, identity, environment)
    return ToolCall(reconciler, caller, reply, reply_wait, context, reads_only=reads_only)
