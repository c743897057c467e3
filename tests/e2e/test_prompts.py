"""forkjoin's prompts as slash commands of the real claude."""

import json
from pathlib import Path

import pytest
from e2e.test_claude import REGISTERED, ask_claude
from support.fakes.messages_api import MessagesApi
from support.fakes.script import Text, in_turn

pytestmark = pytest.mark.vendor


async def test_a_slash_command_with_an_argument_gives_the_model_the_prompts_text(
    api: MessagesApi, repository: Path
) -> None:
    api.script = in_turn([Text("I see.")])
    registered = ("--mcp-config", json.dumps(REGISTERED), "--strict-mcp-config")
    assert await ask_claude(repository, "/mcp__forkjoin__fan_out port the tests to pytest", *registered) == "I see."
    prompt = "\n".join(api.asked[0].prompt)
    assert "<command-args>port the tests to pytest</command-args>" in prompt
    assert "Fork this work out to forkjoin agents: port" in prompt
