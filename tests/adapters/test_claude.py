"""The adapter for Claude Code, tested with lines that Claude Code printed."""

import json
from dataclasses import replace

import pytest
from forkjoin.adapters import claude
from forkjoin.adapters.contract import AgentContext, AttemptEnd, Retry
from forkjoin.core.agent_spec import Permissions
from forkjoin.core.event import Denied, Noted, RateLimited, Said, Spent, Started, TurnEnded, Unreadable, UsedTool
from forkjoin.core.outcome import Outcome
from forkjoin.core.result import Usage
from forkjoin.core.settings import AgentProgram
from hypothesis import given
from hypothesis import strategies as st

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

INIT = {"type": "system", "subtype": "init", "session_id": "5d5e", "model": "claude-sonnet-4-5", "tools": ["Bash"]}
ANSWER = {
    "type": "assistant",
    "message": {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I will commit."},
            {
                "type": "tool_use",
                "id": "t1",
                "name": "Bash",
                "input": {"command": "git commit -m x", "description": "c"},
            },
        ],
    },
    "session_id": "5d5e",
}
TOOL_RESULT = {"type": "user", "message": {"role": "user", "content": [{"type": "tool_result", "content": "ok"}]}}
RESULT = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "result": "Done: committed.",
    "total_cost_usd": 0.0123,
    "usage": {"input_tokens": 10, "output_tokens": 4, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 2},
    "permission_denials": [{"tool_name": "Bash", "tool_use_id": "t", "tool_input": {"command": "git stash"}}],
}


def _read(message: object) -> list[object]:
    return list(claude.read(json.dumps(message).encode()))


def test_a_person_continues_the_conversation_with_the_agents_permissions_and_instructions() -> None:
    run = claude.converse(CONTEXT, PROGRAM)
    assert run
    argv = run.argv
    assert (argv[0], argv[-2:]) == ("claude", ("--resume", CONTEXT.conversation))
    assert not {"-p", "--input-format"} & set(argv)
    resumed = claude.resume(CONTEXT, PROGRAM, "more")
    assert resumed
    assert argv[argv.index("--settings") + 1] in resumed.argv
    assert "a person is here" in argv[argv.index("--append-system-prompt") + 1]


@pytest.mark.parametrize("given", [[None], "x", 5, None])
def test_the_arguments_of_a_denied_tool_call_need_not_be_an_object(given: object) -> None:
    denials = [{"tool_name": "Bash", "tool_input": given}]
    (end,) = _read({**RESULT, "permission_denials": denials})
    assert isinstance(end, TurnEnded)
    assert end.denied == (f"Bash {json.dumps(given or {})}",)


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


USED = {"input_tokens": 100, "output_tokens": 1, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 5}


@pytest.mark.parametrize(
    ("full_name", "model"),
    [
        ("claude-opus-4-8", "claude-opus-4-8"),
        ("claude-opus-4-8[1m]", "claude-opus-4-8"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929"),
    ],
)
def test_the_input_tokens_of_a_call_are_counted_at_its_beginning_and_with_its_answer(
    full_name: str, model: str
) -> None:
    message: dict[str, object] = {"id": "msg_1", "model": full_name, "content": [], "usage": USED}
    spent = Spent("msg_1", Usage(input_tokens=100, cache_read_tokens=1000, cache_write_tokens=5), model)
    assert _read({"type": "assistant", "message": message}) == [spent]
    began: dict[str, object] = {"type": "stream_event", "event": {"type": "message_start", "message": message}}
    assert _read(began) == [replace(spent, begins=True)]
    assert _read(began | {"parent_tool_use_id": "a subagent's"}) == [spent]


@pytest.mark.parametrize("count", [-5, 10**320, True, "5", 1.5, None])
def test_an_impossible_count_of_tokens_counts_as_0(count: object) -> None:
    delta = {"type": "message_delta", "usage": {"output_tokens": count}}
    assert _read({"type": "stream_event", "uuid": "u", "event": delta}) == [Spent("u", Usage())]


@pytest.mark.parametrize("cost", [-1, 1e308])
def test_an_impossible_cost_is_ignored(cost: float) -> None:
    (ended,) = _read(RESULT | {"total_cost_usd": cost, "uuid": None})
    assert isinstance(ended, TurnEnded)
    assert ended.cost_usd is None


def test_the_output_tokens_of_a_call_are_counted_at_its_end() -> None:
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 500}}
    assert _read({"type": "stream_event", "uuid": "u1", "event": delta}) == [Spent("u1", Usage(output_tokens=500))]
    stop = {"type": "stream_event", "uuid": "u2", "event": {"type": "content_block_stop", "index": 0}}
    assert _read(stop) == []


def test_a_message_that_claude_writes_without_a_model_call_has_no_tokens() -> None:
    message: dict[str, object] = {
        "id": "x",
        "model": "<synthetic>",
        "content": [{"type": "text", "text": "No"}],
        "usage": USED,
    }
    assert _read({"type": "assistant", "message": message}) == [Said("No")]


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


def test_the_init_line_contains_the_conversation_and_the_model() -> None:
    assert _read(INIT) == [Started("5d5e", "claude-sonnet-4-5")]


def test_texts_and_tool_calls_become_events() -> None:
    assert _read(ANSWER) == [Said("I will commit."), UsedTool("Bash", "git commit -m x")]
    assert _read(TOOL_RESULT) == []


def test_a_result_ends_the_turn_with_its_cost_usage_and_denied_tool_calls() -> None:
    assert _read(RESULT) == [TurnEnded(True, "Done: committed.", 0.0123, Usage(10, 4, 7, 2), ("Bash git stash",))]


@pytest.mark.parametrize("cut", [b"\\ud83d", b"\\ude42 \\ud83d", b"\xff"])
def test_a_result_that_was_cut_within_a_character_ends_the_turn(cut: bytes) -> None:
    """JavaScript prints an unpaired surrogate after a cut within a character."""
    line = json.dumps({**RESULT, "result": "Done \U0001f642: CUT"}).encode().replace(b"CUT", cut)
    (ended,) = claude.read(line)
    assert isinstance(ended, TurnEnded)
    assert ended.ok
    assert ended.output.startswith("Done \U0001f642: ")
    ended.output.encode()
    (begun,) = claude.read_beginning(line.partition(b'", "total_cost')[0] + b" and much more")
    assert isinstance(begun, TurnEnded)


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (529, RateLimited), (401, Noted)])
def test_a_retry_becomes_an_event_with_the_status_of_the_api(status: int, kind: type[RateLimited | Noted]) -> None:
    retry = {"type": "system", "subtype": "api_retry", "attempt": 2, "max_retries": 10, "error_status": status}
    assert _read({**retry, "error": "e"}) == [kind(f"the API answered {status} (e); retry 2 of 10")]
    (timed,) = _read({**retry, "error": "e", "retry_delay_ms": 3000})
    assert not isinstance(timed, RateLimited) or timed.wait_s == 3


def test_a_reached_usage_limit_becomes_an_event_with_the_time_of_its_reset() -> None:
    info = {"status": "rejected", "resetsAt": 1795725715, "rateLimitType": "five_hour", "isUsingOverage": False}
    limit = {"type": "rate_limit_event", "rate_limit_info": info, "uuid": "257c", "session_id": "3a4c"}
    assert _read(limit) == [RateLimited("the usage limit is reached (five_hour)", until=1795725715)]
    assert _read({**limit, "rate_limit_info": {**info, "status": "allowed"}}) == []
    (endless,) = claude.read(json.dumps(limit).replace("1795725715", "1e999").encode())
    assert isinstance(endless, RateLimited)
    assert endless.until is None


BUDGET_REACHED = {
    "is_error": True,
    "subtype": "error_max_budget_usd",
    "errors": ["Reached maximum budget ($0.03)"],
    "result": "",
}

#: The outcome of a program, the changes to its result, and the expected retry.
ENDS = [
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 429}, Retry.WHEN_TAKEN),
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 529}, Retry.WHEN_TAKEN),
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 500}, Retry.LATER),
    (Outcome("exited", 1), BUDGET_REACHED, Retry.WHEN_FUNDED),
    (Outcome("exited", 1), {"is_error": True, "result": "No conversation found with session ID: x"}, Retry.ANEW),
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 400}, Retry.NO),
    (Outcome("exited", 1), {"is_error": True, "result": "API Error: Unable to connect to API (x)"}, Retry.LATER),
    (Outcome("exited", 0), {"result": "API Error: Unable to connect to API is what it said"}, Retry.NO),
    (Outcome("exited", 1), {"is_error": True, "result": "API Error: Connection closed mid-response"}, Retry.LATER),
    (Outcome("exited", 1), {"is_error": True, "result": 'API Error: {"type":"overloaded_error"}'}, Retry.WHEN_TAKEN),
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
        (turn,) = _read({**RESULT, **change})
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
    assert _read({"type": "user", "message": {"role": "user", "content": [block]}}) == [Denied(EDIT_DENIED)]
    silent, telling = TurnEnded(True, "done"), TurnEnded(True, "done", denied=("Write /home/me/project/x",))
    for turn, warning in ((silent, EDIT_DENIED), (telling, "Write /home/me/project/x")):
        concluded = claude.conclude(AttemptEnd(Outcome("exited", 0), turn, "", "", (EDIT_DENIED,)))
        assert concluded.warnings == (f"Permission denied: {warning}",)


@pytest.mark.parametrize("change", [{"is_error": True}, {"subtype": "error_max_turns", "result": ""}])
def test_a_result_with_an_error_is_no_success(change: dict[str, object]) -> None:
    (ended,) = _read({**RESULT, **change})
    assert isinstance(ended, TurnEnded)
    assert ended.ok is False
    assert ended.output


@given(
    st.binary() | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(repr).map(str.encode)
)
def test_no_line_makes_the_adapter_raise(line: bytes) -> None:
    assert all(isinstance(event, Unreadable) for event in claude.read(line))


@given(
    st.dictionaries(
        st.sampled_from(["type", "subtype", "message", "result", "usage"]), st.none() | st.text() | st.integers()
    )
)
def test_no_json_object_makes_the_adapter_raise(message: dict[str, object]) -> None:
    claude.read(json.dumps(message).encode())


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


@pytest.mark.parametrize("cut", range(1, 40))
def test_the_end_of_a_turn_is_read_from_a_line_that_is_cut_anywhere(cut: int) -> None:
    text = 'begin \U0001f642\U0001f642\U0001f642 " \\ \u00fc\n'
    for ascii_only in (True, False):
        words = json.dumps(text, ensure_ascii=ascii_only)[:-1].encode()
        line = b'{"type": "result", "subtype": "success", "is_error": false, "result": ' + words
        (end,) = claude.read_beginning(line[: len(line) - min(cut, len(words) - 7)])
        assert isinstance(end, TurnEnded)
        assert end.ok
        assert text.startswith(end.output)
        assert end.output.startswith("begin")


@pytest.mark.parametrize(
    "line", [b"", b"x" * 100, b'{"type": "assistant", "message": {"content": "x', b'{"type": "res']
)
def test_no_other_event_is_read_from_a_cut_line(line: bytes) -> None:
    assert claude.read_beginning(line) == ()
