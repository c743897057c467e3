"""The parser of Claude Code's output in stream-json format: it turns lines into events."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from forkjoin.core.event import Denied, Event, Noted, RateLimited, Said, Spent, Started, TurnEnded, Unreadable, UsedTool
from forkjoin.core.result import Usage

#: The tool result of a denied edit. Version 2.1.197 omits denied edits from a turn's `permission_denials`.
_EDIT_DENIED = "File is in a directory that is denied by your permission settings"
#: HTTP statuses with which the API refuses requests for a while: rate limited, overloaded.
RATE_LIMIT_STATUSES = (429, 529)
#: Prefixes and suffixes that Bedrock and claude add to a model's name: us.anthropic.…-v1:0, …[1m].
_MODEL_AFFIXES = re.compile(r"^.*anthropic\.|-v\d+:\d+$|\[\w+\]$")
#: Characters to which ids of model calls and names of models are cut. Real ids and names are shorter.
_NAME_LIMIT = 100
#: A higher count of tokens in a model call, or a higher cost of a turn, is taken for an error and ignored.
_MAX_TOKENS, _MAX_USD = 10**9, 100_000.0
#: The keys of claude's token counts, in the order of the fields of `Usage`.
_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
#: The name that claude gives as the model of messages that it writes itself, without a model call.
_SYNTHETIC_MODEL = "<synthetic>"
#: How many bytes are dropped from the end of a cut line until it can be parsed. The line may be cut within an escaped
#: surrogate pair, which has twelve bytes: \ud83d\ude42.
_TORN_LENGTHS = range(13)
#: Arguments of tools that can describe a tool call. The first that the call has is shown.
_DESCRIBING_ARGUMENTS = ("command", "file_path", "pattern", "url", "query", "description", "prompt", "path")


class _Block(BaseModel):
    """A part of a message: text, a tool call, or a tool result."""

    type: str
    text: str = ""
    name: str = ""
    input: dict[str, Any] = {}
    content: Any = None  #: the content of a tool result: a text or a list of blocks


class _Message(BaseModel):
    id: str | None = None
    model: str | None = None
    content: list[_Block] | str = ""
    usage: dict[str, Any] | None = None


class _Streamed(BaseModel):
    """A streamed part of an API answer."""

    type: str
    message: _Message | None = None
    usage: dict[str, Any] | None = None


class _RateLimit(BaseModel):
    """The state of a subscription's usage limits."""

    status: str = ""
    resetsAt: float | None = None  # noqa: N815
    rateLimitType: str = ""  # noqa: N815


class _Line(BaseModel):
    """A line of stream-json output, with the fields that forkjoin reads."""

    type: str
    subtype: str = ""
    session_id: str = ""
    uuid: str | None = None
    parent_tool_use_id: str | None = None
    model: str = ""
    message: _Message | None = None
    event: _Streamed | None = None
    is_error: bool = False
    result: str = ""
    total_cost_usd: float | None = None
    usage: dict[str, Any] | None = None
    permission_denials: list[dict[str, Any]] = []
    errors: list[Any] = []
    attempt: int = 0
    max_retries: int = 0
    retry_delay_ms: float | None = None
    error_status: int | None = None
    api_error_status: int | None = None
    rate_limit_info: _RateLimit | None = None
    error: str = ""


def read(line: bytes) -> Sequence[Event]:
    if not line.strip():
        return ()
    unreadable = (Unreadable(line[:500].decode(errors="replace")),)
    if not line.lstrip().startswith(b"{"):  # cheaper than parsing, and a flood may consist of such lines
        return unreadable
    parsed = _parse_event_line(line) or _parse_event_line(_repair_surrogates(line))
    return unreadable if parsed is None else tuple(_read_line(parsed))


def read_beginning(beginning: bytes) -> Sequence[Event]:
    """Return the end of a turn if the line reports one, or else an empty sequence.

    Without this event forkjoin would take the turn for unfinished. The beginning of the line contains the turn's text,
    which is cut in a result anyway. The fields after it, such as usage and cost, are lost.
    """
    closed = [beginning[: len(beginning) - cut] + b'"}' for cut in _TORN_LENGTHS]
    for line in (*closed, *map(_repair_surrogates, closed)):
        parsed = _parse_event_line(line)
        if parsed and parsed.type == "result":
            return (_read_result(parsed),)
    return ()


def _parse_event_line(line: bytes) -> _Line | None:
    try:
        return _Line.model_validate_json(line)
    except ValidationError:
        return None


def _repair_surrogates(line: bytes) -> bytes:
    """Return the line with a `?` for each unpaired surrogate, or b"" if not JSON.

    JavaScript prints unpaired surrogates as escapes, which pydantic rejects.
    """
    try:
        return json.dumps(json.loads(line.decode(errors="replace")), ensure_ascii=False).encode(errors="replace")
    except (ValueError, RecursionError):
        return b""


def _read_line(line: _Line) -> Iterator[Event]:
    match line.type, line.subtype:
        case "system", "init":
            yield Started(line.session_id, line.model)
        case "system", "api_retry":
            text = f"the API answered {line.error_status} ({line.error}); retry {line.attempt} of {line.max_retries}"
            wait_s = _number(line.retry_delay_ms)
            limited = line.error_status in RATE_LIMIT_STATUSES
            yield RateLimited(text, wait_s and wait_s / 1000) if limited else Noted(text)
        case "rate_limit_event", _ if (limit := line.rate_limit_info) and limit.status == "rejected":
            yield RateLimited(f"the usage limit is reached ({limit.rateLimitType})", until=_number(limit.resetsAt))
        case "assistant" | "user", _:
            yield from _read_input(line.message or _Message())
            yield from _read_blocks(line.message or _Message())
        case "stream_event", _:
            yield from _read_streamed(line)
        case "result", _:
            yield _read_result(line)
        case _:
            pass


def _read_blocks(message: _Message) -> Iterator[Event]:
    for block in message.content:
        match block:
            case _Block(type="text") if block.text.strip():
                yield Said(block.text)
            case _Block(type="tool_use"):
                yield UsedTool(block.name, _describe_use(block.input))
            case _Block(type="tool_result", content=str(text)) if _EDIT_DENIED in text:
                yield Denied(_EDIT_DENIED)
            case _:
                pass


def _read_input(message: _Message, *, begins: bool = False) -> Iterator[Event]:
    """Yield the input tokens of a model call, if the message reports them.

    The output tokens are left out, since they are known only once the answer is complete.

    Args:
        begins: Whether the message begins a model call of the agent itself, not of a subagent.
    """
    if message.usage and message.id and message.model not in (None, _SYNTHETIC_MODEL):
        usage = replace(_read_usage(message.usage), output_tokens=0)
        yield Spent(message.id[:_NAME_LIMIT], usage, _MODEL_AFFIXES.sub("", message.model or "")[:_NAME_LIMIT], begins)


def _read_streamed(line: _Line) -> Iterator[Event]:
    match line.event:
        case _Streamed(type="message_start", message=_Message() as message):
            yield from _read_input(message, begins=line.parent_tool_use_id is None)
        case _Streamed(type="message_delta", usage=dict() as usage) if line.uuid:
            yield Spent(line.uuid[:_NAME_LIMIT], Usage(output_tokens=_read_usage(usage).output_tokens))
        case _:
            pass


def _describe_use(arguments: object) -> str:
    known = cast("dict[str, Any]", arguments) if isinstance(arguments, dict) else {}
    description = next((str(known[key]) for key in _DESCRIBING_ARGUMENTS if known.get(key)), "")
    return (description or json.dumps(arguments))[:300]


def _read_result(line: _Line) -> TurnEnded:
    ok = line.subtype == "success" and not line.is_error
    output = line.result or "; ".join(str(error) for error in line.errors) or ("" if ok else line.subtype)
    denied = (f"{d.get('tool_name', '?')} {_describe_use(d.get('tool_input') or {})}" for d in line.permission_denials)
    usage = _read_usage(line.usage or {})
    return TurnEnded(
        ok, output, _dollars(line.total_cost_usd), usage, tuple(dict.fromkeys(denied)), line.api_error_status
    )


def _number(value: float | None) -> float | None:
    """Return the number, or `None` if it is missing, negative, infinite or NaN."""
    return value if value is not None and 0 <= value < math.inf else None


def _dollars(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= _MAX_USD else None


def _read_usage(usage: dict[str, Any]) -> Usage:
    counts = (usage.get(name) for name in _TOKENS)
    return Usage(*(count if type(count) is int and 0 <= count <= _MAX_TOKENS else 0 for count in counts))
