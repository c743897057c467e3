"""The identity of the client at the other end of a connection, from its checked first message."""

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


#: The lead name of a person at a command line.
COMMAND_LINE = "cli"
#: The token of commands such as setup and verify, instead of an agent's token. Calls with this token are refused.
NO_RIGHTS = "forkjoin:no-rights"
#: A string from the operating system. Bytes that are not UTF-8 are lone surrogates in it (PEP 383), which pydantic's
#: `str` refuses.
OsString = Annotated[str, PlainValidator(_check_string)]


class Hello(BaseModel):
    """The first line of a connection, from a relay or a command line."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    protocol: int
    version: str
    kind: Literal["relay", "cli"]
    relay: str = Field(max_length=64)  #: random id of the relay; together with a request id it identifies a call
    cwd: OsString
    project_dir: OsString = ""
    session_id: str = Field(default="", max_length=256)
    token: str = Field(default="", max_length=256)  #: token of the agent whose program started this relay, or empty
    environment: dict[OsString, OsString] = Field(default_factory=dict[str, str])


Written = Callable[[], Awaitable[None]]


@dataclass(slots=True, weakref_slot=True, eq=False)
class Session:
    """One connection of a client.

    Attributes:
        written: Functions to call once the reply to a request is written to the socket, by request id.
    """

    hello: Hello
    attempt: str | None = None  #: handle of the attempt to which the client process belongs
    closed: bool = False  #: whether the client has disconnected
    agent: Agent | None = None  #: the agent that is the client, as of the time of its connection
    written: dict[str | int, list[Written]] = field(default_factory=dict[str | int, list[Written]])

    @property
    def is_command_line(self) -> bool:
        """Return whether the caller is a command line of a person or an agent."""
        return self.hello.kind == "cli"

    @property
    def is_person(self) -> bool:
        """Return whether the caller is a person's command line.

        A person waits for all agents of the project, and not only for those of one lead.
        """
        return self.is_command_line and self.agent is None

    @property
    def folder(self) -> Path:
        """Return the folder whose repository the caller means.

        This is an agent's worktree, a person's working directory, or a lead's project folder. A lead without a project
        folder means its working directory.
        """
        if self.agent:
            return Path(self.agent.worktree.path)
        return Path(self.hello.cwd if self.is_command_line else self.hello.project_dir or self.hello.cwd)

    def lead(self, client_name: str) -> str:
        """Return the caller's name as a lead in its project.

        A lead's name is its session id, or else the name of its client. A person's name is `cli`.
        """
        if self.agent:
            return self.agent.as_lead
        return COMMAND_LINE if self.is_command_line else self.hello.session_id or f"client:{client_name}"

    def when_written(self, request: str | int, act: Written, *, first: bool = False) -> None:
        acts = self.written.setdefault(request, [])
        acts.insert(0 if first else len(acts), act)

    async def note_written(self, request: str | int | None) -> None:
        """Call the functions registered for a request whose reply was written."""
        for act in self.written.pop(request, []) if request is not None else ():
            await act()


@dataclass(frozen=True, slots=True)
class Call:
    """The identity of a call that changes records. A repeated call gets the first answer."""

    relay: str
    request: str


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a tool, with its project."""

    session: Session
    project: Project
    lead: str
    call: Call
    environment: str  #: digest of the environment that the caller has sent


def digest_of(token: str) -> str:
    """Return the digest of an agent's token. The store keeps only this digest."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
