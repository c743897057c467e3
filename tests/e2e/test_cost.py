"""The cost of agents for the lead, in turns and in bytes of tool definitions and results that the API receives."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from e2e.test_claude import REGISTERED, ask_claude, bash, of_forkjoin
from forkjoin.core.paths import Home
from support.fakes import blocking
from support.fakes.messages_api import MessagesApi
from support.fakes.script import Asked, Script, Text, ToolUse, by_prompt, in_turn
from support.harness import git

pytestmark = pytest.mark.vendor

#: A source file of about 4 KB, which each agent reads first.
SOURCE = "".join(f"def function_{number}(given: int) -> int:\n    return given + {number}\n" for number in range(64))


def does_task(name: str) -> Script:
    """Return a script that reads a file, commits another one, and reports."""
    return in_turn(
        [Text(f"I will look at source.py, then write {name}.py."), bash("cat source.py")],
        [bash(f"sed s/function/{name.replace('-', '_')}/ source.py > {name}.py && git add . && git commit -qm {name}")],
        [Text(f"{name}.py is written and committed.\nNothing is left.")],
    )


@pytest.mark.parametrize("count", [4, pytest.param(10, marks=pytest.mark.soak)])
async def test_agents_are_spawned_read_and_merged_in_five_turns_and_fewer_bytes_than_their_transcripts(
    count: int,
    api: MessagesApi,
    repository: Path,
    home: Home,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    names = [f"part-{number}" for number in range(count)]
    (repository / "source.py").write_text(SOURCE)
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "source")
    lead = in_turn(
        [of_forkjoin("spawn_agents", agents=[{"name": name, "task": task_of(name)} for name in names])],
        [of_forkjoin("wait_agents")],
        [of_forkjoin("get_result", id=name) for name in names],
        [of_forkjoin("merge_worktree", ids=names)],
        [Text("All are merged.")],
    )
    api.script = by_prompt({"Fork it out.": lead, **{task_of(name): does_task(name) for name in names}})
    ours = await _measure(api, repository, "Fork it out.", REGISTERED)
    assert all((repository / f"{name}.py").exists() for name in names)

    for number, name in enumerate(names, 1):
        (tmp_path / name).write_bytes((home.attempts / f"a{number}-1" / "output").read_bytes())
    branches = " ".join(git(repository, "branch", "--list", "forkjoin/*", "--format=%(refname:short)").split())
    git(repository, "reset", "-q", "--hard", f"HEAD~{count}")
    api.script = in_turn(
        [ToolUse("mcp__blocking__run_agent", {"task": name}) for name in names],
        [bash(f"for one in {branches}; do git merge -q --no-edit $one; done")],
        [Text("All are merged.")],
    )
    server = {"command": sys.executable, "args": [str(blocking.__file__), str(tmp_path)]}
    theirs = await _measure(api, repository, "Do it.", {"mcpServers": {"blocking": server}})
    assert all((repository / f"{name}.py").exists() for name in names)

    assert len(ours) <= 5
    assert sum(ours) < sum(theirs) * (0.5 if count == 10 else 1)
    record_property(
        "figures",
        f"{count} agents spawned, read and merged: {len(ours)} turns, {ours[-1]} bytes of definitions and results "
        f"in the last turn, {sum(ours)} in all turns; with calls that return transcripts: {len(theirs)} turns, "
        f"{theirs[-1]} bytes, {sum(theirs)} bytes",
    )


def task_of(name: str) -> str:
    return f"Write {name}.py after source.py, and commit it."


async def _measure(api: MessagesApi, repository: Path, prompt: str, servers: object) -> list[int]:
    """Run a lead with this prompt.

    Return the bytes of tool definitions and results in each of its requests.
    """
    api.asked.clear()
    registered = ("--mcp-config", json.dumps(servers), "--strict-mcp-config")
    allowed = ("--allowedTools", "mcp__forkjoin,mcp__blocking,Bash")
    assert await ask_claude(repository, prompt, *registered, *allowed) == "All are merged."
    of_lead = [asked for asked in api.asked if any(prompt in text for text in asked.prompt)]
    assert not any(result.is_error for result in of_lead[-1].results)
    return [_bytes_of(asked) for asked in of_lead]


def _bytes_of(asked: Asked) -> int:
    definitions = [tool for tool in asked.body["tools"] if str(tool.get("name", "")).startswith("mcp__")]
    texts: Sequence[str] = [json.dumps(definitions), *(result.text for result in asked.results)]
    return sum(len(text.encode()) for text in texts)
