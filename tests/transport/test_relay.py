"""The relay: its start, its end, and its imports."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from forkjoin.core.paths import Home
from forkjoin.process.process_table import identify
from support.harness import (
    GIVE_UP_S,
    INITIALIZE,
    INITIALIZED,
    RELAY,
    Lead,
    RawRelay,
    forkjoin,
    git,
    open_lead,
    tool_call,
    until,
)


def _daemon_pid(where: Path) -> int:
    return int(forkjoin(where, "daemon", "status").stdout.partition("pid ")[2].partition(",")[0])


async def test_two_relays_that_start_at_once_start_one_daemon(repository: Path, home: Home) -> None:
    async with anyio.create_task_group() as tasks:

        async def ask(session: str) -> None:
            async with open_lead(repository, session) as lead:
                await lead.call("spawn_agent", task="true", name=session)

        for number in range(6):
            tasks.start_soon(ask, f"lead-{number}")
    log = home.log.read_text()
    assert log.count(" up: ") == 1, log


async def test_killing_the_lead_and_its_relay_ends_no_agent(repository: Path, home: Home) -> None:
    go = home.state / "go"
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        relay.answer()
        task = f"echo up > up.txt; until test -e {go}; do sleep 0.02; done; echo survived"
        relay.call(1, "spawn_agent", task=task, name="survivor")
        relay.process.send_signal(signal.SIGKILL)
        relay.process.wait(GIVE_UP_S)
    go.touch()
    async with open_lead(repository, "another") as lead:
        ended = await lead.call("wait_agents", ids=["survivor"], timeout_s=GIVE_UP_S)
        assert [(agent["state"], agent["summary"]) for agent in ended["finished"]] == [("succeeded", "survived")]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_relay_at_once(repository: Path, home: Home, signum: signal.Signals) -> None:
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE)
        relay.answer()
        relay.process.send_signal(signum)
        assert relay.process.wait(GIVE_UP_S) == -signum


def test_the_relay_ends_when_its_client_closes_stdin(repository: Path, home: Home) -> None:
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE)
        relay.answer()
    assert relay.process.returncode == 0


def test_requests_from_a_file_are_answered_before_the_relay_ends(repository: Path, home: Home, tmp_path: Path) -> None:
    file = tmp_path / "requests"
    lines = (INITIALIZE, INITIALIZED, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with file.open() as stdin:
        done = subprocess.run(RELAY, stdin=stdin, capture_output=True, cwd=repository, timeout=GIVE_UP_S, check=True)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [0, 1]


def test_a_relay_continues_with_the_next_daemon_unnoticed_by_its_client(repository: Path, home: Home) -> None:
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        relay.answer()
        relay.call(1, "spawn_agent", task="echo first", name="first")
        os.kill(_daemon_pid(repository), signal.SIGKILL)
        answer = relay.call(2, "wait_agents", ids=["first"], timeout_s=GIVE_UP_S)
    assert answer["id"] == 2
    assert answer["result"]["structuredContent"]["finished"][0]["summary"] == "first"


def test_a_wait_that_a_killed_daemon_did_not_answer_is_answered_by_the_next(repository: Path, home: Home) -> None:
    go = home.state / "go"
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        relay.answer()
        relay.call(1, "spawn_agent", task=f"until test -e {go}; do sleep 0.02; done; echo went", name="waits")
        relay.send(tool_call(2, "wait_agents", timeout_s=GIVE_UP_S))
        os.kill(_daemon_pid(repository), signal.SIGKILL)
        go.touch()
        answer = relay.answer()
    assert answer["id"] == 2
    assert answer["result"]["structuredContent"]["finished"][0]["summary"] == "went"


def test_a_repeated_spawn_request_spawns_once(repository: Path, home: Home) -> None:
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        relay.answer()
        first = relay.call(7, "spawn_agent", task="true")
        again = relay.call(7, "spawn_agent", task="true")
        listed = relay.call(8, "list_agents")
    assert first["result"]["structuredContent"]["id"] == again["result"]["structuredContent"]["id"] == "a1"
    assert len(listed["result"]["structuredContent"]["agents"]) == 1


def test_a_request_id_that_is_used_again_for_another_call_is_another_call(repository: Path, home: Home) -> None:
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        relay.answer()
        relay.call(7, "spawn_agent", task="true", name="first")
        relay.send(INITIALIZE, INITIALIZED)  # as when a client starts over
        relay.answer()
        answer = relay.call(7, "spawn_agent", task="true", name="second")
        merged = relay.call(7, "merge_worktree", ids=["first"], dry_run=True)
    assert answer["result"]["structuredContent"]["name"] == "second"
    assert "merged" in merged["result"]["structuredContent"]


def test_the_relay_imports_no_module_of_a_hostile_repository(repository: Path, home: Home, tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    bomb = f"open({str(trap)!r}, 'a').write(__name__ + '\\n')\n"
    for name in ("mcp", "tools", "server", "forkjoin", "forkjoin_tools", "git", "json"):
        (repository / name).mkdir()
        (repository / name / "__init__.py").write_text(bomb)
    for name in ("anyio", "sitecustomize", "usercustomize", "selectors", "pydantic", "typing_extensions"):
        (repository / f"{name}.py").write_text(bomb)
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "traps")
    config = json.loads((Path(__file__).parents[2] / "claude_config_example.json").read_text())
    registered = config["mcpServers"]["forkjoin"]
    assert [registered["command"], *registered["args"]] == ["python3", *RELAY[1:]]
    environment = {**os.environ, "PYTHONPATH": ".", "PYTHONSTARTUP": "sitecustomize.py"}
    lines = (
        INITIALIZE,
        INITIALIZED,
        tool_call(1, "spawn_agent", task="echo x > x.txt", verify="true"),
        tool_call(2, "wait_agents", ids=["a1"], timeout_s=GIVE_UP_S),
        tool_call(3, "merge_worktree", ids=["a1"], verify="true"),
    )
    answer: Any = None
    with subprocess.Popen(
        [sys.executable, *registered["args"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=repository,
        env=environment,
    ) as relay:
        assert relay.stdin
        assert relay.stdout
        for line in lines:
            relay.stdin.write(json.dumps(line).encode() + b"\n")
            relay.stdin.flush()
            if "id" in line:
                answer = json.loads(relay.stdout.readline())
        relay.stdin.close()
    assert answer["result"]["structuredContent"]["merged"][0]["id"] == "a1"
    assert not trap.exists(), trap.read_text()


async def test_stopping_an_agent_whose_relay_started_the_daemon_ends_neither_it_nor_other_agents(
    lead: Lead, repository: Path, home: Home
) -> None:
    argv = " ".join(RELAY)
    start = f"(FORKJOIN_HOME={home.state} {argv} < fifo > answers &)"
    task = f"mkfifo fifo; {start}; exec 3> fifo; echo '{json.dumps(INITIALIZE)}' >&3; sleep 1000"
    _, other = await lead.spawn("true", "sleep 1000")
    forkjoin(repository, "daemon", "status")
    os.kill(_daemon_pid(repository), signal.SIGKILL)
    first = (await lead.spawn(task))[0]
    await until(lambda: any(file.stat().st_size for file in home.worktrees.glob("*/*/answers")))
    daemon = _daemon_pid(repository)
    await lead.call("stop_agents", ids=[first])
    assert identify(daemon)
    states = {agent["id"]: agent["state"] for agent in (await lead.call("list_agents"))["agents"]}
    assert states[other] == "running"
    await lead.call("stop_agents", ids=[other])
