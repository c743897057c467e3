"""What can happen to an agent: one tagged union. Whoever matches one matches all.

An adapter makes them from its program's output; the store numbers and keeps them, with at most `TEXT_LIMIT` bytes of
text each. The whole stays in the raw log, at `offset`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from forkjoin.core.model import Usage

#: Bytes of an event's text that the records keep.
TEXT_LIMIT = 2048
#: Before the text of a turn that ended in an error.
FAILED = "(error) "


@dataclass(frozen=True, slots=True)
class Started:
    """The program has begun a turn, in the conversation with this id."""

    conversation: str
    model: str = ""
    kind: Literal["started"] = "started"


@dataclass(frozen=True, slots=True)
class Said:
    text: str
    kind: Literal["said"] = "said"


@dataclass(frozen=True, slots=True)
class UsedTool:
    tool: str
    text: str  #: what it was given, briefly
    kind: Literal["used"] = "used"


@dataclass(frozen=True, slots=True)
class RateLimited:
    """The vendor takes no more for now; the program tries again by itself, or ends.

    Attributes:
        wait_s: For how long, where the vendor says.
        until: Seconds since the epoch: when a limit of use is reset.
    """

    text: str
    wait_s: float | None = None
    until: float | None = None
    kind: Literal["rate_limited"] = "rate_limited"


@dataclass(frozen=True, slots=True)
class Denied:
    """The program was not permitted something, and went on."""

    text: str
    kind: Literal["denied"] = "denied"


@dataclass(frozen=True, slots=True)
class Refused:
    """A process of the agent has asked forkjoin for something that no agent may do."""

    text: str
    kind: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The program has answered; where it takes turns, it waits for the next."""

    ok: bool
    output: str
    cost_usd: float | None = None  #: of this attempt so far, where the program says
    usage: Usage = field(default_factory=Usage)
    denied: tuple[str, ...] = ()  #: what it was not permitted to do
    status: int | None = None  #: the HTTP status with which the vendor's API refused the last call
    kind: Literal["turn_ended"] = "turn_ended"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that the adapter could not read, or that is longer than any it reads."""

    text: str
    more: int = 0  #: such lines that followed it
    kind: Literal["unreadable"] = "unreadable"


@dataclass(frozen=True, slots=True)
class Spent:
    """A part of what a model call has used. It is counted, and not logged.

    Attributes:
        part: Which: one that comes again is counted once.
        model: Where it is told; else that of the last call which is said to begin.
    """

    part: str
    usage: Usage
    model: str = ""
    begins: bool = False
    kind: Literal["spent"] = "spent"


@dataclass(frozen=True, slots=True)
class Reported:
    """Where it stands, as its model tells by a tool of ours."""

    text: str
    kind: Literal["reported"] = "reported"


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that forkjoin itself did or found: a state, a warning."""

    text: str
    kind: Literal["noted"] = "noted"


Event = Started | Said | UsedTool | Denied | Refused | RateLimited | TurnEnded | Unreadable | Spent | Reported | Noted


E = TypeVar("E", bound=Event)


def with_text(event: E, change: Callable[[str], str]) -> E:
    """The event with what it says changed."""
    match event:
        case Started() | Spent():
            return event
        case TurnEnded(output=output, denied=denied):
            return replace(event, output=change(output), denied=tuple(map(change, denied)))
        case _:
            return replace(event, text=change(event.text))


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as the records hold it."""

    number: int
    attempt: int
    at: float
    kind: str
    text: str
    offset: int  #: of its line in the attempt's raw output; -1 where it has none


def text_of(event: Event) -> str:
    """The event in a line, as logs show it."""
    match event:
        case Started(conversation, model):
            return f"{model or 'started'} in conversation {conversation}"
        case UsedTool(tool, text):
            return f"{tool} {text}".rstrip()
        case Spent(model=model, usage=usage):
            return f"{model} {usage}".lstrip()
        case TurnEnded(ok, output):
            return output if ok else f"{FAILED}{output}"
        case Unreadable(text, more):
            return f"{text} (and {more} more such lines)" if more else text
        case Said(text) | Denied(text) | Refused(text) | RateLimited(text) | Reported(text) | Noted(text):
            return text
