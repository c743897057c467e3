"""forkjoin's plugin, installed into the real claude from this source tree."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.test_claude import ask_claude
from forkjoin.core.paths import Home
from support import vendor_programs
from support.fakes.messages_api import MessagesApi
from support.fakes.script import Text, in_turn
from support.harness import forkjoin

pytestmark = pytest.mark.vendor

ROOT = Path(__file__).parents[2]


@vendor_programs.for_each_claude
async def test_claude_has_the_plugins_tools_commands_skill_and_hook(
    api: MessagesApi, home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.config_file.write_text(f'{home.config_file.read_text()}[agents.sh]\nkind = "command"\ncommand = ["sh"]\n')
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (line,) = (line for line in (ROOT / "README.md").read_text().splitlines() if "plugin marketplace add" in line)
    subprocess.run(["sh", "-c", line], cwd=ROOT, check=True, capture_output=True)
    api.script = in_turn([Text("I see.")])
    forkjoin(repository, "spawn", "Do nothing.", "--name", "of-claude")
    forkjoin(repository, "wait")
    of_forkjoin = [tool for tool in api.asked.pop().tools if "forkjoin" in tool]
    assert of_forkjoin, "the agent has no tools of forkjoin"
    assert not [tool for tool in of_forkjoin if "plugin" in tool], "the agent has the plugin's tools, too"
    forkjoin(repository, "rm", "of-claude")
    forkjoin(repository, "spawn", "echo x > x.txt", "--name", "one", "--agent", "sh")
    forkjoin(repository, "wait")
    output = await ask_claude(
        repository, "/forkjoin:fan-out port the tests to pytest", "--output-format", "stream-json", "--verbose"
    )
    began = next(line for line in map(json.loads, output.splitlines()) if line.get("subtype") == "init")
    assert "forkjoin" in [one["name"] for one in began["plugins"]]
    assert {f"forkjoin:{one}" for one in ("fan-out", "merge-all", "bake-off")} <= set(began["slash_commands"])
    assert "forkjoin:fan-out" in began["skills"]
    assert "mcp__plugin_forkjoin_forkjoin__spawn_agents" in began["tools"]
    prompt = "\n".join(api.asked[0].prompt)
    assert "a2 one: succeeded, unmerged; echo x > x.txt" in prompt  # printed by the hook
    assert "Fork this work out to forkjoin agents: port the tests to pytest\n" in prompt
