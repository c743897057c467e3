"""Who is at the other end of a connection: what its hello said, checked once, at the door."""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from forkjoin.model import Agent, Project
from forkjoin.redact import redact, secrets_of


def _check_string(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("must be a string")


#: Strings from the operating system: what is no UTF-8 in them is there as lone surrogates (PEP 383), which
#: pydantic's own `str` refuses.
OsString = Annotated[str, PlainValidator(_check_string)]


class Hello(BaseModel):
    """The first line of a connection, from a relay or a command line."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    protocol: int
    version: str
    kind: Literal["relay", "cli"]
    relay: str = Field(max_length=64)  #: drawn for this relay; with a request's id it names a call
    cwd: OsString
    project_dir: OsString = ""
    session_id: str = Field(default="", max_length=256)
    token: str = Field(default="", max_length=256)  #: of the agent whose program has started this relay
    environment: dict[OsString, OsString] = Field(default_factory=dict[str, str])


Written = Callable[[], Awaitable[None]]


@dataclass(slots=True, weakref_slot=True, eq=False)
class Session:
    """One connection. `written` holds what to do once the reply to a request has reached the socket."""

    hello: Hello
    closed: bool = False  #: whether the other end is gone
    agent: Agent | None = None  #: whose program is at the other end, as it was when it connected
    written: dict[str | int, list[Written]] = field(default_factory=dict[str | int, list[Written]])

    @property
    def is_person(self) -> bool:
        """Whether this is a command line: a lead of its own, whose waits are for the whole project."""
        return self.hello.kind == "cli"

    @property
    def folder(self) -> Path:
        """Where the caller stands: the lead's project folder, else its working directory; a person's is the latter.

        What an agent's program is offered is for its worktree, wherever it starts the relay.
        """
        if self.agent and not self.is_person:
            return Path(self.agent.worktree)
        return Path(self.hello.cwd if self.is_person else self.hello.project_dir or self.hello.cwd)

    def lead(self, client_name: str) -> str:
        """The lead's name in its project: its session id, else the name of its client; `cli` for a person."""
        if self.agent:  # what it is told, nobody else was told
            return self.agent.as_lead
        return "cli" if self.is_person else self.hello.session_id or f"client:{client_name}"

    def when_written(self, request: str | int, act: Written) -> None:
        self.written.setdefault(request, []).append(act)

    async def note_written(self, request: str | int | None) -> None:
        """What answers this request has reached the socket."""
        for act in self.written.pop(request, []) if request is not None else ():
            await act()


@dataclass(frozen=True, slots=True)
class Call:
    """What a call that changes something is known by, so that a repeat of it gets the first answer."""

    relay: str
    request: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a tool, and from where."""

    session: Session
    project: Project
    lead: str
    call: Call
    environment: str  #: digest of the environment it brought


def digest_of(token: str) -> str:
    """All that the records keep of an agent's token."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class Environments:
    """The environments that agents were spawned in. Kept in memory, never on a disk.

    `settings` are what the settings add to them.
    """

    def __init__(self, settings: Iterable[Mapping[str, str]] = ()) -> None:
        self._settings = tuple(settings)
        self._by_digest: dict[str, dict[str, str]] = {}
        self._by_lead: dict[tuple[int, str], str] = {}
        self._secrets: frozenset[str] | None = None  #: of all of them, once somebody has asked

    def keep(self, environment: Mapping[str, str]) -> str:
        """Remember `environment`; the digest it is found by again."""
        items = sorted(environment.items())
        digest = hashlib.sha256(repr(items).encode()).hexdigest()[:32]
        if digest not in self._by_digest:
            self._by_digest[digest] = dict(items)
            self._secrets = None
        return digest

    def lend(self, project: int, lead: str, digest: str) -> bool:
        """Let what this lead has in an environment that a restart has lost go on in this one; whether it is news."""
        before = self._by_lead.get((project, lead))
        self._by_lead[project, lead] = digest
        return before != digest

    @property
    def known(self) -> frozenset[str]:
        """The digests of those that are here."""
        return frozenset(self._by_digest)

    def prune(
        self, old: Set[str], needed: Iterable[tuple[str, int, str]], connected: Iterable[Mapping[str, str]]
    ) -> None:
        """Forget what is old, but for what these may still use, each a digest, a project and a lead, or the connected.

        Args:
            old: What was here before it was asked who needs what: a session may have come since.
        """
        digests = {self.keep(environment) for environment in connected}
        leads: set[tuple[int, str]] = set()
        for digest, project, lead in needed:
            digests.add(digest)
            leads |= {(project, lead), (project, "cli")}
        self._by_lead = {
            key: last for key, last in self._by_lead.items() if key in leads or last in digests or last not in old
        }
        gone = old - digests.union(self._by_lead.values())
        self._by_digest = {digest: known for digest, known in self._by_digest.items() if digest not in gone}
        self._secrets = None

    def find(self, digest: str, project: int, lead: str) -> dict[str, str] | None:
        """The environment itself, else what its lead, or a person in the project, has brought since; else none."""
        known = (digest, self._by_lead.get((project, lead)), self._by_lead.get((project, "cli")))
        return next((self._by_digest[d] for d in known if d in self._by_digest), None)

    def find_for(self, agent: Agent) -> dict[str, str] | None:
        """As `find`, what an agent was spawned in."""
        return self.find(agent.environment, agent.project, agent.first_lead)

    def find_of(self, caller: Caller) -> dict[str, str]:
        """The caller's; of one that is an agent its lead's, without what the settings have added for its program."""
        agent = caller.session.agent
        found = self.find(caller.environment, caller.project.number, agent.first_lead if agent else caller.lead)
        return caller.session.hello.environment if found is None else found

    def find_any(self, project: int) -> dict[str, str] | None:
        """What anybody has brought who is, or was lately, in this project."""
        known = (digest for (where, _), digest in self._by_lead.items() if where == project)
        return next((self._by_digest[digest] for digest in known if digest in self._by_digest), None)

    def redact(self, text: str) -> str:
        """The text without what looks like a key, or is one in any of these environments."""
        if self._secrets is None:
            known = (*self._settings, *self._by_digest.values())
            self._secrets = frozenset[str]().union(*map(secrets_of, known))
        return redact(text, self._secrets)
