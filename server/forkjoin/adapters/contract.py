"""The contract that every adapter fulfils: a module with the names of `Adapter`, listed in `registry.py`.

An adapter is pure: it starts no process and keeps no state. The executor stops programs, in the same way for all
vendors: SIGTERM to the whole process tree, then SIGKILL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from forkjoin.core.agent_spec import Permissions
from forkjoin.core.event import Event, TurnEnded
from forkjoin.core.outcome import Outcome
from forkjoin.core.result import Usage
from forkjoin.core.settings import AgentProgram


@dataclass(frozen=True, slots=True)
class AgentContext:
    """Everything that an adapter knows about the agent whose program it starts."""

    id: str
    name: str
    task: str  #: includes the messages that were delivered since
    branch: str
    worktree: str
    checkout: str  #: the user's checkout, which an agent must not change; '' if there is none
    model: str | None
    conversation: str  #: a uuid that was made for this agent
    budget_usd: float | None = None  #: the amount that this attempt may spend
    permissions: Permissions = field(default_factory=Permissions)
    relay: tuple[str, ...] = ()  #: command of the stdio MCP server that gives the agent forkjoin's tools


@dataclass(frozen=True, slots=True)
class ProgramStart:
    """A command to run, and the first input for its stdin."""

    argv: tuple[str, ...]
    input: bytes
    closed: bool  #: whether stdin is closed after `input`
    environment: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """The facts about an ended attempt from which `conclude` makes its result."""

    outcome: Outcome
    turn: TurnEnded | None  #: the end of the last turn, if the output has one
    output: str  #: the end of stdout
    errors: str  #: the end of stderr
    denied: tuple[str, ...] = ()  #: the texts of the attempt's `Denied` events


class Retry(StrEnum):
    """Whether, and when, another attempt may succeed."""

    NO = "no"
    LATER = "later"  #: the obstacle is temporary
    ANEW = "anew"  #: like LATER, but the conversation is lost: the next attempt starts from the task
    WHEN_FUNDED = "when funded"  #: the attempt's budget is spent
    WHEN_TAKEN = "when taken"  #: the vendor accepts no more requests for now


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The result of an attempt, in the same form for all vendors."""

    ok: bool
    output: str  #: the program's last message
    error: str | None = None
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()
    retry: Retry = Retry.NO


class Adapter(Protocol):
    """The functions and flags of one vendor's module."""

    TAKES_TURNS: bool  #: whether the program reads further turns on stdin while it runs, and exits at the end of stdin
    MAKES_EVENTS: bool  #: whether the program prints lines that `read` understands
    KEEPS_PERMISSIONS: bool  #: whether the program asks before it does what `permissions` don't allow

    def account(self, environment: Mapping[str, str]) -> str:
        """Return an id of the vendor account that a program with this environment uses.

        Programs with the same account share a rate limit. The id reveals no secret.
        """
        ...

    def start(self, context: AgentContext, program: AgentProgram) -> ProgramStart:
        """Return the command for an attempt in a new conversation."""
        ...

    def resume(self, context: AgentContext, program: AgentProgram, text: str) -> ProgramStart | None:
        """Return the command that continues the conversation with this message.

        It runs in the same folder. `None` means that the program can't resume a conversation.
        """
        ...

    def converse(self, context: AgentContext, program: AgentProgram) -> ProgramStart | None:
        """Return the command with which a person continues the conversation on a terminal.

        It runs in the same folder. `None` means that the program can't resume a conversation.
        """
        ...

    def encode_turn(self, text: str, key: str = "") -> bytes:
        """Return the bytes that give a running program a further turn on stdin.

        Only called for a program that `TAKES_TURNS`. A program ignores a turn with a `key` that it has seen before.
        """
        ...

    def read(self, line: bytes) -> Sequence[Event]:
        """Return the events of a line of output. Never raise because of its content."""
        ...

    def read_beginning(self, beginning: bytes) -> Sequence[Event]:
        """Return the events that the beginning of an overlong line shows.

        Never raise because of its content.
        """
        ...

    def conclude(self, ended: AttemptEnd) -> Conclusion: ...
