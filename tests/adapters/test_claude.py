"""The adapter for Claude Code: the commands that it starts, and its conclusions about ended attempts."""

import json
from dataclasses import replace

import pytest
from adapters.test_claude_output import RESULT, read_events
from forkjoin.adapters import claude
from forkjoin.adapters.contract import AgentContext, AttemptEnd, Retry
from forkjoin.core.agent_spec import Permissions
from forkjoin.core.event import Denied, TurnEnded
from forkjoin.core.outcome import Outcome
from forkjoin.core.settings import AgentProgram

CONTEXT = AgentContext(
    id="a1",
    name="fix",
    task="Fix it\n-- now",
    branch="forkjoin/a1-fix",
    worktree="/worktrees/a1-fix",
    checkout="/home/me/project",
    model=None,
    conversation="5d5e3f0e-52a6-4b52-8b4d-0f0f7d8a7c11",
)
PROGRAM = AgentProgram(kind="claude", command=["claude"])


def test_a_person_continues_the_conversation_with_the_agents_permissions_and_instructions() -> None:
    run = claude.converse(CONTEXT, PROGRAM)
    assert run
    argv = run.argv
    assert (argv[0], argv[-2:]) == ("claude", ("--resume", CONTEXT.conversation))
    assert not {"-p", "--input-format"} & set(argv)
    resumed = claude.resume(CONTEXT, PROGRAM, "more")
    assert resumed
    assert argv[argv.index("--settings") + 1] in resumed.argv
    assert "A person has joined" in argv[argv.index("--append-system-prompt") + 1]


def test_the_task_is_passed_on_stdin_and_never_in_argv() -> None:
    program = claude.start(CONTEXT, PROGRAM)
    assert "Fix it" not in " ".join(program.argv)
    assert json.loads(program.input)["message"]["content"] == [{"type": "text", "text": "Fix it\n-- now"}]
    assert program.input.count(b"\n") == 1
    assert program.closed is False


def test_an_agent_with_a_budget_gets_its_limit_and_prints_partial_messages() -> None:
    assert "--max-budget-usd" not in claude.start(CONTEXT, PROGRAM).argv
    argv = claude.start(replace(CONTEXT, budget_usd=0.25), PROGRAM).argv
    assert argv[argv.index("--max-budget-usd") + 1] == "0.250000"
    assert "--include-partial-messages" in argv


def test_edits_and_commands_are_allowed_and_the_users_checkout_and_git_stash_are_denied() -> None:
    argv = claude.start(CONTEXT, PROGRAM).argv
    permissions = json.loads(argv[argv.index("--settings") + 1])["permissions"]
    assert "Bash" in permissions["allow"]
    assert permissions["deny"] == ["Bash(git stash:*)", "mcp__forkjoin__approve", "Edit(//home/me/project/**)"]
    assert argv[argv.index("--permission-mode") + 1] == "acceptEdits"


def test_an_agent_gets_forkjoins_tools_in_addition_to_the_users_servers_and_may_use_them() -> None:
    started = claude.start(replace(CONTEXT, relay=("python", "-m", "forkjoin", "mcp")), PROGRAM)
    argv = started.argv
    (server,) = json.loads(argv[argv.index("--mcp-config") + 1])["mcpServers"].items()
    assert server == ("forkjoin", {"type": "stdio", "command": "python", "args": ["-m", "forkjoin", "mcp"]})
    assert "--strict-mcp-config" not in argv
    waits = {"MCP_CONNECTION_NONBLOCKING": "0", "MCP_CONNECT_TIMEOUT_MS": "60000", "MCP_TOOL_TIMEOUT": "100000000"}
    assert started.environment == waits
    wanted = PROGRAM.model_copy(update={"environment": {"MCP_TOOL_TIMEOUT": "1"}})
    assert claude.start(CONTEXT, wanted).environment == {**waits, "MCP_TOOL_TIMEOUT": "1"}
    assert "mcp__forkjoin" in json.loads(argv[argv.index("--settings") + 1])["permissions"]["allow"]
    assert "--mcp-config" not in claude.start(CONTEXT, PROGRAM).argv


ASKING = replace(CONTEXT, relay=("relay",), permissions=Permissions(allow=("Bash(npm test:*)",), deny=("WebFetch",)))


def test_an_agent_with_an_allow_list_asks_for_all_other_permissions_with_forkjoins_tool() -> None:
    argv = claude.start(ASKING, PROGRAM).argv
    permissions = json.loads(argv[argv.index("--settings") + 1])["permissions"]
    assert permissions["allow"] == ["Bash(npm test:*)", "mcp__forkjoin"]
    assert permissions["deny"] == ["Bash(git stash:*)", "AskUserQuestion", "Edit(//home/me/project/**)", "WebFetch"]
    assert argv[argv.index("--permission-prompt-tool") + 1] == "mcp__forkjoin__approve"


def test_an_agent_without_an_allow_list_never_asks_for_permission() -> None:
    argv = claude.start(replace(ASKING, permissions=Permissions(deny=("WebFetch",))), PROGRAM).argv
    permissions = json.loads(argv[argv.index("--settings") + 1])["permissions"]
    assert ("Bash" in permissions["allow"], "WebFetch" in permissions["deny"]) == (True, True)
    assert "--permission-prompt-tool" not in argv


def test_an_agent_that_skips_permissions_never_asks_and_its_deny_rules_still_apply() -> None:
    argv = claude.start(ASKING, AgentProgram(kind="claude", command=["claude"], skip_permissions=True)).argv
    assert "--permission-prompt-tool" not in argv
    assert "WebFetch" in json.loads(argv[argv.index("--settings") + 1])["permissions"]["deny"]


def test_permissions_are_skipped_only_if_the_settings_say_so_and_git_stash_stays_denied() -> None:
    argv = claude.start(CONTEXT, AgentProgram(kind="claude", command=["claude"], skip_permissions=True)).argv
    assert "--dangerously-skip-permissions" in argv
    assert "git stash" in argv[argv.index("--settings") + 1]
    assert "--dangerously-skip-permissions" not in claude.start(CONTEXT, PROGRAM).argv


def test_a_resumed_program_gets_the_conversation_id_of_the_first_start() -> None:
    started = claude.start(CONTEXT, PROGRAM).argv
    assert started[started.index("--session-id") + 1] == CONTEXT.conversation
    resumed = claude.resume(CONTEXT, PROGRAM, "go on")
    assert resumed is not None
    assert resumed.argv[resumed.argv.index("--resume") + 1] == CONTEXT.conversation
    assert "--session-id" not in resumed.argv


BUDGET_REACHED = {
    "is_error": True,
    "subtype": "error_max_budget_usd",
    "errors": ["Reached maximum budget ($0.03)"],
    "result": "",
}

#: The outcome of a program, the changes to its result, and the expected retry.
ENDS = [
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 429}, Retry.WHEN_ACCEPTED),
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 529}, Retry.WHEN_ACCEPTED),
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 500}, Retry.LATER),
    (Outcome("exited", 1), BUDGET_REACHED, Retry.WHEN_FUNDED),
    (Outcome("exited", 1), {"is_error": True, "result": "No conversation found with session ID: x"}, Retry.FROM_TASK),
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 400}, Retry.NO),
    (Outcome("exited", 1), {"is_error": True, "result": "API Error: Unable to connect to API (x)"}, Retry.LATER),
    (Outcome("exited", 0), {"result": "API Error: Unable to connect to API is what it said"}, Retry.NO),
    (Outcome("exited", 1), {"is_error": True, "result": "API Error: Connection closed mid-response"}, Retry.LATER),
    (Outcome("exited", 1), {"is_error": True, "result": 'API Error: {"type":"overloaded_error"}'}, Retry.WHEN_ACCEPTED),
    (Outcome("exited", 1), {"is_error": True, "result": "API Error: Unable to connect to API: SSL"}, Retry.NO),
    (Outcome("exited", 0), {"api_error_status": 529}, Retry.NO),
    (Outcome("exited", 143), None, Retry.LATER),
    (Outcome("signalled", 9), None, Retry.LATER),
    (Outcome("lost"), None, Retry.LATER),
    (Outcome("exited", 1), None, Retry.NO),
    (Outcome("timed_out"), None, Retry.NO),
    (Outcome("timed_out"), {"is_error": True, "api_error_status": 529}, Retry.NO),
    (Outcome("limited", 9), None, Retry.NO),
    (Outcome("limited", 9), {"is_error": True, "api_error_status": 529}, Retry.NO),
]


@pytest.mark.parametrize(("outcome", "change", "retry"), ENDS)
def test_the_outcome_and_the_result_decide_whether_another_attempt_follows(
    outcome: Outcome, change: dict[str, object] | None, retry: Retry
) -> None:
    turn = None
    if change is not None:
        (turn,) = read_events({**RESULT, **change})
    assert turn is None or isinstance(turn, TurnEnded)
    assert claude.conclude(AttemptEnd(outcome, turn, "", "")).retry is retry


def test_a_program_that_did_not_find_the_approve_tool_is_tried_again() -> None:
    why = (
        "Error: MCP tool mcp__forkjoin__approve (passed via --permission-prompt-tool) not found. Available MCP tools: x"
    )
    assert claude.conclude(AttemptEnd(Outcome("exited", 1), None, "", why)).retry is Retry.LATER


def test_an_account_depends_on_credentials_and_endpoint_and_reveals_neither() -> None:
    base = {"HOME": "/home/me", "PATH": "/bin"}
    keyed = {**base, "ANTHROPIC_API_KEY": "sk-ant-secret"}
    environments = [base, keyed, {**keyed, "ANTHROPIC_BASE_URL": "http://proxy"}, {"HOME": "/home/you"}]
    environments += [{**base, "CLAUDE_CODE_USE_BEDROCK": "1", "AWS_PROFILE": profile} for profile in ("one", "two")]
    accounts = [claude.account(environment) for environment in environments]
    assert len(set(accounts)) == 6
    assert claude.account({**keyed, "PATH": "/usr/bin", "HOME": "/tmp"}) == accounts[1]
    assert all(account.startswith("claude-") and len(account) == 15 for account in accounts)


EDIT_DENIED = "File is in a directory that is denied by your permission settings"


def test_a_denied_edit_is_one_warning_even_if_the_result_does_not_mention_it() -> None:
    block = {
        "type": "tool_result",
        "content": f"<tool_use_error>{EDIT_DENIED}.</tool_use_error>",
        "is_error": True,
        "tool_use_id": "t1",
    }
    assert read_events({"type": "user", "message": {"role": "user", "content": [block]}}) == [Denied(EDIT_DENIED)]
    silent, telling = TurnEnded(True, "done"), TurnEnded(True, "done", denied=("Write /home/me/project/x",))
    for turn, warning in ((silent, EDIT_DENIED), (telling, "Write /home/me/project/x")):
        concluded = claude.conclude(AttemptEnd(Outcome("exited", 0), turn, "", "", (EDIT_DENIED,)))
        assert concluded.warnings == (f"Permission denied: {warning}",)


GOOD = TurnEnded(True, "done", 0.5)


def test_only_a_successful_turn_and_exit_code_0_together_are_a_success() -> None:
    assert claude.conclude(AttemptEnd(Outcome("exited", 0), GOOD, "", "")).ok
    for outcome, turn in (
        (Outcome("exited", 0), None),
        (Outcome("exited", 1), GOOD),
        (Outcome("signalled", 9), GOOD),
        (Outcome("exited", 0), TurnEnded(False, "API Error: 400")),
    ):
        concluded = claude.conclude(AttemptEnd(outcome, turn, "", "end of stderr"))
        assert not concluded.ok
        assert concluded.error


def test_a_denied_tool_call_is_a_warning() -> None:
    turn = TurnEnded(True, "done", denied=("Bash git stash",))
    assert claude.conclude(AttemptEnd(Outcome("exited", 0), turn, "", "")).warnings == (
        "Permission denied: Bash git stash",
    )
