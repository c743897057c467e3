"""MCP's conformance suite and inspector against forkjoin's tools, over HTTP on loopback.

The suite expects a server to offer certain example tools. This module adds the examples that the checks of tasks call,
because in forkjoin any tool can run as a task. The other checks that forkjoin can't pass are listed with the reason.
Each listed check must fail, so that the list stays complete and minimal.
"""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from forkjoin.core.error import CallerError
from forkjoin.core.paths import Home
from forkjoin_tools import mcp_server, mcp_tasks
from forkjoin_tools.mcp_prompts import PROMPTS
from forkjoin_tools.tool_call import ToolCall
from forkjoin_tools.tool_definition import Arguments, tool
from support import vendor_programs
from support.harness import open_reconciler_in_memory
from support.http_tools import serve_http

pytestmark = [pytest.mark.vendor, pytest.mark.xdist_group("conformance")]

#: The checks that forkjoin can't pass, by reason.
EXPECTED_FAILURES = {
    "the check calls an example tool, prompt or resource of the suite, which forkjoin does not offer": (
        "tools-call-image tools-call-audio tools-call-embedded-resource tools-call-mixed-content "
        "tools-call-with-progress json-schema-2020-12-tool-found "
        "resources-read-text resources-read-binary resources-templates-read "
        "prompts-get-simple prompts-get-with-args prompts-get-embedded-resource prompts-get-with-image "
        "incoming-sse-event server-sse-priming-event server-sse-retry-field"
    ),
    "forkjoin never asks its client for sampling, elicitation or roots": (
        "tools-call-sampling tools-call-elicitation elicitation-sep1034-general elicitation-sep1330-general "
        "sep-2322-elicitation-incomplete sep-2322-list-roots-incomplete sep-2322-sampling-incomplete "
        "sep-2322-respect-client-capabilities sep-2322-missing-response-rerequests sep-2322-multi-round-r1 "
        "sep-2322-multiple-inputs-incomplete sep-2322-non-tool-incomplete sep-2322-request-state-incomplete "
        "sep-2322-result-type-included sep-2322-reject-tampered-state sep-2322-error-on-protocol-error "
        "sep-2575-server-rejects-undeclared-capability sep-2575-missing-capability-http-400 "
        "sep-2663-mrtr-synchronous-before-task-creation sep-2663-tasks-get-status-input-required "
        "tasks-mrtr-tasks-update-resumes tasks-mrtr-partial-fulfillment"
    ),
    "forkjoin offers no completion, no logging to the client and no subscriptions to resources": (
        "completion-complete logging-set-level tools-call-with-logging resources-subscribe resources-unsubscribe"
    ),
    "no argument of a tool is taken from a header": (
        "sep-2243-server-no-xmcp-tool sep-2243-server-decode-base64 sep-2243-server-validate-param-match "
        "sep-2243-server-reject-invalid-param-chars sep-2243-server-reject-param-mismatch"
    ),
    "every call works without a task, and then blocks": "sep-2663-server-returns-missing-capability-when-required",
    "no tool answers with a JSON-RPC error": "sep-2663-tasks-get-status-failed",
    "the header exists only in HTTP, which forkjoin itself does not use": (
        "sep-2663-server-rejects-mismatched-mcp-name-on-tasks-get"
    ),
}


class Greet(Arguments):
    name: str


class Slow(Arguments):
    seconds: float
    label: str = ""


class Nothing(Arguments):
    """No arguments."""


@tool(reads_only=True)
async def greet(call: ToolCall, arguments: Greet) -> str:
    """Greet."""
    return f"Hello, {arguments.name}!"


@tool(reads_only=True)
async def slow_compute(call: ToolCall, arguments: Slow) -> str:
    """Take some seconds."""

    async def ask(left_s: float) -> None:
        await anyio.sleep(left_s)

    async def how_far() -> str:
        return "computing"

    await call.reply_wait.wait([], ask, how_far, arguments.seconds)
    return f"{arguments.label} took {arguments.seconds} s"


@tool(reads_only=True)
async def failing_job(call: ToolCall, arguments: Nothing) -> str:
    """Fail after some seconds."""
    await slow_compute.fn(
        call, Slow(seconds=2)
    )  # long enough for the suite to ask for the status, even on a busy machine
    raise CallerError("it failed")


@pytest.fixture
async def url(repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The URL of a server with a lead's tools and the example tools."""
    examples = {one.name: one for one in (greet, slow_compute, failing_job)}
    monkeypatch.setattr(mcp_server._LeadServer, "offered", mcp_server.TOOLS | examples)
    monkeypatch.setattr(
        mcp_tasks, "_TOOLS", mcp_tasks._TOOLS | {one: examples[one] for one in ("slow_compute", "failing_job")}
    )
    async with open_reconciler_in_memory(home) as reconciler, serve_http(reconciler, repository) as found:
        yield found


async def _run(name: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    if reason := vendor_programs.skip_reason():
        pytest.skip(reason)
    argv = [str(await anyio.to_thread.run_sync(vendor_programs.program, name)), *arguments]
    variables = {**os.environ, "PATH": await anyio.to_thread.run_sync(vendor_programs.search_path, name)}
    return await anyio.run_process(argv, env=variables, check=False)


async def test_the_conformance_suite_passes_except_for_the_expected_failures(url: str, tmp_path: Path) -> None:
    done = await _run("conformance", "server", "--url", url, "--suite", "all", "-o", str(tmp_path / "report"))
    checks = [check for file in (tmp_path / "report").glob("*/checks.json") for check in json.loads(file.read_text())]
    good = {check["id"] for check in checks if check["status"] == "SUCCESS"}
    bad = {check["id"]: check.get("errorMessage") for check in checks if check["status"] in ("FAILURE", "WARNING")}
    expected = {check for checks in EXPECTED_FAILURES.values() for check in checks.split()}
    assert {check: why for check, why in bad.items() if check not in expected} == {}
    assert expected - bad.keys() == set(), "these checks pass and must leave the list"
    assert len(good) > 80, done.stdout.decode()[-2_000:]


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_inspector_lists_and_calls_tools_and_reads_a_resource(url: str, era: str) -> None:
    async def inspect(method: str, *arguments: str) -> Any:
        done = await _run("inspector", "--cli", url, "--protocol-era", era, "--method", method, *arguments)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    listed = await inspect("tools/list", "--strict")
    assert {one["name"] for one in listed["tools"]} > mcp_server.TOOLS.keys()
    status = await inspect("tools/call", "--tool-name", "get_status")
    assert status["structuredContent"]["running"] == 0
    assert {one["name"] for one in (await inspect("prompts/list"))["prompts"]} == {one.name for one in PROMPTS}
    (read,) = (await inspect("resources/read", "--uri", "forkjoin://status"))["contents"]
    assert json.loads(read["text"]) == status["structuredContent"]
