"""The parser of Claude Code's output, tested with lines that Claude Code printed."""

import json
from dataclasses import replace
from itertools import product

import pytest
from forkjoin.adapters import claude_output
from forkjoin.core.event import Noted, RateLimited, Said, Spent, Started, TurnEnded, Unreadable, UsedTool
from forkjoin.core.result import Usage
from hypothesis import given, settings
from hypothesis import strategies as st

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


USED = {"input_tokens": 100, "output_tokens": 1, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 5}
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


def read_events(message: object) -> list[object]:
    return list(claude_output.read(json.dumps(message).encode()))


@pytest.mark.parametrize("given", [[None], "x", 5, None])
def test_the_arguments_of_a_denied_tool_call_need_not_be_an_object(given: object) -> None:
    denials = [{"tool_name": "Bash", "tool_input": given}]
    (end,) = read_events({**RESULT, "permission_denials": denials})
    assert isinstance(end, TurnEnded)
    assert end.denied == (f"Bash {json.dumps(given or {})}",)


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
    assert read_events({"type": "assistant", "message": message}) == [spent]
    began: dict[str, object] = {"type": "stream_event", "event": {"type": "message_start", "message": message}}
    assert read_events(began) == [replace(spent, begins=True)]
    assert read_events(began | {"parent_tool_use_id": "a subagent's"}) == [spent]


@pytest.mark.parametrize("count", [-5, 10**320, True, "5", 1.5, None])
def test_an_impossible_count_of_tokens_counts_as_0(count: object) -> None:
    delta = {"type": "message_delta", "usage": {"output_tokens": count}}
    assert read_events({"type": "stream_event", "uuid": "u", "event": delta}) == [Spent("u", Usage())]


@pytest.mark.parametrize("cost", [-1, 1e308])
def test_an_impossible_cost_is_ignored(cost: float) -> None:
    (ended,) = read_events(RESULT | {"total_cost_usd": cost, "uuid": None})
    assert isinstance(ended, TurnEnded)
    assert ended.cost_usd is None


def test_the_output_tokens_of_a_call_are_counted_at_its_end() -> None:
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 500}}
    assert read_events({"type": "stream_event", "uuid": "u1", "event": delta}) == [
        Spent("u1", Usage(output_tokens=500))
    ]
    stop = {"type": "stream_event", "uuid": "u2", "event": {"type": "content_block_stop", "index": 0}}
    assert read_events(stop) == []


def test_a_message_that_claude_writes_without_a_model_call_has_no_tokens() -> None:
    message: dict[str, object] = {
        "id": "x",
        "model": "<synthetic>",
        "content": [{"type": "text", "text": "No"}],
        "usage": USED,
    }
    assert read_events({"type": "assistant", "message": message}) == [Said("No")]


def test_the_init_line_contains_the_conversation_and_the_model() -> None:
    assert read_events(INIT) == [Started("5d5e", "claude-sonnet-4-5")]


def test_texts_and_tool_calls_become_events() -> None:
    assert read_events(ANSWER) == [Said("I will commit."), UsedTool("Bash", "git commit -m x")]
    assert read_events(TOOL_RESULT) == []


def test_a_result_ends_the_turn_with_its_cost_usage_and_denied_tool_calls() -> None:
    assert read_events(RESULT) == [TurnEnded(True, "Done: committed.", 0.0123, Usage(10, 4, 7, 2), ("Bash git stash",))]


@pytest.mark.parametrize("cut", [b"\\ud83d", b"\\ude42 \\ud83d", b"\xff"])
def test_a_result_that_was_cut_within_a_character_ends_the_turn(cut: bytes) -> None:
    """JavaScript prints an unpaired surrogate after a cut within a character."""
    line = json.dumps({**RESULT, "result": "Done \U0001f642: CUT"}).encode().replace(b"CUT", cut)
    (ended,) = claude_output.read(line)
    assert isinstance(ended, TurnEnded)
    assert ended.ok
    assert ended.output.startswith("Done \U0001f642: ")
    ended.output.encode()
    (begun,) = claude_output.read_beginning(line.partition(b'", "total_cost')[0] + b" and much more")
    assert isinstance(begun, TurnEnded)


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (529, RateLimited), (401, Noted)])
def test_a_retry_becomes_an_event_with_the_status_of_the_api(status: int, kind: type[RateLimited | Noted]) -> None:
    retry = {"type": "system", "subtype": "api_retry", "attempt": 2, "max_retries": 10, "error_status": status}
    assert read_events({**retry, "error": "e"}) == [kind(f"the API answered {status} (e); retry 2 of 10")]
    (timed,) = read_events({**retry, "error": "e", "retry_delay_ms": 3000})
    assert not isinstance(timed, RateLimited) or timed.wait_s == 3


def test_a_reached_usage_limit_becomes_an_event_with_the_time_of_its_reset() -> None:
    info = {"status": "rejected", "resetsAt": 1795725715, "rateLimitType": "five_hour", "isUsingOverage": False}
    limit = {"type": "rate_limit_event", "rate_limit_info": info, "uuid": "257c", "session_id": "3a4c"}
    assert read_events(limit) == [RateLimited("the usage limit is reached (five_hour)", until=1795725715)]
    assert read_events({**limit, "rate_limit_info": {**info, "status": "allowed"}}) == []
    (endless,) = claude_output.read(json.dumps(limit).replace("1795725715", "1e999").encode())
    assert isinstance(endless, RateLimited)
    assert endless.until is None


@settings(max_examples=30)
@given(
    st.binary() | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(repr).map(str.encode)
)
def test_no_line_makes_the_adapter_raise(line: bytes) -> None:
    assert all(isinstance(event, Unreadable) for event in claude_output.read(line))


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.sampled_from(["type", "subtype", "message", "result", "usage"]), st.none() | st.text() | st.integers()
    )
)
def test_no_json_object_makes_the_adapter_raise(message: dict[str, object]) -> None:
    claude_output.read(json.dumps(message).encode())


def test_the_end_of_a_turn_is_read_from_a_line_that_is_cut_anywhere() -> None:
    text = 'begin \U0001f642\U0001f642\U0001f642 " \\ \u00fc\n'
    for cut, ascii_only in product(range(1, 40), (True, False)):
        words = json.dumps(text, ensure_ascii=ascii_only)[:-1].encode()
        line = b'{"type": "result", "subtype": "success", "is_error": false, "result": ' + words
        (end,) = claude_output.read_beginning(line[: len(line) - min(cut, len(words) - 7)])
        assert isinstance(end, TurnEnded)
        assert end.ok
        assert text.startswith(end.output)
        assert end.output.startswith("begin")


@pytest.mark.parametrize(
    "line", [b"", b"x" * 100, b'{"type": "assistant", "message": {"content": "x', b'{"type": "res']
)
def test_no_other_event_is_read_from_a_cut_line(line: bytes) -> None:
    assert claude_output.read_beginning(line) == ()


@pytest.mark.parametrize("change", [{"is_error": True}, {"subtype": "error_max_turns", "result": ""}])
def test_a_result_with_an_error_is_no_success(change: dict[str, object]) -> None:
    (ended,) = read_events({**RESULT, **change})
    assert isinstance(ended, TurnEnded)
    assert ended.ok is False
    assert ended.output
