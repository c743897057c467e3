"""Every MCP version since 2024-11-05, through the real relay and daemon."""

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from forkjoin.core.paths import Home
from forkjoin_tools.mcp_server import TOOLS
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from support.harness import INITIALIZE, INITIALIZED, RELAY, RawRelay
from support.modern_client import Modern


def test_all_known_protocol_versions_are_tested() -> None:
    assert set(HANDSHAKE_PROTOCOL_VERSIONS) == {"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"}
    assert set(MODERN_PROTOCOL_VERSIONS) == {"2026-07-28"}


@pytest.mark.parametrize("version", HANDSHAKE_PROTOCOL_VERSIONS)
def test_versions_with_a_handshake_are_supported(repository: Path, home: Home, version: str) -> None:
    parameters: Any = INITIALIZE["params"]
    with RawRelay(repository) as relay:
        relay.send({**INITIALIZE, "params": {**parameters, "protocolVersion": version}})
        begun = relay.answer()["result"]
        assert (begun["protocolVersion"], begun["serverInfo"]["name"]) == (version, "forkjoin")
        relay.send(INITIALIZED, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert [tool["name"] for tool in relay.answer()["result"]["tools"]] == list(TOOLS)
        status = relay.call(2, "get_status")["result"]
        assert not status.get("isError")
        assert '"running":0' in status["content"][0]["text"]


def test_the_version_without_a_handshake_is_supported(repository: Path, home: Home) -> None:
    with Modern(repository) as client:
        discovered = client.request("server/discover")
        assert "2026-07-28" in discovered["supportedVersions"]
        assert [tool["name"] for tool in client.request("tools/list")["tools"]] == list(TOOLS)
        assert client.tool("get_status")["structuredContent"]["running"] == 0


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_the_sdks_client_works_with_and_without_a_handshake(
    repository: Path, home: Home, mode: Literal["legacy", "auto", "2026-07-28"]
) -> None:
    variables = {**os.environ, "CLAUDE_PROJECT_DIR": str(repository)}
    server = StdioServerParameters(command=RELAY[0], args=list(RELAY[1:]), env=variables, cwd=str(repository))
    async with Client(stdio_client(server), mode=mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == list(TOOLS)
        status = (await client.call_tool("get_status", {})).structured_content
        assert status
        assert status["running"] == 0
