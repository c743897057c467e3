"""The adapter for Claude Code in headless mode, with stream-json as input and output format.

These formats let a running program take further turns. Measured with versions 2.1.197 and 2.1.330:

- `acceptEdits` alone denies `git commit`, so `--settings` allows Bash. A deny rule in `--settings` applies even if
  permissions are skipped.
- `--resume` finds a conversation only from the folder in which it began, and only once the model has answered. Before
  that, the same `--session-id` may be used again. The `init` line comes before the first answer.
- The cost that a resumed program reports excludes the earlier cost of the conversation.
- A message that arrives during a turn reaches the model together with the next tool result. If no tool result follows,
  the message starts another turn, even if stdin has ended by then.
- Each turn begins with an `init` line. A message with the `uuid` of an earlier message is ignored.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence

from forkjoin.adapters.claude_output import RATE_LIMIT_STATUSES
from forkjoin.adapters.claude_output import read as read
from forkjoin.adapters.claude_output import read_beginning as read_beginning
from forkjoin.adapters.contract import AgentContext, AttemptEnd, Conclusion, ProgramStart, Retry
from forkjoin.core.event import TurnEnded
from forkjoin.core.outcome import Outcome
from forkjoin.core.settings import AgentProgram

TAKES_TURNS: bool = True
MAKES_EVENTS: bool = True
KEEPS_PERMISSIONS: bool = True

#: HTTP statuses of failures after which a later request may succeed.
_TEMPORARY_STATUSES = (408, 409, *range(500, 600))
#: Beginning of the text of a turn that failed because the API was unreachable, or because its answer broke off. Such a
#: turn has no HTTP status.
_CONNECTION_FAILED = re.compile(
    r"API Error: (Unable to connect to API(\. | \()|Request timed out|Connection closed mid-response|Response stalled)"
)
#: Error of `--resume` if claude was killed before it had written the conversation to disk.
_NO_CONVERSATION = "No conversation found with session ID"
#: Beginning of the text of a turn that ended because the budget was spent.
_BUDGET_REACHED = "Reached maximum budget ("
#: The smallest budget that `--max-budget-usd` accepts.
_MIN_BUDGET_USD = 0.000001
#: Exit codes after SIGHUP, SIGINT and SIGTERM, which claude gets if, for example, the machine shuts down.
_STOP_EXIT_CODES = (129, 130, 143)
#: Kinds of outcome after which another attempt would reach the same limit. They are the error even if the last turn has
#: failed too.
_LIMIT_OUTCOMES = ("timed_out", "limited")
#: Variables that select the credentials. claude uses the first of them that is set.
_CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "HOME")
#: Variables that select the API endpoint, and the account at that endpoint.
_ENDPOINT = (
    *("ANTHROPIC_BASE_URL", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"),
    *("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "ANTHROPIC_VERTEX_PROJECT_ID", "CLOUD_ML_REGION"),
)
#: Claude Code's own default in milliseconds. A lower value in the lead's environment would end an agent's `ask_lead`
#: before the lead answers.
_TOOL_TIMEOUT = {"MCP_TOOL_TIMEOUT": "100000000"}
#: Variables that make the first turn wait for the MCP servers. The default of 5 s is too short on a busy machine: tools
#: that connect later are missing at first and invalidate the prompt cache, and claude exits if `approve` is missing.
_HEADLESS_VARIABLES = {"MCP_CONNECTION_NONBLOCKING": "0", "MCP_CONNECT_TIMEOUT_MS": "60000", **_TOOL_TIMEOUT}
#: Disables forkjoin's plugin in agents. The plugin is for leads, and agents get their tools by `--mcp-config`.
_PLUGINS = {"forkjoin@forkjoin": False}
#: The permissions of an agent whose spec and settings give none.
_DEFAULT_ALLOW = ("Bash", "WebFetch", "WebSearch")
#: forkjoin's tool with which claude asks the lead for a permission.
_APPROVE = "mcp__forkjoin__approve"
#: Error with which claude exits if forkjoin's MCP server did not connect in time.
_APPROVE_MISSING = f"MCP tool {_APPROVE} (passed via --permission-prompt-tool) not found"


def account(environment: Mapping[str, str]) -> str:
    credentials = next(((name, environment[name]) for name in _CREDENTIALS if environment.get(name)), None)
    known = repr((credentials, [environment.get(name) for name in _ENDPOINT]))
    return f"claude-{hashlib.sha256(known.encode(errors='replace')).hexdigest()[:8]}"


def start(context: AgentContext, program: AgentProgram) -> ProgramStart:
    return _headless(context, program, "--session-id", context.task)


def resume(context: AgentContext, program: AgentProgram, text: str) -> ProgramStart | None:
    return _headless(context, program, "--resume", text)


def converse(context: AgentContext, program: AgentProgram) -> ProgramStart | None:
    instructions = (
        f"{_instructions(context)} A person has joined this conversation: ask that person, and do as they say."
    )
    argv = (*program.command, *_options(context, program, instructions, asks=False), "--resume", context.conversation)
    return ProgramStart(argv, b"", False, _TOOL_TIMEOUT | program.environment)


def encode_turn(text: str, key: str = "") -> bytes:
    once = {"uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, key))} if key else {}
    message = {"role": "user", "content": [{"type": "text", "text": text}]}
    return json.dumps({"type": "user", **once, "message": message}).encode() + b"\n"


def _headless(context: AgentContext, program: AgentProgram, conversation_option: str, text: str) -> ProgramStart:
    # Without a relay the `approve` tool is missing. Without a list of allowed tools an agent has nothing to ask for.
    asks = bool(context.relay) and context.permissions.allow is not None and not program.skip_permissions
    argv = (
        *program.command,
        "-p",
        *("--input-format", "stream-json", "--output-format", "stream-json", "--verbose"),
        *(() if context.budget_usd is None else _budget(context.budget_usd)),
        *(("--permission-prompt-tool", _APPROVE) if asks else ()),
        *_options(context, program, _instructions(context), asks=asks),
        *(conversation_option, context.conversation),
    )
    return ProgramStart(argv, encode_turn(text), False, _HEADLESS_VARIABLES | program.environment)


def _options(context: AgentContext, program: AgentProgram, instructions: str, *, asks: bool) -> tuple[str, ...]:
    """Return the options for both headless runs and runs on a terminal.

    Args:
        asks: Whether claude asks for permissions by the `approve` tool.
    """
    skip = ("--dangerously-skip-permissions",) if program.skip_permissions else ("--permission-mode", "acceptEdits")
    model = context.model or program.model
    return (
        *skip,
        *(("--mcp-config", _mcp_config(context.relay)) if context.relay else ()),
        *("--settings", json.dumps({"permissions": _permissions(context, asks=asks), "enabledPlugins": _PLUGINS})),
        *("--append-system-prompt", instructions),
        *(("--model", model) if model else ()),
    )


def _budget(usd: float) -> tuple[str, ...]:
    """Return the options that make claude end the turn once it has spent this amount.

    The amount includes the calls of claude's subagents. Partial messages are requested, since only they report the
    output tokens of an answer before the turn ends.
    """
    return "--max-budget-usd", f"{max(usd, _MIN_BUDGET_USD):.6f}", "--include-partial-messages"


def _mcp_config(relay: Sequence[str]) -> str:
    """Return a value for `--mcp-config`: it adds forkjoin's server to the user's.

    It replaces a server of the user that is named `forkjoin` too.
    """
    return json.dumps({"mcpServers": {"forkjoin": {"type": "stdio", "command": relay[0], "args": relay[1:]}}})


def _permissions(context: AgentContext, *, asks: bool) -> dict[str, list[str]]:
    # Rules for Edit apply to Write and to shell redirections too. `//` begins an absolute path, and paths are patterns
    # as in a .gitignore. So `?`, which matches any character, replaces each character that may be special.
    path = re.sub(r"[^\w/.,@%+=:~-]", "?", context.checkout)
    checkout = [f"Edit(/{path}/**)"] if path else []
    rules = context.permissions
    allow = _DEFAULT_ALLOW if rules.allow is None else rules.allow
    unanswered = "AskUserQuestion" if asks else _APPROVE  # denied, since nobody would answer its calls
    return {"allow": [*allow, "mcp__forkjoin"], "deny": ["Bash(git stash:*)", unanswered, *checkout, *rules.deny]}


def _instructions(context: AgentContext) -> str:
    return (
        f"You are agent {context.id} ({context.name}), one of several that work in parallel, each in a git worktree of "
        f"its own. Yours is {context.worktree}, on branch {context.branch}. Work only there, never in another checkout "
        "of this repository, do not switch branches, and do not use git stash (all worktrees share it). "
        "Commit your work on this branch with clear messages; merging is done by others. "
        "Make decisions yourself, and say which. If your work depends on a decision that you can't make, ask with "
        "ask_lead (mcp__forkjoin__ask_lead). End with a short report: your work, your checks, and the remaining work."
    )


def conclude(ended: AttemptEnd) -> Conclusion:
    """Return a success if the last turn succeeded and the program then exited with 0."""
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
    if turn_end.status in RATE_LIMIT_STATUSES or "overloaded_error" in turn_end.output:
        return Retry.WHEN_ACCEPTED
    if turn_end.output.startswith(_BUDGET_REACHED):
        return Retry.WHEN_FUNDED
    if _NO_CONVERSATION in turn_end.output:
        return Retry.FROM_TASK
    temporary = turn_end.status in _TEMPORARY_STATUSES or _CONNECTION_FAILED.match(turn_end.output)
    return Retry.LATER if temporary else Retry.NO
