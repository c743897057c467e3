"""The claude adapter, on lines that Claude Code printed."""

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

BRIEF = AgentContext(
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
SPOKE = {
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
HEARD = {"type": "user", "message": {"role": "user", "content": [{"type": "tool_result", "content": "ok"}]}}
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


def test_a_person_goes_on_in_the_same_conversation_with_what_the_agent_may_and_is_told() -> None:
    run = claude.converse(BRIEF, PROGRAM)
    assert run
    argv = run.argv
    assert (argv[0], argv[-2:]) == ("claude", ("--resume", BRIEF.conversation))
    assert not {"-p", "--input-format"} & set(argv)
    resumed = claude.resume(BRIEF, PROGRAM, "more")
    assert resumed
    assert argv[argv.index("--settings") + 1] in resumed.argv
    assert "a person is here" in argv[argv.index("--append-system-prompt") + 1]


@pytest.mark.parametrize("given", [[None], "x", 5, None])
def test_a_denied_use_that_is_no_object_is_told_as_it_is(given: object) -> None:
    denials = [{"tool_name": "Bash", "tool_input": given}]
    (end,) = _read({**RESULT, "permission_denials": denials})
    assert isinstance(end, TurnEnded)
    assert end.denied == (f"Bash {json.dumps(given or {})}",)


def test_the_task_goes_through_stdin_and_never_through_argv() -> None:
    program = claude.start(BRIEF, PROGRAM)
    assert "Fix it" not in " ".join(program.argv)
    assert json.loads(program.input)["message"]["content"] == [{"type": "text", "text": "Fix it\n-- now"}]
    assert program.input.count(b"\n") == 1
    assert program.closed is False


def test_where_a_budget_binds_it_is_told_its_limit_and_to_tell_what_it_spends() -> None:
    assert "--max-budget-usd" not in claude.start(BRIEF, PROGRAM).argv
    argv = claude.start(replace(BRIEF, budget_usd=0.25), PROGRAM).argv
    assert argv[argv.index("--max-budget-usd") + 1] == "0.250000"
    assert "--include-partial-messages" in argv


USED = {"input_tokens": 100, "output_tokens": 1, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 5}


@pytest.mark.parametrize(
    ("told", "model"),
    [
        ("claude-opus-4-8", "claude-opus-4-8"),
        ("claude-opus-4-8[1m]", "claude-opus-4-8"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929"),
    ],
)
def test_what_a_call_has_read_is_told_with_its_answer_and_at_its_beginning(told: str, model: str) -> None:
    message: dict[str, object] = {"id": "msg_1", "model": told, "content": [], "usage": USED}
    spent = Spent("msg_1", Usage(input_tokens=100, cache_read_tokens=1000, cache_write_tokens=5), model)
    assert _read({"type": "assistant", "message": message}) == [spent]
    began: dict[str, object] = {"type": "stream_event", "event": {"type": "message_start", "message": message}}
    assert _read(began) == [replace(spent, begins=True)]
    assert _read(began | {"parent_tool_use_id": "a subagent's"}) == [spent]


@pytest.mark.parametrize("count", [-5, 10**320, True, "5", 1.5, None])
def test_what_is_no_count_of_tokens_counts_as_nothing(count: object) -> None:
    delta = {"type": "message_delta", "usage": {"output_tokens": count}}
    assert _read({"type": "stream_event", "uuid": "u", "event": delta}) == [Spent("u", Usage())]


@pytest.mark.parametrize("cost", [-1, 1e308])
def test_what_no_turn_costs_is_not_told(cost: float) -> None:
    (ended,) = _read(RESULT | {"total_cost_usd": cost, "uuid": None})
    assert isinstance(ended, TurnEnded)
    assert ended.cost_usd is None


def test_what_a_call_has_written_is_told_at_its_end() -> None:
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 500}}
    assert _read({"type": "stream_event", "uuid": "u1", "event": delta}) == [Spent("u1", Usage(output_tokens=500))]
    stop = {"type": "stream_event", "uuid": "u2", "event": {"type": "content_block_stop", "index": 0}}
    assert _read(stop) == []


def test_what_claude_says_itself_costs_nothing() -> None:
    message: dict[str, object] = {
        "id": "x",
        "model": "<synthetic>",
        "content": [{"type": "text", "text": "No"}],
        "usage": USED,
    }
    assert _read({"type": "assistant", "message": message}) == [Said("No")]


def test_edits_and_commands_are_allowed_and_the_checkout_and_the_stash_denied() -> None:
    argv = claude.start(BRIEF, PROGRAM).argv
    permissions = json.loads(argv[argv.index("--settings") + 1])["permissions"]
    assert "Bash" in permissions["allow"]
    assert permissions["deny"] == ["Bash(git stash:*)", "mcp__forkjoin__approve", "Edit(//home/me/project/**)"]
    assert argv[argv.index("--permission-mode") + 1] == "acceptEdits"


def test_it_is_given_our_own_tools_beside_the_users_servers_and_may_use_them() -> None:
    started = claude.start(replace(BRIEF, relay=("python", "-m", "forkjoin", "mcp")), PROGRAM)
    argv = started.argv
    (server,) = json.loads(argv[argv.index("--mcp-config") + 1])["mcpServers"].items()
    assert server == ("forkjoin", {"type": "stdio", "command": "python", "args": ["-m", "forkjoin", "mcp"]})
    assert "--strict-mcp-config" not in argv
    waits = {"MCP_CONNECTION_NONBLOCKING": "0", "MCP_CONNECT_TIMEOUT_MS": "60000", "MCP_TOOL_TIMEOUT": "100000000"}
    assert started.environment == waits
    wanted = PROGRAM.model_copy(update={"environment": {"MCP_TOOL_TIMEOUT": "1"}})
    assert claude.start(BRIEF, wanted).environment == {**waits, "MCP_TOOL_TIMEOUT": "1"}
    assert "mcp__forkjoin" in json.loads(argv[argv.index("--settings") + 1])["permissions"]["allow"]
    assert "--mcp-config" not in claude.start(BRIEF, PROGRAM).argv


ASKING = replace(BRIEF, relay=("relay",), permissions=Permissions(allow=("Bash(npm test:*)",), deny=("WebFetch",)))


def test_with_an_allow_list_of_its_own_it_asks_by_our_tool_for_all_else() -> None:
    argv = claude.start(ASKING, PROGRAM).argv
    permissions = json.loads(argv[argv.index("--settings") + 1])["permissions"]
    assert permissions["allow"] == ["Bash(npm test:*)", "mcp__forkjoin"]
    assert permissions["deny"] == ["Bash(git stash:*)", "AskUserQuestion", "Edit(//home/me/project/**)", "WebFetch"]
    assert argv[argv.index("--permission-prompt-tool") + 1] == "mcp__forkjoin__approve"


def test_without_an_allow_list_it_asks_for_nothing() -> None:
    argv = claude.start(replace(ASKING, permissions=Permissions(deny=("WebFetch",))), PROGRAM).argv
    permissions = json.loads(argv[argv.index("--settings") + 1])["permissions"]
    assert ("Bash" in permissions["allow"], "WebFetch" in permissions["deny"]) == (True, True)
    assert "--permission-prompt-tool" not in argv


def test_where_permissions_are_skipped_it_asks_for_nothing_and_what_is_denied_stays_so() -> None:
    argv = claude.start(ASKING, AgentProgram(kind="claude", command=["claude"], skip_permissions=True)).argv
    assert "--permission-prompt-tool" not in argv
    assert "WebFetch" in json.loads(argv[argv.index("--settings") + 1])["permissions"]["deny"]


def test_only_the_settings_skip_permissions_and_the_deny_rules_stay() -> None:
    argv = claude.start(BRIEF, AgentProgram(kind="claude", command=["claude"], skip_permissions=True)).argv
    assert "--dangerously-skip-permissions" in argv
    assert "git stash" in argv[argv.index("--settings") + 1]
    assert "--dangerously-skip-permissions" not in claude.start(BRIEF, PROGRAM).argv


def test_resuming_names_the_conversation_that_starting_drew() -> None:
    started = claude.start(BRIEF, PROGRAM).argv
    assert started[started.index("--session-id") + 1] == BRIEF.conversation
    resumed = claude.resume(BRIEF, PROGRAM, "go on")
    assert resumed is not None
    assert resumed.argv[resumed.argv.index("--resume") + 1] == BRIEF.conversation
    assert "--session-id" not in resumed.argv


def test_the_first_line_says_which_conversation_and_model() -> None:
    assert _read(INIT) == [Started("5d5e", "claude-sonnet-4-5")]


def test_what_it_says_and_which_tools_it_uses_become_events() -> None:
    assert _read(SPOKE) == [Said("I will commit."), UsedTool("Bash", "git commit -m x")]
    assert _read(HEARD) == []


def test_a_result_ends_the_turn_with_cost_usage_and_what_was_denied() -> None:
    assert _read(RESULT) == [TurnEnded(True, "Done: committed.", 0.0123, Usage(10, 4, 7, 2), ("Bash git stash",))]


@pytest.mark.parametrize("cut", [b"\\ud83d", b"\\ude42 \\ud83d", b"\xff"])
def test_a_result_that_was_cut_within_a_character_ends_the_turn(cut: bytes) -> None:
    """A program in JavaScript, which cuts text where it likes, writes half of a surrogate pair so."""
    line = json.dumps({**RESULT, "result": "Done \U0001f642: CUT"}).encode().replace(b"CUT", cut)
    (ended,) = claude.read(line)
    assert isinstance(ended, TurnEnded)
    assert ended.ok
    assert ended.output.startswith("Done \U0001f642: ")
    ended.output.encode()
    (begun,) = claude.read_beginning(line.partition(b'", "total_cost')[0] + b" and much more")
    assert isinstance(begun, TurnEnded)


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (529, RateLimited), (401, Noted)])
def test_a_retry_says_what_the_api_answered(status: int, kind: type[RateLimited | Noted]) -> None:
    retry = {"type": "system", "subtype": "api_retry", "attempt": 2, "max_retries": 10, "error_status": status}
    assert _read({**retry, "error": "e"}) == [kind(f"the API answered {status} (e); retry 2 of 10")]
    (timed,) = _read({**retry, "error": "e", "retry_delay_ms": 3000})
    assert not isinstance(timed, RateLimited) or timed.wait_s == 3


def test_a_limit_of_use_that_is_reached_is_told_with_its_reset() -> None:
    info = {"status": "rejected", "resetsAt": 1795725715, "rateLimitType": "five_hour", "isUsingOverage": False}
    limit = {"type": "rate_limit_event", "rate_limit_info": info, "uuid": "257c", "session_id": "3a4c"}
    assert _read(limit) == [RateLimited("the usage limit is reached (five_hour)", until=1795725715)]
    assert _read({**limit, "rate_limit_info": {**info, "status": "allowed"}}) == []
    (endless,) = claude.read(json.dumps(limit).replace("1795725715", "1e999").encode())
    assert isinstance(endless, RateLimited)
    assert endless.until is None


SPENT_ALL = {
    "is_error": True,
    "subtype": "error_max_budget_usd",
    "errors": ["Reached maximum budget ($0.03)"],
    "result": "",
}

#: How a program ended, its result, and what may be hoped for after that.
ENDS = [
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 429}, Retry.WHEN_TAKEN),
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 529}, Retry.WHEN_TAKEN),
    (Outcome("exited", 1), {"is_error": True, "api_error_status": 500}, Retry.LATER),
    (Outcome("exited", 1), SPENT_ALL, Retry.WHEN_FUNDED),
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
def test_an_end_tells_whether_another_attempt_may_do_better(
    outcome: Outcome, change: dict[str, object] | None, retry: Retry
) -> None:
    turn = None
    if change is not None:
        (turn,) = _read({**RESULT, **change})
    assert turn is None or isinstance(turn, TurnEnded)
    assert claude.conclude(AttemptEnd(outcome, turn, "", "")).retry is retry


def test_one_whose_relay_was_not_up_in_time_is_tried_again() -> None:
    why = (
        "Error: MCP tool mcp__forkjoin__approve (passed via --permission-prompt-tool) not found. Available MCP tools: x"
    )
    assert claude.conclude(AttemptEnd(Outcome("exited", 1), None, "", why)).retry is Retry.LATER


def test_an_account_is_its_credentials_and_where_they_are_sent_and_tells_neither() -> None:
    base = {"HOME": "/home/me", "PATH": "/bin"}
    keyed = {**base, "ANTHROPIC_API_KEY": "sk-ant-secret"}
    environments = [base, keyed, {**keyed, "ANTHROPIC_BASE_URL": "http://proxy"}, {"HOME": "/home/you"}]
    environments += [{**base, "CLAUDE_CODE_USE_BEDROCK": "1", "AWS_PROFILE": profile} for profile in ("one", "two")]
    accounts = [claude.account(one) for one in environments]
    assert len(set(accounts)) == 6
    assert claude.account({**keyed, "PATH": "/usr/bin", "HOME": "/tmp"}) == accounts[1]
    assert all(one.startswith("claude-") and len(one) == 15 for one in accounts)


REFUSED = "File is in a directory that is denied by your permission settings"


def test_an_edit_that_was_refused_is_a_warning_once_also_where_the_result_does_not_tell() -> None:
    block = {
        "type": "tool_result",
        "content": f"<tool_use_error>{REFUSED}.</tool_use_error>",
        "is_error": True,
        "tool_use_id": "t1",
    }
    assert _read({"type": "user", "message": {"role": "user", "content": [block]}}) == [Denied(REFUSED)]
    silent, telling = TurnEnded(True, "done"), TurnEnded(True, "done", denied=("Write /home/me/project/x",))
    for turn, warning in ((silent, REFUSED), (telling, "Write /home/me/project/x")):
        concluded = claude.conclude(AttemptEnd(Outcome("exited", 0), turn, "", "", (REFUSED,)))
        assert concluded.warnings == (f"Permission denied: {warning}",)


@pytest.mark.parametrize("change", [{"is_error": True}, {"subtype": "error_max_turns", "result": ""}])
def test_a_result_that_is_an_error_is_no_success(change: dict[str, object]) -> None:
    (ended,) = _read({**RESULT, **change})
    assert isinstance(ended, TurnEnded)
    assert ended.ok is False
    assert ended.output


@given(
    st.binary() | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(repr).map(str.encode)
)
def test_no_line_makes_it_raise(line: bytes) -> None:
    assert all(isinstance(event, Unreadable) for event in claude.read(line))


@given(
    st.dictionaries(
        st.sampled_from(["type", "subtype", "message", "result", "usage"]), st.none() | st.text() | st.integers()
    )
)
def test_no_strange_message_makes_it_raise(message: dict[str, object]) -> None:
    claude.read(json.dumps(message).encode())


GOOD = TurnEnded(True, "done", 0.5)


def test_only_a_good_turn_and_exit_0_together_are_a_success() -> None:
    assert claude.conclude(AttemptEnd(Outcome("exited", 0), GOOD, "", "")).ok
    for outcome, turn in (
        (Outcome("exited", 0), None),
        (Outcome("exited", 1), GOOD),
        (Outcome("signalled", 9), GOOD),
        (Outcome("exited", 0), TurnEnded(False, "API Error: 400")),
    ):
        concluded = claude.conclude(AttemptEnd(outcome, turn, "", "last words"))
        assert not concluded.ok
        assert concluded.error


def test_what_was_denied_is_a_warning() -> None:
    turn = TurnEnded(True, "done", denied=("Bash git stash",))
    assert claude.conclude(AttemptEnd(Outcome("exited", 0), turn, "", "")).warnings == (
        "Permission denied: Bash git stash",
    )


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_turn_s_end_is_read_from_the_beginning_of_its_line_wherever_that_is_cut(cut: int) -> None:
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
def test_nothing_else_is_made_of_the_beginning_of_a_line(line: bytes) -> None:
    assert claude.read_beginning(line) == ()
