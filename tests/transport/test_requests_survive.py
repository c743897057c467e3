"""Requests survive a killed daemon, and the agent's relay keeps waiting for the answer."""

import json
import os
import shlex
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from forkjoin.core.paths import Home
from support.harness import (
    GIVE_UP_S,
    INITIALIZE,
    INITIALIZED,
    RELAY,
    Lead,
    forkjoin,
    kill_daemon,
    running,
    tool_call,
    until,
)


def asking(folder: Path, home: Home, **given: Any) -> str:
    """Return a task that asks through its own relay and prints the answer."""
    lines = (INITIALIZE, INITIALIZED, tool_call(1, "ask_lead", **given))
    (folder / "requests").write_text("".join(json.dumps(message) + "\n" for message in lines))
    return f"export FORKJOIN_HOME={home.state}; {shlex.join(RELAY)} < {folder}/requests | tail -n 1"


async def open_request(lead: Lead) -> Any:
    (request,) = (await lead.call("wait_agents", timeout_s=GIVE_UP_S))["requests"]
    return request


async def answer_of(lead: Lead, agent: str) -> Any:
    (result,) = await lead.results(agent)
    return json.loads(result["output"])["result"]["structuredContent"]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_agent_gets_the_answer_even_if_the_daemon_is_killed_or_stopped(
    lead: Lead, repository: Path, home: Home, tmp_path: Path, when: str, signum: int
) -> None:
    (agent,) = await lead.spawn(asking(tmp_path, home, question="Tabs?"))
    request = await open_request(lead)
    if when == "before":
        kill_daemon(repository, home, signum)
    await lead.call("answer_request", request_id=request["request_id"], answer="Tabs.")
    if when == "after":
        kill_daemon(repository, home, signum)
    assert await answer_of(lead, agent) == {"answer": "Tabs.", "answered_by": "lead session-1"}
    with sqlite3.connect(home.records) as records:
        assert records.execute("SELECT count(*) FROM request").fetchone() == (1,)
    records.close()


async def test_requests_of_a_dead_relay_are_withdrawn(lead: Lead, home: Home, tmp_path: Path) -> None:
    relay, _, _ = asking(tmp_path, home, question="Tabs?").rpartition(" | ")
    (agent,) = await lead.spawn(f"({relay} & echo $! > {tmp_path}/pid; wait); sleep 1000")
    request = await open_request(lead)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    await lead.until(agent, state="running")
    why = await lead.refusal("answer_request", request_id=request["request_id"], answer="Tabs.")
    assert "withdrawn" in why
    await lead.call("stop_agents", ids=[agent])


async def test_requests_expire_while_no_daemon_runs(lead: Lead, repository: Path, home: Home, tmp_path: Path) -> None:
    (agent,) = await lead.spawn(asking(tmp_path, home, question="Tabs?", default="Tabs.", timeout_minutes=20))
    await open_request(lead)
    kill_daemon(repository, home)
    with sqlite3.connect(home.records) as records:
        records.execute("UPDATE request SET asked = asked - 1200, expires = expires - 1200")
    records.close()
    assert await answer_of(lead, agent) == {"answer": "Tabs.", "answered_by": "nobody"}


async def test_a_wait_survives_a_killed_daemon_and_reports_a_later_request(
    lead: Lead, repository: Path, home: Home, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    task = f"until test -e {go}; do sleep 0.05; done; {asking(tmp_path, home, question='Tabs?')}"
    (agent,) = await lead.spawn(task)
    await lead.until(agent, state="running")
    kill_daemon(repository, home)
    go.touch()
    request = await open_request(lead)
    assert "Tabs?" in forkjoin(repository, "requests").stdout
    done = forkjoin(repository, "answer", request["request_id"], "Tabs.")
    assert done.stdout == f"{request['request_id']}  {agent}  Tabs.\n"
    assert await answer_of(lead, agent) == {"answer": "Tabs.", "answered_by": "the person"}


async def test_a_request_reported_before_does_not_end_a_wait(
    lead: Lead, repository: Path, home: Home, tmp_path: Path
) -> None:
    (asker,) = await lead.spawn(asking(tmp_path, home, question="Tabs?"))
    (ended,) = await lead.spawn("echo done")
    assert "r1" in forkjoin(repository, "wait", asker, check=False).stdout
    assert "done" in forkjoin(repository, "wait", ended).stdout
    waited = forkjoin(repository, "wait", asker, ended, "--timeout", "0.5", check=False)
    assert f"the time is up; still under way: {asker}" in waited.stderr
    forkjoin(repository, "answer", "r1", "Tabs.")
    await lead.results(asker)


@pytest.mark.parametrize("ids", [(), ("a1",)])
async def test_a_command_line_wait_ends_once_for_a_request_and_the_next_wait_continues(
    lead: Lead, repository: Path, home: Home, tmp_path: Path, ids: tuple[str, ...]
) -> None:
    (agent,) = await lead.spawn(asking(tmp_path, home, question="Tabs?"))
    completed = forkjoin(repository, "wait", *ids, check=False)
    assert completed.returncode == 1
    assert "r1  a1 asks" in completed.stdout
    assert "open requests: 1" in forkjoin(repository, "status").stdout
    assert "Tabs? (answer_request)" in forkjoin(repository, "brief").stdout
    with running(repository, "wait", *ids) as waiting:
        forkjoin(repository, "answer", "r1", "Tabs.")
        printed, _ = waiting.communicate(timeout=GIVE_UP_S)
        assert ("a1" in printed, waiting.returncode) == (True, 0)
    assert (await answer_of(lead, agent))["answered_by"] == "the person"


async def test_waiting_for_an_answer_does_not_count_as_silence(lead: Lead, home: Home, tmp_path: Path) -> None:
    (agent,) = await lead.spawn(asking(tmp_path, home, question="Tabs?"), silence_minutes=0.03)
    await open_request(lead)
    again = await lead.call("wait_agents", ids=[agent], timeout_s=4)
    assert [agent["state"] for agent in again["pending"]] == ["waiting"]
    await lead.call("answer_request", request_id="r1", answer="Tabs.")
    assert (await answer_of(lead, agent))["answer"] == "Tabs."


async def test_an_agents_command_line_cant_answer_requests(
    lead: Lead, repository: Path, home: Home, tmp_path: Path
) -> None:
    command = shlex.join(RELAY[:-1])
    both = f"{asking(tmp_path, home, question='Tabs?')} & {command} answer r1 yes 2> {tmp_path}/why; wait"
    (agent,) = await lead.spawn(both)
    await open_request(lead)
    assert "is only for the lead" in await _written(tmp_path / "why")
    forkjoin(repository, "answer", "r1", "Tabs.")
    assert (await answer_of(lead, agent))["answered_by"] == "the person"


async def _written(file: Path) -> str:
    await until(lambda: file.exists() and file.read_text())
    return file.read_text()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("r1",), "give exactly one of"),
        (("r1", "x", "--deny"), "give exactly one of"),
        (("r9", "x"), "No request 'r9' in this project"),
    ],
)
def test_an_invalid_answer_of_a_person_is_refused_with_a_message(
    repository: Path, home: Home, words: tuple[str, ...], why: str
) -> None:
    done = forkjoin(repository, "answer", *words, check=False)
    assert (done.returncode, why in done.stderr) == (1, True)
