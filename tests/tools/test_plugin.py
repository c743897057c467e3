"""The Claude Code plugin has the texts of the server."""

import json
from pathlib import Path

import pytest
from forkjoin.version import __version__
from forkjoin_tools.mcp_prompts import PROMPTS
from mcp.server.mcpserver.prompts import Prompt

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugin"


def test_plugin_and_marketplace_have_forkjoins_version() -> None:
    assert json.loads((PLUGIN / ".claude-plugin" / "plugin.json").read_text())["version"] == __version__
    (listed,) = json.loads((ROOT / ".claude-plugin" / "marketplace.json").read_text())["plugins"]
    assert (ROOT / listed["source"]).resolve() == PLUGIN


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)
def test_the_plugins_commands_are_the_prompts_with_the_typed_arguments(prompt: Prompt) -> None:
    text = prompt.fn("$ARGUMENTS")
    command = PLUGIN / "commands" / f"{prompt.name.replace('_', '-')}.md"
    assert command.read_text() == f"---\ndescription: {prompt.description}\n---\n\n{text}\n"
