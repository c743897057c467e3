"""The contract that every adapter fulfils: a module with the names of `Adapter`, listed in `registry.py`.

An adapter is pure: it starts no process and keeps no state. It has no function that stops a program, since the executor
stops the programs of all vendors in the same way: SIGTERM to the whole process tree, then SIGKILL.
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
    task: str  #: the task of the spec, followed by the messages that the agent has received so far
    branch: str
    worktree: str
    checkout: str  #: the user's checkout, which the agent must not change; "" in a bare repository
    model: str | None
    conversation: str  #: the conversation's id: a uuid that forkjoin has made for this agent
    budget_usd: float | None = None  #: dollars that this attempt may spend; `None` if it has no budget
    permissions: Permissions = field(default_factory=Permissions)
    relay: tuple[str, ...] = ()  #: the command of the MCP server with forkjoin's tools; empty if the agent gets none


@dataclass(frozen=True, slots=True)
class ProgramStart:
    """The command that an attempt runs, with its first input and its environment variables."""

    argv: tuple[str, ...]
    input: bytes
    closed: bool  #: whether stdin is closed after `input`, since the program takes no further turns
    environment: dict[str, str] = field(default_factory=dict[str, str])  #: in addition to the lead's variables


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """The facts about an ended attempt from which `conclude` makes its result."""

    outcome: Outcome
    turn: TurnEnded | None  #: how the last turn ended; `None` if no turn has ended, or a later one was interrupted
    output: str  #: the last bytes of stdout, as text
    errors: str  #: the last bytes of stderr, as text
    denied: tuple[str, ...] = ()  #: for each tool call that was denied, the text of its `Denied` event


class Retry(StrEnum):
    """When another attempt may succeed where this one has failed."""

    NO = "no"  #: none: this attempt has succeeded, or another would fail for the same reason
    LATER = "later"  #: after a pause, since the reason is temporary; it resumes the conversation
    FROM_TASK = "from task"  #: after a pause; it starts with the task, since the conversation was lost
    WHEN_FUNDED = "when funded"  #: once the budget is raised, since this attempt has spent it
    WHEN_ACCEPTED = "when accepted"  #: once the vendor accepts requests again, since a rate limit is reached


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The result of an attempt, in the same form for all vendors."""

    ok: bool  #: whether the attempt has succeeded
    output: str  #: the program's last message
    error: str | None = None  #: why the attempt has failed; `None` if it has succeeded
    usage: Usage | None = None  #: tokens of the last turn; `None` if the program reports none
    warnings: tuple[str, ...] = ()
    retry: Retry = Retry.NO


class Adapter(Protocol):
    """The functions and flags of one vendor's module."""

    TAKES_TURNS: bool  #: whether the program reads further turns on stdin while it runs, and exits at the end of stdin
    MAKES_EVENTS: bool  #: whether `read` finds events in the program's output
    KEEPS_PERMISSIONS: bool  #: whether the program asks the lead before a tool call that `permissions` don't allow

    def account(self, environment: Mapping[str, str]) -> str:
        """Return an id of the vendor account that this environment selects.

        Programs with the same account share a rate limit. The id is a digest, from which no credentials can be read. It
        is "" if the program calls no model.
        """
        ...

    def start(self, context: AgentContext, program: AgentProgram) -> ProgramStart:
        """Return the command of an attempt that begins a conversation with the task."""
        ...

    def resume(self, context: AgentContext, program: AgentProgram, text: str) -> ProgramStart | None:
        """Return the command of an attempt that continues with this message.

        Return `None` if the vendor's program can't continue a conversation.
        """
        ...

    def converse(self, context: AgentContext, program: AgentProgram) -> ProgramStart | None:
        """Return the command that continues the conversation on a person's terminal.

        Return `None` if the vendor's program can't continue a conversation.
        """
        ...

    def encode_turn(self, text: str, key: str = "") -> bytes:
        """Return the bytes that give a running program a further turn on stdin.

        Called only if `TAKES_TURNS`.

        Args:
            text: The message that begins the turn.
            key: Identifies the message. A program that gets a message again with the same key ignores it. Messages
                without a key are never ignored.
        """
        ...

    def read(self, line: bytes) -> Sequence[Event]:
        """Return the events that a line of stdout reports. No line raises an error."""
        ...

    def read_beginning(self, beginning: bytes) -> Sequence[Event]:
        """Return the events that the beginning of a line that is too long reports.

        No line raises an error.
        """
        ...

    def conclude(self, ended: AttemptEnd) -> Conclusion:
        """Return whether the attempt succeeded, and if not, why and what may help."""
        ...
