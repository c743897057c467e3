"""Who is at the other end of a connection: what its hello said, checked once, at the door."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from forkjoin.core.model import Agent, Project


def _check_string(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("must be a string")


#: The name, as a lead, of whoever is at a command line.
COMMAND_LINE = "cli"
#: What commands that prepare or check work have in place of an agent's token: whoever shows it is refused.
NO_RIGHTS = "forkjoin:no-rights"
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
    attempt: str | None = None  #: the handle of the attempt that the process at the other end belongs to
    closed: bool = False  #: whether the other end is gone
    agent: Agent | None = None  #: whose program is at the other end, as it was when it connected
    written: dict[str | int, list[Written]] = field(default_factory=dict[str | int, list[Written]])

    @property
    def is_command_line(self) -> bool:
        """Return whether the caller is a command line of a person or an agent."""
        return self.hello.kind == "cli"

    @property
    def is_person(self) -> bool:
        """Whether this is a person's command line: a lead of its own, whose waits are for the whole project."""
        return self.is_command_line and self.agent is None

    @property
    def folder(self) -> Path:
        """Where the caller stands: the lead's project folder, else its working directory; a person's is the latter.

        What an agent is offered is for its worktree, wherever its program calls from.
        """
        if self.agent:
            return Path(self.agent.worktree.path)
        return Path(self.hello.cwd if self.is_command_line else self.hello.project_dir or self.hello.cwd)

    def lead(self, client_name: str) -> str:
        """The lead's name in its project: its session id, else the name of its client; `cli` for a person."""
        if self.agent:  # what it is told, nobody else was told
            return self.agent.as_lead
        return COMMAND_LINE if self.is_command_line else self.hello.session_id or f"client:{client_name}"

    def when_written(self, request: str | int, act: Written, *, first: bool = False) -> None:
        acts = self.written.setdefault(request, [])
        acts.insert(0 if first else len(acts), act)

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
