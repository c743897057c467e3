"""What every vendor's adapter is: a module with these names, listed in `all.py`.

An adapter is pure: it starts nothing and keeps nothing. `account` says whose rate limit it counts against; `start` and
`resume` what to run, `converse` what a person runs; `turn` what to write for a further turn; `read` what a line of
output means, and `read_beginning` what one does that is too long; `conclude` what the attempt came to. Stopping is the
same for all (TERM to the whole tree, then KILL), and belongs to the executor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from forkjoin.core.agent_spec import Permissions
from forkjoin.core.event import Event, TurnEnded
from forkjoin.core.model import Outcome, Usage
from forkjoin.core.settings import AgentProgram


@dataclass(frozen=True, slots=True)
class Brief:
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
class Program:
    """What to run, with the first bytes for its stdin, and whether nothing follows them."""

    argv: tuple[str, ...]
    input: bytes
    closed: bool
    environment: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Ended:
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
    KEEPS_PERMISSIONS: bool  #: whether it asks before it does what its brief does not allow, and never what this denies

    def account(self, environment: Mapping[str, str]) -> str:
        """Whose rate limit a program counts against that runs in this environment; no secret can be told by it."""
        ...

    def start(self, brief: Brief, program: AgentProgram) -> Program:
        """How to start the agent's first attempt."""
        ...

    def resume(self, brief: Brief, program: AgentProgram, text: str) -> Program | None:
        """How to go on in the same conversation, in the same folder, with this message; none if it can't."""
        ...

    def converse(self, brief: Brief, program: AgentProgram) -> Program | None:
        """What a person runs to go on in the same conversation, on a terminal, in the same folder; none if it can't."""
        ...

    def turn(self, text: str, key: str = "") -> bytes:
        """A further turn, for the stdin of one that `TAKES_TURNS`; what has a key is taken once, however often sent."""
        ...

    def read(self, line: bytes) -> Sequence[Event]:
        """What a line of output says; it never raises."""
        ...

    def read_beginning(self, beginning: bytes) -> Sequence[Event]:
        """What a line says that is too long to be read, as far as its beginning tells; it never raises."""
        ...

    def conclude(self, ended: Ended) -> Conclusion: ...
