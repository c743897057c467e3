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
    """All that an adapter is told about an agent."""

    id: str
    name: str
    task: str  #: with what it was told since
    branch: str
    worktree: str
    checkout: str  #: the user's, in which an agent must write nothing; '' if there is none
    model: str | None
    conversation: str  #: a uuid, drawn for this agent
    budget_usd: float | None = None  #: what this attempt may spend
    permissions: Permissions = field(default_factory=Permissions)
    relay: tuple[str, ...] = ()  #: what to run as an MCP server over stdio, for the tools that we have for it


@dataclass(frozen=True, slots=True)
class ProgramStart:
    """What to run, with the first bytes for its stdin, and whether nothing follows them."""

    argv: tuple[str, ...]
    input: bytes
    closed: bool
    environment: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """What is known when an attempt has ended."""

    outcome: Outcome
    turn: TurnEnded | None  #: the end of its last turn, where its output told of one
    output: str  #: the end of its stdout
    errors: str  #: the end of its stderr
    denied: tuple[str, ...] = ()  #: the texts of its `Denied` events


class Retry(StrEnum):
    """Whether another attempt may do better."""

    NO = "no"
    LATER = "later"  #: what was in its way passes
    ANEW = "anew"  #: as above, but of the conversation nothing is left: it begins with its task
    WHEN_FUNDED = "when funded"  #: it may spend no more for now
    WHEN_TAKEN = "when taken"  #: the vendor takes no more for now


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What an attempt came to, the same for all vendors. `output` is the program's last message."""

    ok: bool
    output: str
    error: str | None = None
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()
    retry: Retry = Retry.NO


class Adapter(Protocol):
    """A vendor."""

    TAKES_TURNS: bool  #: whether it reads further turns on stdin while it runs, and ends when its stdin does
    MAKES_EVENTS: bool  #: whether its output is lines that `read` understands
    KEEPS_PERMISSIONS: bool  #: whether the program asks before it does what `permissions` don't allow

    def account(self, environment: Mapping[str, str]) -> str:
        """Whose rate limit a program counts against that runs in this environment; no secret can be told by it."""
        ...

    def start(self, context: AgentContext, program: AgentProgram) -> ProgramStart:
        """How to start the agent's first attempt."""
        ...

    def resume(self, context: AgentContext, program: AgentProgram, text: str) -> ProgramStart | None:
        """How to go on in the same conversation, in the same folder, with this message; none if it can't."""
        ...

    def converse(self, context: AgentContext, program: AgentProgram) -> ProgramStart | None:
        """What a person runs to go on in the same conversation, on a terminal, in the same folder; none if it can't."""
        ...

    def encode_turn(self, text: str, key: str = "") -> bytes:
        """A further turn, for the stdin of one that `TAKES_TURNS`; what has a key is taken once, however often sent."""
        ...

    def read(self, line: bytes) -> Sequence[Event]:
        """What a line of output says; it never raises."""
        ...

    def read_beginning(self, beginning: bytes) -> Sequence[Event]:
        """What a line says that is too long to be read, as far as its beginning tells; it never raises."""
        ...

    def conclude(self, ended: AttemptEnd) -> Conclusion: ...
