"""What a model is given: the definitions of the tools, their size, and what they say of themselves."""

import json
from collections.abc import Iterable

import pytest
from forkjoin_tools.mcp_server import AGENT_TOOLS, INSTRUCTIONS, TOOLS
from forkjoin_tools.tool_definition import StrictTool

READERS = {
    *("list_agents", "wait_agents", "get_result", "read_log", "read_diff", "get_status", "check_conflicts"),
    "list_requests",
}
ALWAYS_LOADED = {"spawn_agents", "wait_agents", "merge_worktree"}
NAMES = READERS | {
    *("spawn_agent", "spawn_agents", "merge_worktree", "undo_merge", "stop_agents", "remove_worktrees"),
    *("set_budget", "message_agent", "answer_request"),
}


def _size(tools: Iterable[StrictTool]) -> int:
    """Bytes of the definitions as a client sends them to a model: JSON without spaces."""
    told = [{"name": t.name, "description": t.description, "input_schema": t.parameters} for t in tools]
    return sum(len(json.dumps(one, separators=(",", ":"), ensure_ascii=False).encode()) for one in told)


def test_the_tools_are_those_of_the_contract() -> None:
    assert {tool.name for tool in TOOLS.values()} == NAMES


def test_all_definitions_together_stay_under_12_kilobytes() -> None:
    assert _size(TOOLS.values()) < 12_000


def test_what_each_agent_is_given_stays_under_2_kilobytes() -> None:
    assert _size(AGENT_TOOLS.values()) < 2_000


def test_the_definitions_that_are_always_loaded_stay_under_6_kilobytes() -> None:
    always = [tool for tool in TOOLS.values() if (tool.meta or {}).get("anthropic/alwaysLoad")]
    assert {tool.name for tool in always} == ALWAYS_LOADED
    assert _size(always) < 6_000


def test_the_instructions_are_not_cut_by_the_client() -> None:
    assert len(INSTRUCTIONS) < 4_096


def test_only_true_readers_say_that_they_read_only() -> None:
    assert {tool.name for tool in TOOLS.values() if tool.annotations and tool.annotations.read_only_hint} == READERS


@pytest.mark.parametrize("tool", TOOLS.values(), ids=lambda tool: tool.name)
def test_a_tool_refuses_unknown_arguments_in_its_schema_and_describes_itself(tool: StrictTool) -> None:
    assert tool.parameters["additionalProperties"] is False
    assert tool.description.endswith(".")
    text = tool.name in {"read_log", "read_diff"}
    assert (tool.output_schema is None) == text
