"""Claude Code, headless: stream-json both ways, so that it can be given further turns while it is up.

Measured on 2.1.197 and 2.1.330: `acceptEdits` alone denies `git commit`, so Bash is allowed in `--settings`; a deny
rule there holds even where permissions are skipped. `--resume` finds a conversation only from the folder it began in,
and none before the first answer in it (`init` comes earlier); until then `--session-id` may be given again. What a
resumed program says it cost is without what its conversation had cost before. A message that comes within a turn is
told to the model with the next tool's result; what waits when the turn is over is another turn, even where stdin has
ended by then; each turn begins with an `init`; a message with a `uuid` that was seen before is let pass.
"""

import hashlib
import json
import math
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from forkjoin.adapters.contract import AgentContext, AttemptEnd, Conclusion, ProgramStart, Retry
from forkjoin.core.event import Denied, Event, Noted, RateLimited, Said, Spent, Started, TurnEnded, Unreadable, UsedTool
from forkjoin.core.outcome import Outcome
from forkjoin.core.result import Usage
from forkjoin.core.settings import AgentProgram

TAKES_TURNS: bool = True
MAKES_EVENTS: bool = True
KEEPS_PERMISSIONS: bool = True

#: How a refused edit answers. 2.1.197 leaves it out of the result's `permission_denials`.
_DENIED = "File is in a directory that is denied by your permission settings"
#: What the API answers when it takes no more for now: rate limited, overloaded.
_LIMITED = (429, 529)
#: What it answers when it has trouble of its own, and a later call may succeed.
_BROKEN = (408, 409, *range(500, 600))
#: How the result begins of a program that could not reach the API, or whose answer broke off: it has no status then.
_CUT_OFF = re.compile(
    r"API Error: (Unable to connect to API(\. | \()|Request timed out|Connection closed mid-response|Response stalled)"
)
#: What it says that is to resume a conversation which its last program was killed before it had written down.
_FORGOTTEN = "No conversation found with session ID"
#: How the result begins of one that has spent what it may; and the least that it can be told.
_SPENT_ALL, _LEAST_USD = "Reached maximum budget (", 0.000001
#: The exit codes of one that was told to end, as by a machine that goes down: HUP, INT, TERM.
_TOLD_TO_END = (129, 130, 143)
#: How it ended where that says more than its last turn does, and another attempt would end so, too.
_BY_A_LIMIT = ("timed_out", "limited")
#: Whose credentials count: the first of these that is set.
_CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "HOME")
#: What says to whom calls are sent, and there for whom.
_ADDRESS = (
    *("ANTHROPIC_BASE_URL", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"),
    *("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "ANTHROPIC_VERTEX_PROJECT_ID", "CLOUD_ML_REGION"),
)
#: What Bedrock, and claude itself, put around a model's name: us.anthropic.…-v1:0, …[1m].
_DRESS = re.compile(r"^.*anthropic\.|-v\d+:\d+$|\[\w+\]$")
#: Characters of a call's id, and of a model's name, that are kept: all of an honest one's.
_NAME_LIMIT = 100
#: More tokens no call has, and more dollars no turn.
_MOST_TOKENS, _MOST_USD = 10**9, 100_000.0
#: What `Usage` tells, in its order.
_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
#: The model of what claude says itself, where no model was asked.
_OUR_OWN_WORDS = "<synthetic>"
#: The beginning of a line may end within a character that is written so: \\ud83d\\ude42
_TORN = 13
#: Claude Code's own default: as its lead's variable it would cut short what an agent asks, and waits for.
_PATIENCE = {"MCP_TOOL_TIMEOUT": "100000000"}
#: Its first turn waits for its MCP servers, for 5 s by itself, which a busy machine takes: tools that come later would
#: be missed, and make the model read all anew; and without the one by which it asks, it ends.
_WAITS = {
    "MCP_CONNECTION_NONBLOCKING": "0",
    "MCP_CONNECT_TIMEOUT_MS": "60000",
    **_PATIENCE,
}
#: Of our own plugin an agent has no use: its tools it has by another name, and it is no lead.
_PLUGINS = {"forkjoin@forkjoin": False}
#: What it may use without asking, where nothing else is said; and of our tools the one by which it asks.
_ALLOWED, _APPROVE = ("Bash", "WebFetch", "WebSearch"), "mcp__forkjoin__approve"
#: What it says that ends since this tool was not there in time.
_CANT_ASK = f"MCP tool {_APPROVE} (passed via --permission-prompt-tool) not found"
#: What says most about a tool's use, in this order.
_TELLING = ("command", "file_path", "pattern", "url", "query", "description", "prompt", "path")


def account(environment: Mapping[str, str]) -> str:
    credentials = next(((name, environment[name]) for name in _CREDENTIALS if environment.get(name)), None)
    known = repr((credentials, [environment.get(name) for name in _ADDRESS]))
    return f"claude-{hashlib.sha256(known.encode(errors='replace')).hexdigest()[:8]}"


def start(context: AgentContext, program: AgentProgram) -> ProgramStart:
    return ProgramStart(
        _argv(context, program, "--session-id"), encode_turn(context.task), False, _WAITS | program.environment
    )


def resume(context: AgentContext, program: AgentProgram, text: str) -> ProgramStart | None:
    return ProgramStart(_argv(context, program, "--resume"), encode_turn(text), False, _WAITS | program.environment)


def converse(context: AgentContext, program: AgentProgram) -> ProgramStart | None:
    told = f"{_instructions(context)} For now a person is here, too: ask them, and do as they say."
    argv = (*program.command, *_options(context, program, told, asks=False), "--resume", context.conversation)
    return ProgramStart(argv, b"", False, _PATIENCE | program.environment)


def encode_turn(text: str, key: str = "") -> bytes:
    once = {"uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, key))} if key else {}
    message = {"role": "user", "content": [{"type": "text", "text": text}]}
    return json.dumps({"type": "user", **once, "message": message}).encode() + b"\n"


def _argv(context: AgentContext, program: AgentProgram, conversation: str) -> tuple[str, ...]:
    asks = bool(context.relay) and context.permissions.allow is not None and not program.skip_permissions
    return (
        *program.command,
        "-p",
        *("--input-format", "stream-json", "--output-format", "stream-json", "--verbose"),
        *(() if context.budget_usd is None else _budget(context.budget_usd)),
        *(("--permission-prompt-tool", _APPROVE) if asks else ()),
        *_options(context, program, _instructions(context), asks=asks),
        *(conversation, context.conversation),
    )


def _options(context: AgentContext, program: AgentProgram, instructions: str, *, asks: bool) -> tuple[str, ...]:
    """What holds of all its runs."""
    skip = ("--dangerously-skip-permissions",) if program.skip_permissions else ("--permission-mode", "acceptEdits")
    model = context.model or program.model
    return (
        *skip,
        *(("--mcp-config", _our_server(context.relay)) if context.relay else ()),
        *("--settings", json.dumps({"permissions": _permissions(context, asks=asks), "enabledPlugins": _PLUGINS})),
        *("--append-system-prompt", instructions),
        *(("--model", model) if model else ()),
    )


def _budget(usd: float) -> tuple[str, ...]:
    """It ends by itself at this limit, subagents' calls counted; an answer's first lines count none of its output."""
    return "--max-budget-usd", f"{max(usd, _LEAST_USD):.6f}", "--include-partial-messages"


def _our_server(relay: Sequence[str]) -> str:
    """Beside the user's own servers; where one of them is registered under the same name, in its place."""
    return json.dumps({"mcpServers": {"forkjoin": {"type": "stdio", "command": relay[0], "args": relay[1:]}}})


def _permissions(context: AgentContext, *, asks: bool) -> dict[str, list[str]]:
    # Edit rules hold for Write and for shell redirections too; `//` begins an absolute path, which reads as in a
    # .gitignore: in a path that holds what means something there, a `?` stands for that, and for any other character.
    path = re.sub(r"[^\w/.,@%+=:~-]", "?", context.checkout)
    checkout = [f"Edit(/{path}/**)"] if path else []
    said = context.permissions
    allow = _ALLOWED if said.allow is None else said.allow
    unheard = "AskUserQuestion" if asks else _APPROVE  # what claude offers its model for nobody to hear
    return {"allow": [*allow, "mcp__forkjoin"], "deny": ["Bash(git stash:*)", unheard, *checkout, *said.deny]}


def _instructions(context: AgentContext) -> str:
    return (
        f"You are agent {context.id} ({context.name}), one of several that work in parallel, each in a git worktree of "
        f"its own. Yours is {context.worktree}, on branch {context.branch}. Work only there, never in another checkout "
        "of this repository, do not switch branches, and do not use git stash (all worktrees share it). "
        "Commit your work on this branch with clear messages; merging is done by others. "
        "Decide yourself, and say what you decided; only what you can't decide, and your work depends on, ask by "
        "ask_lead (mcp__forkjoin__ask_lead). End with a short report: what you did, what you checked, what is left."
    )


# -- reading


class _Block(BaseModel):
    """A part of a message: text, or the use of a tool."""

    type: str
    text: str = ""
    name: str = ""
    input: dict[str, Any] = {}
    content: Any = None  #: of a tool's result: text, or blocks


class _Message(BaseModel):
    id: str | None = None
    model: str | None = None
    content: list[_Block] | str = ""
    usage: dict[str, Any] | None = None


class _Streamed(BaseModel):
    """A part of an answer, as the API streams it."""

    type: str
    message: _Message | None = None
    usage: dict[str, Any] | None = None


class _RateLimit(BaseModel):
    """How the limits of use stand of whoever has a subscription."""

    status: str = ""
    resetsAt: float | None = None  # noqa: N815
    rateLimitType: str = ""  # noqa: N815


class _Line(BaseModel):
    """A line of stream-json: what we read of it. Other fields, and other types of line, are let pass."""

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
    if not line.lstrip().startswith(b"{"):  # seen at once: a flood may be made of such lines
        return unreadable
    said = _parse(line) or _parse(_mend(line))
    return unreadable if said is None else tuple(_read_line(said))


def read_beginning(beginning: bytes) -> Sequence[Event]:
    """A turn's end alone: its text comes last but for figures, is cut anyway, and without it the turn would not end."""
    closed = [beginning[: len(beginning) - cut] + b'"}' for cut in range(_TORN)]
    for line in (*closed, *map(_mend, closed)):
        said = _parse(line)
        if said and said.type == "result":
            return (_read_result(said),)
    return ()


def _parse(line: bytes) -> _Line | None:
    try:
        return _Line.model_validate_json(line)
    except ValidationError:
        return None


def _mend(line: bytes) -> bytes:
    """The line, with a `?` for half of a surrogate pair, which JavaScript may print and no strict parser takes."""
    try:
        return json.dumps(json.loads(line.decode(errors="replace")), ensure_ascii=False).encode(errors="replace")
    except (ValueError, RecursionError):
        return b""


def _read_line(said: _Line) -> Iterator[Event]:
    match said.type, said.subtype:
        case "system", "init":
            yield Started(said.session_id, said.model)
        case "system", "api_retry":
            words = f"the API answered {said.error_status} ({said.error}); try {said.attempt} of {said.max_retries}"
            wait_s = _number(said.retry_delay_ms)
            yield RateLimited(words, wait_s and wait_s / 1000) if said.error_status in _LIMITED else Noted(words)
        case "rate_limit_event", _ if (limit := said.rate_limit_info) and limit.status == "rejected":
            yield RateLimited(f"its limit of use is reached ({limit.rateLimitType})", until=_number(limit.resetsAt))
        case "assistant" | "user", _:
            yield from _read_input(said.message or _Message())
            yield from _read_blocks(said.message or _Message())
        case "stream_event", _:
            yield from _read_streamed(said)
        case "result", _:
            yield _read_result(said)
        case _:
            pass


def _read_blocks(message: _Message) -> Iterator[Event]:
    for block in message.content:
        match block:
            case _Block(type="text") if block.text.strip():
                yield Said(block.text)
            case _Block(type="tool_use"):
                yield UsedTool(block.name, _brief_use(block.input))
            case _Block(type="tool_result", content=str(text)) if _DENIED in text:
                yield Denied(_DENIED)
            case _:
                pass


def _read_input(message: _Message, *, begins: bool = False) -> Iterator[Event]:
    """What a call has read, which is told with each of its blocks; what it wrote is told at its end alone."""
    if message.usage and message.id and message.model not in (None, _OUR_OWN_WORDS):
        usage = replace(_read_usage(message.usage), output_tokens=0)
        yield Spent(message.id[:_NAME_LIMIT], usage, _DRESS.sub("", message.model or "")[:_NAME_LIMIT], begins)


def _read_streamed(said: _Line) -> Iterator[Event]:
    match said.event:
        case _Streamed(type="message_start", message=_Message() as message):
            yield from _read_input(message, begins=said.parent_tool_use_id is None)
        case _Streamed(type="message_delta", usage=dict() as usage) if said.uuid:
            yield Spent(said.uuid[:_NAME_LIMIT], Usage(output_tokens=_read_usage(usage).output_tokens))
        case _:
            pass


def _brief_use(given: object) -> str:
    known = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    telling = next((str(known[key]) for key in _TELLING if known.get(key)), "")
    return (telling or json.dumps(given))[:300]


def _read_result(said: _Line) -> TurnEnded:
    ok = said.subtype == "success" and not said.is_error
    output = said.result or "; ".join(str(error) for error in said.errors) or ("" if ok else said.subtype)
    denied = (f"{d.get('tool_name', '?')} {_brief_use(d.get('tool_input') or {})}" for d in said.permission_denials)
    usage = _read_usage(said.usage or {})
    return TurnEnded(
        ok, output, _dollars(said.total_cost_usd), usage, tuple(dict.fromkeys(denied)), said.api_error_status
    )


def _number(told: float | None) -> float | None:
    """What is a number in the records, and in JSON, too."""
    return told if told is not None and 0 <= told < math.inf else None


def _dollars(told: float | None) -> float | None:
    return told if told is not None and 0 <= told <= _MOST_USD else None


def _read_usage(usage: dict[str, Any]) -> Usage:
    told = (usage.get(name) for name in _TOKENS)
    return Usage(*(count if type(count) is int and 0 <= count <= _MOST_TOKENS else 0 for count in told))


def conclude(ended: AttemptEnd) -> Conclusion:
    """A turn that ended well, and a program that then exited 0, are both needed."""
    turn_end, outcome = ended.turn, ended.outcome
    if turn_end is None:
        why = f"{outcome}, without a result\n{ended.errors.strip()}".strip()
        passing = outcome.code in _TOLD_TO_END or _CANT_ASK in ended.errors
        later = outcome.kind in ("lost", "signalled") or (outcome.kind == "exited" and passing)
        retry = Retry.LATER if later else Retry.NO
        return Conclusion(ok=False, output="", error=why, retry=retry)
    edits = any(what.startswith(("Write", "Edit", "NotebookEdit")) for what in turn_end.denied)
    denied = tuple(f"It was not permitted: {what}" for what in (*turn_end.denied, *(() if edits else ended.denied)))
    error = None
    if not turn_end.ok and outcome.kind not in _BY_A_LIMIT:
        error = turn_end.output or "it reported an error"
    elif not outcome.ok:
        error = f"{outcome}, after its result\n{ended.errors.strip()}".strip()
    return Conclusion(error is None, turn_end.output, error, turn_end.usage, denied, _retry(turn_end, outcome))


def _retry(turn_end: TurnEnded, outcome: Outcome) -> Retry:
    if turn_end.ok or outcome.kind in _BY_A_LIMIT:
        return Retry.NO
    if turn_end.status in _LIMITED or "overloaded_error" in turn_end.output:
        return Retry.WHEN_TAKEN
    if turn_end.output.startswith(_SPENT_ALL):
        return Retry.WHEN_FUNDED
    if _FORGOTTEN in turn_end.output:
        return Retry.ANEW
    return Retry.LATER if turn_end.status in _BROKEN or _CUT_OFF.match(turn_end.output) else Retry.NO
