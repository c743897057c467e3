"""The real claude as an agent that spawns agents, within and beyond its grant."""

import json
from pathlib import Path
from typing import Any

import pytest
from e2e.test_claude import bash, of_forkjoin, write
from forkjoin.core.paths import Home
from forkjoin_tools.mcp_server import PARENT_TOOLS
from support import vendor_programs
from support.daemon_in_process import open_lead_in_process
from support.fakes.messages_api import MessagesApi
from support.fakes.script import Text, by_prompt, in_turn
from support.harness import git

pytestmark = pytest.mark.vendor


def spawn(name: str, **given: Any) -> Any:
    return of_forkjoin("spawn_agents", agents=[{"name": name, "task": f"Do {name}.", **given}])


@vendor_programs.for_each_claude
async def test_claude_can_spawn_only_within_its_grant_and_merges_into_its_own_branch(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    home.config_file.write_text(home.config_file.read_text().replace("max_running = 4", "max_running = 1"))
    parent = in_turn(
        [write("ours.txt", "ours\n"), bash("git add . && git commit -qm ours")],
        [spawn("part", nesting={"agents": 1})],
        [spawn("part")],
        [spawn("more")],
        [of_forkjoin("wait_agents")],
        [of_forkjoin("read_findings")],
        [of_forkjoin("merge_worktree", ids=["part"])],
        [Text("It is merged.")],
    )
    part = in_turn(
        [of_forkjoin("share_finding", text="ours.txt is short.")],
        [bash("cat ours.txt > part.txt && git add . && git commit -qm part")],
        [Text("The part is done.")],
    )
    api.script = by_prompt({"Do it all.": parent, "Do part.": part})
    async with open_lead_in_process(home, repository) as lead:
        (one,) = await lead.spawn("Do it all.", nesting={"agents": 1})
        (result,) = await lead.results(one)
        listed = (await lead.call("list_agents"))["agents"]
    assert (result["state"], result["output"], result["warnings"]) == ("succeeded", "It is merged.", [])
    of_parent = [asked for asked in api.asked if "Do it all." in asked.prompt]
    ours = {tool for tool in of_parent[0].tools if tool.startswith("mcp__")}
    granted = PARENT_TOOLS.keys() - {"approve"}  # this agent needs no permissions
    begins_with = {"spawn_agents", "wait_agents", "merge_worktree", "report_progress", "share_finding", "read_findings"}
    # in the newest version, the other tools must be found by a search
    assert ours in [{f"mcp__forkjoin__{tool}" for tool in tools} for tools in (granted, begins_with)]
    _, _, deep, spawned, beyond, waited, found, merged = of_parent[-1].results
    assert [one.is_error for one in (deep, spawned, beyond)] == [True, False, True]
    assert "granted depth 1, so its agents can have no nesting" in deep.text
    assert "was granted 1 agents of its own" in beyond.text
    assert json.loads(waited.text)["finished"][0]["summary"] == "The part is done."
    assert found.text.endswith("a2 (part): ours.txt is short.")
    assert [one["id"] for one in json.loads(merged.text)["merged"]] == ["a2"]
    assert git(repository, "show", f"{result['branch']}:part.txt") == "ours"
    assert "part" in {commit.partition(" ")[2] for commit in result["commits"]}
    assert [(one["id"], one.get("parent")) for one in listed] == [("a2", "a1"), ("a1", None)]
