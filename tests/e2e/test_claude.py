"""The real claude as lead and as agent, with a scripted API."""

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from forkjoin.core.paths import Home
from forkjoin.demo.sample_repository import TASKS
from forkjoin.demo.scripted_agent import FILES_BY_NAME
from forkjoin_tools.mcp_server import AGENT_TOOLS
from support import vendor_programs
from support.daemon_in_process import open_lead_in_process
from support.fakes.messages_api import USAGE, MessagesApi
from support.fakes.script import ApiError, Asked, Block, Script, Text, ToolUse, by_prompt, in_turn
from support.harness import (
    GIVE_UP_S,
    RELAY,
    forkjoin,
    git,
    open_lead,
    start_daemon,
)

pytestmark = pytest.mark.vendor

REGISTERED = {"mcpServers": {"forkjoin": {"command": RELAY[0], "args": RELAY[1:]}}}

NAMES = ("one", "two", "three")


async def ask_claude(repository: Path, prompt: str, *options: str) -> str:
    """Run claude as a lead in the repository, with forkjoin's tools allowed.

    Return its final text.
    """
    command = ["claude", "-p", prompt, "--allowedTools", "mcp__forkjoin", *options]
    await anyio.to_thread.run_sync(start_daemon, repository)
    with anyio.fail_after(GIVE_UP_S):
        done = await anyio.run_process(command, cwd=repository, stderr=subprocess.STDOUT, check=False)
    output = done.stdout.decode().strip()
    assert done.returncode == 0, output
    return output


def of_forkjoin(tool: str, **given: Any) -> ToolUse:
    return ToolUse(f"mcp__forkjoin__{tool}", given)


def bash(command: str) -> ToolUse:
    return ToolUse("Bash", {"command": command, "description": command})


def write(path: Path | str, content: str) -> ToolUse:
    return ToolUse("Write", {"file_path": str(path), "content": content})


def task(name: str) -> str:
    return f"Write {name}.txt and commit it."


def does_task(name: str) -> Script:
    return in_turn(
        [Text(f"I will write {name}.txt."), write(f"{name}.txt", f"{name}\n")],
        [bash(f"git add {name}.txt && git commit -qm 'Add {name}'")],
        [Text(f"{name}.txt is committed.")],
    )


# -- the lead


@vendor_programs.for_each_claude
async def test_claude_spawns_agents_that_run_claude_and_merges_their_work(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    lead = in_turn(
        [of_forkjoin("spawn_agents", agents=[{"name": name, "task": task(name)} for name in NAMES])],
        [of_forkjoin("wait_agents")],
        [of_forkjoin("get_result", id="one"), of_forkjoin("read_diff", id="two")],
        [of_forkjoin("merge_worktree", ids=NAMES)],
        [Text("All three are merged.")],
    )
    api.script = by_prompt({"Fork it out.": lead, **{task(name): does_task(name) for name in NAMES}})
    registered = ("--mcp-config", json.dumps(REGISTERED), "--strict-mcp-config")
    assert await ask_claude(repository, "Fork it out.", *registered) == "All three are merged."
    assert [result for asked in api.asked for result in asked.results if result.is_error] == []
    assert [(repository / f"{name}.txt").read_text() for name in NAMES] == ["one\n", "two\n", "three\n"]
    assert git(repository, "status", "--porcelain") == ""
    merged = git(repository, "branch", "--merged", "main", "--format=%(refname:short)").splitlines()
    assert merged == ["forkjoin/a1-one", "forkjoin/a2-two", "forkjoin/a3-three", "main"]
    async with open_lead(repository, "a later session") as later:
        listed = await later.call("list_agents")
    assert [(agent["name"], agent["state"], agent["merge"]) for agent in listed["agents"]] == [
        (name, "succeeded", "merged") for name in reversed(NAMES)
    ]


async def test_claude_reads_which_files_conflict_and_which_agent_fails_verify_and_undoes_the_merge(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    home.config_file.write_text(home.config_file.read_text() + '[agents.sh]\nkind = "command"\ncommand = ["sh"]\n')
    tasks = {"ours": "echo 1 > shared.txt", "theirs": "echo 2 > shared.txt", "bad": "echo > bad", "good": "echo > good"}
    api.script = in_turn(
        [of_forkjoin("spawn_agents", agent="sh", agents=[{"name": name, "task": tasks[name]} for name in tasks])],
        [of_forkjoin("wait_agents")],
        [of_forkjoin("check_conflicts", ids=list(tasks))],
        [of_forkjoin("merge_worktree", ids=list(tasks), verify="test ! -e bad || { echo it is bad; exit 1; }")],
        [bash("cat shared.txt; ls")],
        [of_forkjoin("undo_merge")],
        [Text("It is undone.")],
    )
    old = git(repository, "rev-parse", "main")
    registered = ("--mcp-config", json.dumps(REGISTERED), "--strict-mcp-config", "--allowedTools", "mcp__forkjoin,Bash")
    assert await ask_claude(repository, "Join it.", *registered) == "It is undone."
    _, _, conflicts, merged, listed, undone = api.asked[-1].results
    assert not any(result.is_error for result in api.asked[-1].results)
    assert "shared.txt" in conflicts.text
    answer = json.loads(merged.text)
    assert [one["id"] for one in answer["merged"]] == ["a1", "a4"]
    assert [(one["id"], one["files"]) for one in answer["conflicted"]] == [("a2", ["shared.txt"])]
    ((who, why),) = ((one["id"], one["why"]) for one in answer["rejected"])
    assert (who, why.splitlines()) == ("a3", ["verify: exit 1", "it is bad"])
    assert listed.text.split() == ["1", "README.md", "good", "shared.txt"]
    assert json.loads(undone.text)["undone"] == ["a1", "a4"]
    assert git(repository, "rev-parse", "main") == old
    assert git(repository, "status", "--porcelain") == ""


async def test_a_lead_with_tool_search_sees_the_tools_that_it_needs_first(
    api: MessagesApi, repository: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user / ".claude.json").write_text(json.dumps(REGISTERED))
    monkeypatch.setenv("ENABLE_TOOL_SEARCH", "true")
    api.script = in_turn([Text("I see.")])
    await ask_claude(repository, "What have you?")
    assert "ToolSearch" in api.asked[0].tools
    assert {tool for tool in api.asked[0].tools if tool.startswith("mcp__")} == {
        f"mcp__forkjoin__{tool}" for tool in ("spawn_agents", "wait_agents", "merge_worktree")
    }


# -- results and logs


async def test_an_agents_result_log_and_prompt_show_its_work_its_cost_and_its_identity(
    api: MessagesApi, repository: Path, home: Home, user: Path
) -> None:
    (user / ".claude.json").write_text(json.dumps(REGISTERED))
    api.script = does_task("one")
    async with open_lead_in_process(home, repository) as lead:
        await lead.call("spawn_agent", name="worker", task=task("one"), model="claude-haiku-4-5")
        (ended,) = (await lead.call("wait_agents"))["finished"]
        result = await lead.call("get_result", id="a1")
        log = await lead.call("read_log", id="a1")
    answers = len(api.asked)
    assert answers == 3
    assert ended["summary"] == "one.txt is committed."
    assert (result["state"], result["output"], result["warnings"]) == ("succeeded", "one.txt is committed.", [])
    assert result["usage"] == {
        "input_tokens": answers * USAGE["input_tokens"],
        "output_tokens": answers * USAGE["output_tokens"],
        "cache_read_tokens": answers * USAGE["cache_read_input_tokens"],
        "cache_write_tokens": 0,
    }
    assert result["cost_usd"] > 0
    events = [line.partition(" ")[2] for line in log.splitlines()]
    relevant = [event for event in events if event.startswith(("said", "used", "turn_ended"))]
    assert relevant == [
        "said: I will write one.txt.",
        "used: Write one.txt",
        "used: Bash git add one.txt && git commit -qm 'Add one'",
        "said: one.txt is committed.",
        "turn_ended: one.txt is committed.",
    ]
    assert api.asked[0].model == "claude-haiku-4-5"
    assert "You are agent a1 (worker)" in api.asked[0].system
    assert "on branch forkjoin/a1-worker" in api.asked[0].system
    assert not (user / ".local" / "state" / "forkjoin").exists(), "the agent's relay started a daemon in another home"


# -- an agent's tools


@pytest.mark.parametrize("registered", [pytest.param({}, marks=pytest.mark.soak), REGISTERED])
async def test_an_agent_has_only_an_agents_tools_and_each_once_even_if_the_user_has_registered_forkjoin(
    api: MessagesApi,
    repository: Path,
    home: Home,
    user: Path,
    monkeypatch: pytest.MonkeyPatch,
    registered: dict[str, Any],
) -> None:
    (user / ".claude.json").write_text(json.dumps(registered))
    reports = in_turn([of_forkjoin("report_progress", text="I have begun.")], [Text("Done.")])
    api.script = by_prompt({"What have you?": in_turn([Text("Tools.")]), task("one"): reports})
    async with open_lead_in_process(home, repository):  # starts the daemon first, because claude waits at most 5 s
        await ask_claude(repository, "What have you?")
    monkeypatch.delenv("MCP_CONNECTION_NONBLOCKING")
    async with open_lead_in_process(home, repository) as lead:
        [id_] = await lead.run(task("one"))
        assert "reported: I have begun." in await lead.call("read_log", id=id_)
    of_lead, *of_agent = api.asked
    assert ("mcp__forkjoin__spawn_agents" in of_lead.tools) == bool(registered)
    ours = sorted(
        f"mcp__forkjoin__{name}" for name in AGENT_TOOLS.keys() - {"approve"}
    )  # this agent needs no permissions
    assert [sorted(tool for tool in asked.tools if tool.startswith("mcp__")) for asked in of_agent] == [ours, ours]
    assert [result.is_error for result in of_agent[-1].results] == [False]


# -- writes outside the agent's worktree


def contents(checkout: Path) -> dict[str, bytes]:
    """Return a checkout's files, and git's files of HEAD, the index and the stash."""
    files = [path for path in checkout.rglob("*") if ".git" not in path.parts]
    files += [checkout / ".git" / name for name in ("HEAD", "index", "refs/heads/main", "refs/stash")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


async def test_an_agent_can_write_neither_to_the_users_checkout_nor_to_the_stash(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    (repository / "shared.txt").write_text("the user is at work\n")
    before = contents(repository)
    new, old = repository / "new.txt", repository / "README.md"
    api.script = in_turn(
        [bash("echo mine >> README.md")],
        [write(new, "trespass\n")],
        [bash(f"echo trespass > {old}")],
        [bash("git stash")],
        [Text("I tried.")],
    )
    async with open_lead_in_process(home, repository) as lead:
        [id_] = await lead.run("Trespass.")
        result = await lead.call("get_result", id=id_)
    assert contents(repository) == before
    assert [use.is_error for use in api.asked[-1].results] == [False, True, True, True]
    denied = [warning.removeprefix("Permission denied: ") for warning in result["warnings"]]
    assert {f"Bash echo trespass > {old}", "Bash git stash"} < set(denied)
    assert [use for use in denied if use.startswith(("Write", "File is in a directory that is denied"))]
    assert result["files_changed"] == 1


#: Names that could be read as patterns.
ODD_NAMES = ["a[bc]d", "x*y?z", "!first", "#hash", "(round)", "back\\slash", "{a,b}", "space ", "\\[x]", "a)b(c"]


@pytest.mark.parametrize(
    "name", ["/".join(ODD_NAMES), *(pytest.param(name, marks=pytest.mark.soak) for name in ODD_NAMES)]
)
async def test_a_checkout_with_a_path_like_a_pattern_is_protected_from_agents(
    api: MessagesApi, repository: Path, home: Home, tmp_path: Path, name: str
) -> None:
    home.config_file.write_text(
        f"{home.config_file.read_text()}skip_permissions = true\n"
    )  # so that only the rule protects the checkout
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    odd = repository.rename(tmp_path / name)
    before = contents(odd)
    api.script = in_turn(
        [write("mine.txt", "x\n")],
        [write(odd / "new.txt", "trespass\n")],
        [write(odd / "deep" / "new.txt", "trespass\n")],
        [write(tmp_path / "elsewhere.txt", "allowed\n")],
        [Text("I tried.")],
    )
    async with open_lead_in_process(home, odd) as lead:
        [id_] = await lead.run("Trespass.")
        assert (await lead.call("get_result", id=id_))["files_changed"] == 1
    assert contents(odd) == before
    assert [use.is_error for use in api.asked[-1].results] == [False, True, True, False]


# -- an agent's end


async def test_an_agent_fails_with_the_error_of_its_api(api: MessagesApi, repository: Path, home: Home) -> None:
    errors = {
        "Do this.": ApiError(400, "invalid_request_error", "prompt is too odd"),
        "Do that.": ApiError(401, "authentication_error", "invalid x-api-key"),
    }

    def refuses(asked: Asked) -> Sequence[Block]:
        raise next(error for prompt, error in errors.items() if prompt in asked.prompt)

    api.script = refuses
    async with open_lead_in_process(home, repository) as lead:
        ids = await lead.run(*errors)
        odd, invalid = [await lead.call("get_result", id=id_) for id_ in ids]
    assert (odd["state"], invalid["state"]) == ("failed", "failed")
    assert odd["error"].startswith("API Error: 400 prompt is too odd")
    assert invalid["error"].startswith("Invalid API key")
    assert odd["summary"] == odd["error"]


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of the processes that run in the folder."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


async def test_an_agent_that_is_stopped_during_a_turn_keeps_its_work(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    begins = in_turn([write("half.txt", "half\n")], [bash("setsid sleep 1000 > /dev/null 2>&1 &")])
    reached, released = threading.Event(), threading.Event()

    def hangs(asked: Asked) -> Sequence[Block]:
        if asked.answers < 2:
            return begins(asked)
        reached.set()
        released.wait(GIVE_UP_S)
        return [Text("too late")]

    api.script = hangs
    async with open_lead_in_process(home, repository) as lead:
        [id_] = await lead.spawn("Write half of it.")
        in_time = await anyio.to_thread.run_sync(reached.wait, GIVE_UP_S)
        before = processes_in(home.worktrees)
        stopped = await lead.call("stop_agents", ids=[id_])
        after = processes_in(home.worktrees)
        released.set()
        result = await lead.call("get_result", id=id_)
    assert in_time, "the agent did not ask for its last answer"
    assert any("sleep 1000" in process for process in before)
    assert after == []
    assert [agent["state"] for agent in stopped["agents"]] == [result["state"]] == ["stopped"]
    assert git(repository, "show", f"{result['branch']}:half.txt") == "half"


# -- the demo


def does_demo_task(name: str) -> Script:
    """Return a script that does the work of the demo's agent with claude's tools."""
    files = [bash(f"cat > {file} <<'END'\n{content}END") for file, content in FILES_BY_NAME[name].items()]
    return in_turn(files, [bash(f"git add --all && git commit -qm {name}")], [Text(f"Did {name}.")])


def test_the_demo_has_the_same_outcome_with_the_real_claude(api: MessagesApi, claude: Path, tmp_path: Path) -> None:
    api.script = by_prompt({one.text: does_demo_task(one.name) for one in TASKS})
    wrapper = tmp_path / "bin" / "claude"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nCLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 exec {claude} "$@"\n')
    wrapper.chmod(0o755)
    path = f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}"
    output = forkjoin(tmp_path, "demo", "--agent", "claude", env={"COLUMNS": "120", "PATH": path}).stdout
    folder = Path(re.findall(r"cd (\S+)/calc &&", output)[0])
    try:
        outcomes = re.findall(r"^a\d +\w+ +\w+ +(\w+) ", output, re.MULTILINE)[-5:]
        assert outcomes == ["merged", "merged", "merged", "conflicted", "skipped"], output
        assert (folder / "calc" / "calc" / "multiply.py").exists()
    finally:
        forkjoin(tmp_path, "daemon", "stop", env={"FORKJOIN_HOME": str(folder / "home")})
        shutil.rmtree(folder)
