"""Prompts and resources."""

import json
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent, TextResourceContents
from support.harness import open_lead_in_memory

PROMPTS = {"fan_out": "goal", "review_results": "agents", "merge_all": "agents", "second_opinion": "question"}


async def test_prompts_are_listed_and_contain_their_arguments(home: Home, repository: Path) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        listed = (await lead.client.list_prompts()).prompts
        assert {prompt.name: (prompt.arguments or [])[0].name for prompt in listed} == {**PROMPTS, "bake_off": "task"}
        assert all(prompt.description for prompt in listed)
        for prompt in listed:
            (argument,) = prompt.arguments or []
            (message,) = (await lead.client.get_prompt(prompt.name, {argument.name: "a1, a2"})).messages
            assert isinstance(message.content, TextContent)
            assert "a1, a2" in message.content.text
        (message,) = (await lead.client.get_prompt("merge_all", {})).messages
        assert isinstance(message.content, TextContent)
        assert "If none are named: all in list_agents" in message.content.text


async def test_a_resource_has_the_content_of_its_tool(home: Home, repository: Path) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        (agent,) = await lead.run("echo x > x.txt; echo done")

        async def read(address: str) -> str:
            (contents,) = (await lead.client.read_resource(address)).contents
            assert isinstance(contents, TextResourceContents)
            return contents.text

        assert json.loads(await read(f"forkjoin://agents/{agent}/result"))["output"] == "done\n"
        assert await read(f"forkjoin://agents/{agent}/diff") == await lead.call("read_diff", id=agent)
        assert await read(f"forkjoin://agents/{agent}/log") == await lead.call("read_log", id=agent)
        assert json.loads(await read("forkjoin://status"))["running"] == 0
        assert [resource.uri for resource in (await lead.client.list_resources()).resources] == ["forkjoin://status"]
        templates = (await lead.client.list_resource_templates()).resource_templates
        assert [template.uri_template for template in templates] == [
            f"forkjoin://agents/{{id}}/{kind}" for kind in ("result", "log", "diff")
        ]


async def test_a_resource_that_is_too_large_is_refused_instead_of_cut(
    home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        monkeypatch.setattr(
            "forkjoin_tools.tool_definition.REPLY_BYTES", 100
        )  # too small for the text and its structured copy
        (contents,) = (await lead.client.read_resource("forkjoin://status")).contents
        assert isinstance(contents, TextResourceContents)
        assert json.loads(contents.text)["running"] == 0
        monkeypatch.setattr("forkjoin_tools.mcp_server.REPLY_BYTES", 100)
        with pytest.raises(MCPError, match=r"is too large\. Call get_status instead"):
            await lead.client.read_resource("forkjoin://status")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("forkjoin://agents/a9/result", "No agent"),
        ("forkjoin://agents/a1/secret", "There is no resource"),
        ("file:///etc/passwd", "There is no resource"),
    ],
)
async def test_an_unknown_resource_is_refused_with_the_known_ones(
    home: Home, repository: Path, address: str, words: str
) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        with pytest.raises(MCPError, match=words):
            await lead.client.read_resource(address)
