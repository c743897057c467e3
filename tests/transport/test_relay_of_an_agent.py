"""The relay of an agent's program, which offers the agent's own tools and refuses others."""

import hashlib
import json
import os
import shlex
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from forkjoin.core.paths import Home
from forkjoin_tools.mcp_server import AGENT_TOOLS
from support.harness import GIVE_UP_S, INITIALIZE, INITIALIZED, RELAY, Lead, forkjoin, tool_call, until

#: The command line, in a shell's words.
COMMAND = shlex.join(RELAY[:-1])
#: What a client can list. The place, from 1, is the id of the request.
LISTS = ("tools", "prompts", "resources", "resources/templates")
LIST = [{"jsonrpc": "2.0", "id": number, "method": f"{kind}/list"} for number, kind in enumerate(LISTS, 1)]


def _relayed(folder: Path, *requests: Any) -> str:
    """Return a shell command that sends requests to a relay.

    The answers are written to `folder`/answers.
    """
    (folder / "requests").write_text(
        "".join(json.dumps(message) + "\n" for message in (INITIALIZE, INITIALIZED, *requests))
    )
    return f"{shlex.join(RELAY)} < {folder}/requests > {folder}/answers"


def _answers(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "answers").read_text().splitlines()]


async def _run(lead: Lead, home: Home, task: str) -> None:
    await lead.run(f"export FORKJOIN_HOME={home.state}; {task}")


async def test_an_agents_relay_has_its_own_tools_and_nothing_else(lead: Lead, home: Home, tmp_path: Path) -> None:
    await _run(lead, home, _relayed(tmp_path, *LIST))
    begun, *listed = sorted(_answers(tmp_path), key=lambda answer: answer["id"])
    assert "You are an agent of forkjoin" in begun["result"]["instructions"]
    kinds = ("tools", "prompts", "resources", "resourceTemplates")
    tools, *others = (answer["result"][kind] for answer, kind in zip(listed, kinds, strict=True))
    assert {tool["name"] for tool in tools} == set(AGENT_TOOLS)
    assert others == [[], [], []]


async def test_an_agents_report_is_its_last_event(lead: Lead, home: Home, tmp_path: Path) -> None:
    report = tool_call(1, "report_progress", text="The parser is done.")
    lines = [
        _relayed(tmp_path, report, tool_call(2, "report_progress", text="x" * 501)),
        f"until test -e {tmp_path}/go",
    ]
    (first,) = await lead.spawn(f"export FORKJOIN_HOME={home.state}; {'; '.join(lines)}; do sleep 0.1; done")
    await lead.last_event(first, "The parser is done.")
    (tmp_path / "go").touch()
    await lead.results(first)
    answers = {answer["id"]: answer["result"] for answer in _answers(tmp_path)}
    assert [answers[number]["isError"] for number in (1, 2)] == [False, True]


@pytest.mark.parametrize("tool", ["spawn_agent", "list_agents", "no_such"])
async def test_an_agent_that_calls_the_leads_tools_is_refused_and_that_is_logged(
    lead: Lead, home: Home, tmp_path: Path, tool: str
) -> None:
    await _run(lead, home, _relayed(tmp_path, tool_call(1, tool)))
    answer = _answers(tmp_path)[1]["result"]
    assert answer["isError"] is True
    assert "is only for the lead, and you are agent a1" in answer["content"][0]["text"]
    assert f"called {tool}: refused" in home.log.read_text()


async def test_an_agents_commands_read_and_change_nothing(lead: Lead, home: Home, tmp_path: Path) -> None:
    changing = ("spawn another", "stop a1", "rm a1", "merge a1")
    command = shlex.join([*RELAY[:-1]])
    lines = [f"{command} ps --json > {tmp_path}/read; echo $? >> {tmp_path}/codes"]
    lines += [f"{command} {words} 2>> {tmp_path}/refused; echo $? >> {tmp_path}/codes" for words in changing]
    await _run(lead, home, "\n".join(lines))
    assert (tmp_path / "codes").read_text().split() == ["0", "1", "1", "1", "1"]
    assert (tmp_path / "refused").read_text().count("is only for the lead, and you are agent a1") == len(changing)
    assert [agent["id"] for agent in json.loads((tmp_path / "read").read_text())["agents"]] == ["a1"]
    assert len((await lead.call("list_agents"))["agents"]) == 1


@pytest.mark.parametrize("words", ["logs a1", "result a1", "diff a1", "wait a1", "logs nobody", "status"])
async def test_an_agents_commands_read_nothing_of_other_agents(
    lead: Lead, home: Home, tmp_path: Path, words: str
) -> None:
    await lead.run("echo secret > secret.txt; echo secret")
    await _run(lead, home, f"{COMMAND} {words} > {tmp_path}/told 2>&1; echo $? >> {tmp_path}/codes")
    output = (tmp_path / "told").read_text()
    assert (tmp_path / "codes").read_text() == "1\n"
    assert "is not one of your agents" in output or "is only for the lead" in output
    assert "secret" not in output


async def test_the_records_contain_only_a_digest_of_the_token(lead: Lead, home: Home, tmp_path: Path) -> None:
    await lead.run(f"printf %s $FORKJOIN_TOKEN > {tmp_path}/token", verify="true")
    token = (tmp_path / "token").read_text()
    assert len(token) >= 24
    with sqlite3.connect(home.records) as records:
        digests = [row[0] for row in records.execute("SELECT digest FROM token")]
    records.close()
    assert digests == [hashlib.sha256(token.encode()).hexdigest()]
    held = [file for file in home.state.rglob("*") if file.is_file() and token.encode() in file.read_bytes()]
    assert held == []


@pytest.mark.parametrize("kind", ["relay", "cli"])
async def test_a_guessed_token_is_refused_and_logged(repository: Path, home: Home, kind: str) -> None:
    environment = {"FORKJOIN_TOKEN": "guessed"}
    if kind == "cli":
        done = forkjoin(repository, "ps", check=False, env=environment)
        words = done.stderr
    else:
        done = subprocess.run(
            RELAY,
            input=f"{json.dumps(INITIALIZE)}\n",
            capture_output=True,
            text=True,
            cwd=repository,
            env={**os.environ, **environment},
            check=False,
            timeout=GIVE_UP_S,
        )
        words = json.loads(done.stdout)["error"]["message"]
    assert done.returncode == 1
    assert "FORKJOIN_TOKEN is not the token of an agent here" in words
    await until(lambda: "refused process" in home.log.read_text())
