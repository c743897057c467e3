"""The events of an agent, as one tagged union that is matched exhaustively.

An adapter makes events from the output of its program. The store numbers and keeps them, with at most `TEXT_LIMIT`
bytes of text each. The whole text stays in the raw log of the attempt, at `RecordedEvent.offset`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from forkjoin.core.result import Usage

#: Bytes of an event's text that the store keeps.
TEXT_LIMIT = 2048
#: Prefix of the text of a turn that ended with an error.
FAILED = "(error) "


@dataclass(frozen=True, slots=True)
class Started:
    """The program has begun a turn in the conversation with this id."""

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
    text: str  #: the arguments of the tool, shortened
    kind: Literal["used"] = "used"


@dataclass(frozen=True, slots=True)
class RateLimited:
    """The vendor accepts no more requests for now. The program tries again by itself, or ends.

    Attributes:
        wait_s: Seconds to wait, if the vendor gives them.
        until: Seconds since the epoch at which a usage limit is reset, if the vendor gives them.
    """

    text: str
    wait_s: float | None = None
    until: float | None = None
    kind: Literal["rate_limited"] = "rate_limited"


@dataclass(frozen=True, slots=True)
class Denied:
    """The program was denied a permission, and went on."""

    text: str
    kind: Literal["denied"] = "denied"


@dataclass(frozen=True, slots=True)
class Refused:
    """A process of the agent has made a call to forkjoin that agents may not make."""

    text: str
    kind: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The program has finished a turn. A conversational program now waits for the next message."""

    ok: bool
    output: str
    cost_usd: float | None = None  #: the cost of this attempt so far; None if the program reports no cost
    usage: Usage = field(default_factory=Usage)
    denied: tuple[str, ...] = ()  #: the tool calls that were denied
    status: int | None = None  #: HTTP status of the last model call, if the vendor's API refused it
    kind: Literal["turn_ended"] = "turn_ended"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line of output that the adapter could not parse, or that is too long."""

    text: str
    more: int = 0  #: number of such lines that followed
    kind: Literal["unreadable"] = "unreadable"


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens that a part of a model call has used. They are counted, and the event is not shown in logs.

    Attributes:
        part: Identifies the part. A part that is reported again counts once.
        model: Empty if not known: the model is then that of the last event with `begins`.
        begins: Whether the model call begins with this part.
    """

    part: str
    usage: Usage
    model: str = ""
    begins: bool = False
    kind: Literal["spent"] = "spent"


@dataclass(frozen=True, slots=True)
class Reported:
    """Progress that the agent has reported with forkjoin's tool."""

    text: str
    kind: Literal["reported"] = "reported"


@dataclass(frozen=True, slots=True)
class Noted:
    """A note by forkjoin itself, such as a state or a warning."""

    text: str
    kind: Literal["noted"] = "noted"


Event = Started | Said | UsedTool | Denied | Refused | RateLimited | TurnEnded | Unreadable | Spent | Reported | Noted


E = TypeVar("E", bound=Event)


def with_text(event: E, change: Callable[[str], str]) -> E:
    """Return the event with `change` applied to its text."""
    match event:
        case Started() | Spent():
            return event
        case TurnEnded(output=output, denied=denied):
            return replace(event, output=change(output), denied=tuple(map(change, denied)))
        case _:
            return replace(event, text=change(event.text))


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as the store keeps it."""

    number: int
    attempt: int
    at: float  #: seconds since the epoch
    kind: str
    text: str
    offset: int  #: of the event's line in the attempt's raw output, or -1 if the event has no line


def text_of(event: Event) -> str:
    """Return the event as one text, as logs show it."""
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
