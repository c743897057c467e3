"""The definitions of tools that a model reads: their size and content."""

import json
from collections.abc import Iterable

import pytest
from forkjoin.core.agent_spec import Spec
from forkjoin_tools.mcp_server import AGENT_TOOLS, INSTRUCTIONS, TOOLS
from forkjoin_tools.tool_definition import ForkjoinTool

READERS = {
    *("list_agents", "wait_agents", "get_result", "read_log", "read_diff", "get_status", "check_conflicts"),
    "list_requests",
}
#: Fields that a spec accepts and that only the guide describes.
HIDDEN = {"sparse"}
ALWAYS_LOADED = {"spawn_agents", "wait_agents", "merge_worktree"}
NAMES = READERS | {
    *("spawn_agent", "spawn_agents", "merge_worktree", "undo_merge", "stop_agents", "remove_worktrees"),
    *("set_budget", "message_agent", "answer_request"),
}


#: Bytes of all definitions, of the definitions and instructions that a model always has, and of an agent's definitions.
ALL_BYTES, ALWAYS_LOADED_BYTES, AGENT_BYTES = 11_000, 4_000, 2_000


def _size(tools: Iterable[ForkjoinTool]) -> int:
    """Return the bytes of the definitions as JSON without spaces, as models get them."""
    definitions = [{"name": t.name, "description": t.description, "input_schema": t.parameters} for t in tools]
    return sum(
        len(json.dumps(definition, separators=(",", ":"), ensure_ascii=False).encode()) for definition in definitions
    )


def test_the_tools_are_those_of_the_contract() -> None:
    assert {tool.name for tool in TOOLS.values()} == NAMES


def test_all_definitions_together_are_small() -> None:
    assert _size(TOOLS.values()) <= ALL_BYTES


def test_the_definitions_of_an_agents_tools_are_small() -> None:
    assert _size(AGENT_TOOLS.values()) <= AGENT_BYTES


def test_the_always_loaded_definitions_and_the_instructions_are_small() -> None:
    always = [tool for tool in TOOLS.values() if (tool.meta or {}).get("anthropic/alwaysLoad")]
    assert {tool.name for tool in always} == ALWAYS_LOADED
    assert _size(always) + len(INSTRUCTIONS.encode()) <= ALWAYS_LOADED_BYTES


def test_only_true_readers_say_that_they_read_only() -> None:
    assert {tool.name for tool in TOOLS.values() if tool.annotations and tool.annotations.read_only_hint} == READERS


@pytest.mark.parametrize("tool", TOOLS.values(), ids=lambda tool: tool.name)
def test_a_tool_describes_itself_and_its_result(tool: ForkjoinTool) -> None:
    assert tool.description.endswith(".")
    text = tool.name in {"read_log", "read_diff"}
    assert (tool.output_schema is None) == text


@pytest.mark.parametrize("tool", TOOLS.values(), ids=lambda tool: tool.name)
def test_a_schema_excludes_unknown_arguments_if_it_lists_all_known_ones(tool: ForkjoinTool) -> None:
    lists_all = tool.parameters["properties"].keys() == tool.fn_metadata.arg_model.model_fields.keys() - HIDDEN
    assert lists_all == (tool.name != "spawn_agents")
    assert tool.parameters.get("additionalProperties", True) != lists_all


def test_spawn_agent_lists_every_field_that_spawn_agents_accepts_and_each_is_described_once() -> None:
    common = TOOLS["spawn_agents"].parameters["properties"]["agents"]["items"]["properties"]
    all_ = TOOLS["spawn_agent"].parameters["properties"]
    assert all_.keys() == Spec.model_fields.keys() - HIDDEN
    assert {name for name, field in all_.items() if "description" not in field} == common.keys()
    assert all("description" in field for field in common.values())
    assert "spawn_agent lists" in TOOLS["spawn_agents"].description
