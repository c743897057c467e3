"""The adapter for Claude Code in headless mode, with stream-json as input and output format.

A running program can therefore be given further turns. Measured on 2.1.197 and 2.1.330:

- `acceptEdits` alone denies `git commit`, so `--settings` allows Bash. A deny rule in `--settings` applies even if
  permissions are skipped.
- `--resume` finds a conversation only from the folder in which it began, and only after its first answer. `init` comes
  before that answer. Until then, `--session-id` may be used again.
- The cost that a resumed program reports excludes the earlier cost of the conversation.
- The model gets a message that arrives during a turn with the next tool result. A message that still waits at the end
  of the turn starts another turn, even if stdin has ended by then.
- Each turn begins with an `init`. A message with a known `uuid` is ignored.
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

#: The text of a denied edit. 2.1.197 omits denied edits from the result's `permission_denials`.
_EDIT_DENIED = "File is in a directory that is denied by your permission settings"
#: HTTP statuses of an API that accepts no more requests for now: rate limited, overloaded.
_RATE_LIMIT_STATUSES = (429, 529)
#: HTTP statuses of a temporary failure: a later request may succeed.
_TEMPORARY_STATUSES = (408, 409, *range(500, 600))
#: Beginning of a result after the API was unreachable, or its answer broke off. Such a result has no status.
_CONNECTION_FAILED = re.compile(
    r"API Error: (Unable to connect to API(\. | \()|Request timed out|Connection closed mid-response|Response stalled)"
)
#: Error of `--resume` if the conversation's last program was killed before it had written the conversation to disk.
_NO_CONVERSATION = "No conversation found with session ID"
#: Beginning of a result at the budget's limit, and the smallest budget that `--max-budget-usd` accepts.
_BUDGET_REACHED, _MIN_BUDGET_USD = "Reached maximum budget (", 0.000001
#: Exit codes of a program that was asked to stop, e.g. by a shutdown of the machine: HUP, INT, TERM.
_STOP_EXIT_CODES = (129, 130, 143)
#: Outcomes that count more than the last turn's result. Another attempt would reach the same limit.
_LIMIT_OUTCOMES = ("timed_out", "limited")
#: Variables that select the credentials. The first that is set counts.
_CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "HOME")
#: Variables that select the API endpoint, and the account at that endpoint.
_ENDPOINT = (
    *("ANTHROPIC_BASE_URL", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"),
    *("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "ANTHROPIC_VERTEX_PROJECT_ID", "CLOUD_ML_REGION"),
)
#: Prefixes and suffixes that Bedrock and claude add to a model's name: us.anthropic.…-v1:0, …[1m].
_MODEL_AFFIXES = re.compile(r"^.*anthropic\.|-v\d+:\d+$|\[\w+\]$")
#: Characters that are kept of a model call's id, and of a model's name. Real ids and names are shorter.
_NAME_LIMIT = 100
#: Higher counts of a call's tokens, and higher costs of a turn in dollars, are ignored.
_MAX_TOKENS, _MAX_USD = 10**9, 100_000.0
#: The counts of tokens, in the order of the fields of `Usage`.
_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
#: The model name of messages that claude writes itself, without a model call.
_SYNTHETIC_MODEL = "<synthetic>"
#: Numbers of bytes to drop from the end of a cut line, as it may end within an escaped pair: \ud83d\ude42.
_TORN_LENGTHS = range(13)
#: Claude Code's own default. A lower value from the lead's environment would cut short an agent's questions.
_TOOL_TIMEOUT = {"MCP_TOOL_TIMEOUT": "100000000"}
#: Makes the first turn wait for the MCP servers. 5 s, the default, is too short on a busy machine: later tools would be
#: missed and invalidate the prompt cache, and claude exits without the `approve` tool.
_HEADLESS_VARIABLES = {"MCP_CONNECTION_NONBLOCKING": "0", "MCP_CONNECT_TIMEOUT_MS": "60000", **_TOOL_TIMEOUT}
#: An agent doesn't need forkjoin's plugin: it isn't a lead, and `--mcp-config` gives it its tools.
_PLUGINS = {"forkjoin@forkjoin": False}
#: Tools that an agent may use without asking by default, and forkjoin's tool that asks for permission.
_DEFAULT_ALLOW, _APPROVE = ("Bash", "WebFetch", "WebSearch"), "mcp__forkjoin__approve"
#: Error of a program that exits because the `approve` tool was not connected in time.
_APPROVE_MISSING = f"MCP tool {_APPROVE} (passed via --permission-prompt-tool) not found"
#: Arguments that describe a tool call, the most useful first.
_DESCRIBING_ARGUMENTS = ("command", "file_path", "pattern", "url", "query", "description", "prompt", "path")


def account(environment: Mapping[str, str]) -> str:
    credentials = next(((name, environment[name]) for name in _CREDENTIALS if environment.get(name)), None)
    known = repr((credentials, [environment.get(name) for name in _ENDPOINT]))
    return f"claude-{hashlib.sha256(known.encode(errors='replace')).hexdigest()[:8]}"


def start(context: AgentContext, program: AgentProgram) -> ProgramStart:
    return ProgramStart(
        _argv(context, program, "--session-id"),
        encode_turn(context.task),
        False,
        _HEADLESS_VARIABLES | program.environment,
    )


def resume(context: AgentContext, program: AgentProgram, text: str) -> ProgramStart | None:
    return ProgramStart(
        _argv(context, program, "--resume"), encode_turn(text), False, _HEADLESS_VARIABLES | program.environment
    )


def converse(context: AgentContext, program: AgentProgram) -> ProgramStart | None:
    instructions = f"{_instructions(context)} For now a person is here, too: ask them, and do as they say."
    argv = (*program.command, *_options(context, program, instructions, asks=False), "--resume", context.conversation)
    return ProgramStart(argv, b"", False, _TOOL_TIMEOUT | program.environment)


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
    """Return the options of every run, headless or on a terminal."""
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
    """Return the options that make claude end at this limit.

    Subagents' calls count, too. Only partial messages show an answer's output tokens before the turn ends.
    """
    return "--max-budget-usd", f"{max(usd, _MIN_BUDGET_USD):.6f}", "--include-partial-messages"


def _our_server(relay: Sequence[str]) -> str:
    """Return the MCP configuration of forkjoin's server.

    Claude adds it to the user's servers. It replaces a server with the same name.
    """
    return json.dumps({"mcpServers": {"forkjoin": {"type": "stdio", "command": relay[0], "args": relay[1:]}}})


def _permissions(context: AgentContext, *, asks: bool) -> dict[str, list[str]]:
    # Edit rules apply to Write and to shell redirections, too. `//` begins an absolute path. The path is a pattern, as
    # in a .gitignore: a `?`, which matches any character, replaces each character that could be special there.
    path = re.sub(r"[^\w/.,@%+=:~-]", "?", context.checkout)
    checkout = [f"Edit(/{path}/**)"] if path else []
    rules = context.permissions
    allow = _DEFAULT_ALLOW if rules.allow is None else rules.allow
    unanswered = "AskUserQuestion" if asks else _APPROVE  # a tool that nobody would answer
    return {"allow": [*allow, "mcp__forkjoin"], "deny": ["Bash(git stash:*)", unanswered, *checkout, *rules.deny]}


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
    """A part of a message: text, a tool call, or a tool result."""

    type: str
    text: str = ""
    name: str = ""
    input: dict[str, Any] = {}
    content: Any = None  #: of a tool result: text or blocks


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
    """The fields that we read of a line of stream-json. Other fields and types of line are ignored."""

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
    if not line.lstrip().startswith(b"{"):  # checked first, as it is cheap and a flood may consist of such lines
        return unreadable
    parsed = _parse_json(line) or _parse_json(_repair_surrogates(line))
    return unreadable if parsed is None else tuple(_read_line(parsed))


def read_beginning(beginning: bytes) -> Sequence[Event]:
    """Return the end of a turn, if the line is one. Ignore all other lines.

    Without this event the turn would never end. Only figures follow a result's text, and a long text is cut anyway.
    """
    closed = [beginning[: len(beginning) - cut] + b'"}' for cut in _TORN_LENGTHS]
    for line in (*closed, *map(_repair_surrogates, closed)):
        parsed = _parse_json(line)
        if parsed and parsed.type == "result":
            return (_read_result(parsed),)
    return ()


def _parse_json(line: bytes) -> _Line | None:
    try:
        return _Line.model_validate_json(line)
    except ValidationError:
        return None


def _repair_surrogates(line: bytes) -> bytes:
    """Return the line with a `?` for each unpaired surrogate, or b"" if it isn't JSON.

    JavaScript may print them, and strict parsers reject them.
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
            limited = line.error_status in _RATE_LIMIT_STATUSES
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
    """Return a call's input tokens. Its output tokens are only known at its end."""
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
    """Return the number, or `None` if it is negative, infinite or NaN."""
    return value if value is not None and 0 <= value < math.inf else None


def _dollars(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= _MAX_USD else None


def _read_usage(usage: dict[str, Any]) -> Usage:
    counts = (usage.get(name) for name in _TOKENS)
    return Usage(*(count if type(count) is int and 0 <= count <= _MAX_TOKENS else 0 for count in counts))


def conclude(ended: AttemptEnd) -> Conclusion:
    """Return a success if the last turn was good and the program then exited with 0."""
    turn_end, outcome = ended.turn, ended.outcome
    if turn_end is None:
        why = f"{outcome}, without a result\n{ended.errors.strip()}".strip()
        temporary = outcome.code in _STOP_EXIT_CODES or _APPROVE_MISSING in ended.errors
        later = outcome.kind in ("lost", "signalled") or (outcome.kind == "exited" and temporary)
        retry = Retry.LATER if later else Retry.NO
        return Conclusion(ok=False, output="", error=why, retry=retry)
    edits = any(use.startswith(("Write", "Edit", "NotebookEdit")) for use in turn_end.denied)
    denied = tuple(f"Permission denied: {use}" for use in (*turn_end.denied, *(() if edits else ended.denied)))
    error = None
    if not turn_end.ok and outcome.kind not in _LIMIT_OUTCOMES:
        error = turn_end.output or "the program reported an error"
    elif not outcome.ok:
        error = f"{outcome}, after its result\n{ended.errors.strip()}".strip()
    return Conclusion(error is None, turn_end.output, error, turn_end.usage, denied, _retry(turn_end, outcome))


def _retry(turn_end: TurnEnded, outcome: Outcome) -> Retry:
    if turn_end.ok or outcome.kind in _LIMIT_OUTCOMES:
        return Retry.NO
    if turn_end.status in _RATE_LIMIT_STATUSES or "overloaded_error" in turn_end.output:
        return Retry.WHEN_TAKEN
    if turn_end.output.startswith(_BUDGET_REACHED):
        return Retry.WHEN_FUNDED
    if _NO_CONVERSATION in turn_end.output:
        return Retry.ANEW
    temporary = turn_end.status in _TEMPORARY_STATUSES or _CONNECTION_FAILED.match(turn_end.output)
    return Retry.LATER if temporary else Retry.NO
