"""The real claude, as lead and as agents, against a scripted API."""

import json
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
from fakes.messages_api import MessagesApi, Script, Text, ToolUse, by_prompt, in_turn
from harness import GIVE_UP_S, RELAY, git, open_lead

pytestmark = pytest.mark.vendor

MCP_SERVERS = {"mcpServers": {"forkjoin": {"command": RELAY[0], "args": RELAY[1:]}}}

NAMES = ("one", "two", "three")


async def ask_claude(repository: Path, prompt: str, *options: str) -> dict[str, Any]:
    """What a lead's claude says at its end, in the repository and with forkjoin as its user registered it."""
    command = ["claude", "-p", prompt, "--output-format", "json", "--allowedTools", "mcp__forkjoin", *options]
    with anyio.fail_after(GIVE_UP_S):
        done = await anyio.run_process(command, cwd=repository, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def forkjoin_tool(name: str, **given: Any) -> ToolUse:
    return ToolUse(f"mcp__forkjoin__{name}", given)


def task(name: str) -> str:
    return f"Write {name}.txt and commit it."


def writes(name: str) -> Script:
    """An agent that does the task of this name."""
    return in_turn(
        [Text(f"I will write {name}.txt."), ToolUse("Write", {"file_path": f"{name}.txt", "content": f"{name}\n"})],
        [ToolUse("Bash", {"command": f"git add {name}.txt && git commit -qm 'Add {name}'", "description": "commit"})],
        [Text(f"{name}.txt is committed.")],
    )


async def test_claude_forks_work_out_to_claudes_and_joins_it(api: MessagesApi, repository: Path) -> None:
    lead = in_turn(
        [forkjoin_tool("spawn_agents", agents=[{"name": name, "task": task(name)} for name in NAMES])],
        [forkjoin_tool("wait_agents")],
        [forkjoin_tool("get_result", id="one"), forkjoin_tool("read_diff", id="two")],
        [forkjoin_tool("merge_worktree", ids=NAMES)],
        [Text("All three are merged.")],
    )
    api.script = by_prompt({"Fork this out.": lead, **{task(name): writes(name) for name in NAMES}})
    said = await ask_claude(
        repository, "Fork this out.", "--mcp-config", json.dumps(MCP_SERVERS), "--strict-mcp-config"
    )
    for a in api.asked:
        print(a.prompt[-1][:100], a.answers, [r.text[:1000] for r in a.results], [t for t in a.tools if "fork" in t])
    print(api.others)
    assert said["result"] == "All three are merged."
    async with open_lead(repository, "session-2") as other:
        print(await other.call("list_agents"))
        print(await other.call("read_log", id="one"))
        print((await other.call("get_result", id="one")))
        print((await other.call("read_log", id="one", raw=True))[:3000])


async def test_f(api: MessagesApi, repository: Path, user: Path) -> None:
    (user / ".claude.json").write_text(json.dumps(MCP_SERVERS))
    api.script = by_prompt({"Lead": in_turn([Text("ok")]), **{task(n): writes(n) for n in NAMES}})
    await ask_claude(repository, "Lead")
    async with open_lead(repository) as lead:
        ids = await lead.run(task("one"))
        print((await lead.call("read_log", id=ids[0], raw=True))[:1500])
        print((await lead.call("get_result", id=ids[0])))
    for a in api.asked:
        print(a.tools)
        print([t for t in a.prompt if "forkjoin" in t])
    print(api.others)
    assert 0
