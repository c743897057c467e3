"""Processes that claim to be a person or another agent."""

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.core.session import NO_RIGHTS
from support.harness import GIVE_UP_S, INITIALIZE, INITIALIZED, RELAY, Lead, forkjoin, git, tool_call, until

COMMAND = shlex.join(RELAY[:-1])
#: Ways in which a process hides the agent that it belongs to.
DISGUISES = {
    "without its token": "env -u FORKJOIN_TOKEN",
    "without its environment": 'env -i "PATH=$PATH" "HOME=$HOME" "FORKJOIN_HOME=$FORKJOIN_HOME" setsid -w',
    "as a daemon": 'env -i "PATH=$PATH" "HOME=$HOME" "FORKJOIN_HOME=$FORKJOIN_HOME" FORKJOIN_KEEPER=1 setsid -w',
}
#: Commands that a person may run and an agent may not, by tool.
PERSONS = {
    "merge_worktree": "merge a1",
    "remove_worktrees": "rm a1",
    "stop_agents": "stop a1",
    "spawn_agents": "spawn true",
    "message_agent": "message a1 more",
    "budget": "budget 5",
    "undo_merge": "undo",
    "answer_request": "answer r1 yes",
    "get_status": "status",
}


async def _run(lead: Lead, home: Home, task: str, **spec: str) -> str:
    """Run an agent that can reach the daemon, and return its id."""
    (agent,) = await lead.run(f"export FORKJOIN_HOME={home.state}; {task}", **spec)
    return agent


@pytest.mark.parametrize(
    ("disguise", "tools"),
    [
        ("without its token", [*PERSONS]),
        ("without its environment", ["merge_worktree", "spawn_agents"]),
        ("as a daemon", ["merge_worktree", "budget"]),
    ],
)
async def test_an_agent_in_disguise_is_refused_a_persons_tools_and_its_lead_is_warned(
    lead: Lead, repository: Path, home: Home, tmp_path: Path, disguise: str, tools: list[str]
) -> None:
    await lead.run("echo one > one.txt")
    calls = [PERSONS[tool] for tool in tools]
    lines = [
        f"{DISGUISES[disguise]} {COMMAND} {words} 2>> {tmp_path}/refused; echo $? >> {tmp_path}/codes"
        for words in calls
    ]
    agent = await _run(lead, home, "\n".join(lines))
    assert (tmp_path / "codes").read_text().split() == ["1"] * len(calls)
    assert (tmp_path / "refused").read_text().count(f"you are agent {agent}") == len(calls)
    warnings = (await lead.call("get_result", id=agent))["warnings"]
    (warned,) = [warning for warning in warnings if "The agent made calls that no agent may make" in warning]
    assert all(tool in warned for tool in tools)
    assert "called merge_worktree: refused" in home.log.read_text()
    assert not (repository / "one.txt").exists()
    assert (await lead.listed("a1"))["merge"] == "unmerged"
    assert len((await lead.call("list_agents"))["agents"]) == 2


@pytest.mark.parametrize(
    "words", ["trust --yes", "daemon stop --now", "daemon logs", "install --yes", "uninstall --yes"]
)
async def test_an_agent_in_disguise_is_refused_commands_that_need_no_daemon(
    lead: Lead, home: Home, tmp_path: Path, words: str
) -> None:
    disguise = DISGUISES["without its environment"]
    await _run(lead, home, f"{disguise} {COMMAND} {words} 2> {tmp_path}/refused; echo $? > {tmp_path}/code")
    assert (tmp_path / "code").read_text() == "1\n"
    assert "An agent can't" in (tmp_path / "refused").read_text()


async def test_a_relay_without_a_token_belongs_to_the_agent_of_its_process(
    lead: Lead, home: Home, tmp_path: Path
) -> None:
    requests = (INITIALIZE, INITIALIZED, tool_call(1, "report_progress", text="here"), tool_call(2, "list_agents"))
    (tmp_path / "requests").write_text("".join(json.dumps(request) + "\n" for request in requests))
    relay = f"env -u FORKJOIN_TOKEN {shlex.join(RELAY)} < {tmp_path}/requests > {tmp_path}/answers"
    agent = await _run(lead, home, relay)
    answers = {
        answer["id"]: answer["result"] for answer in map(json.loads, (tmp_path / "answers").read_text().splitlines())
    }
    assert answers[1]["isError"] is False
    assert f"you are agent {agent}" in answers[2]["content"][0]["text"]


async def test_an_agent_that_shows_another_ones_token_is_refused_and_its_lead_is_warned(
    lead: Lead, home: Home, tmp_path: Path
) -> None:
    waits = f"printf %s $FORKJOIN_TOKEN > {tmp_path}/token; until test -e {tmp_path}/go; do sleep 0.05; done"
    (victim,) = await lead.spawn(waits)
    await until(lambda: (tmp_path / "token").exists() and (tmp_path / "token").read_text())
    stolen = f"FORKJOIN_TOKEN=$(cat {tmp_path}/token) {COMMAND} ps 2> {tmp_path}/refused; echo $? > {tmp_path}/code"
    thief = await _run(lead, home, stolen)
    (tmp_path / "go").touch()
    assert (tmp_path / "code").read_text() == "1\n"
    assert f"This process belongs to {thief}" in (tmp_path / "refused").read_text()
    (warned,) = [warning for warning in (await lead.call("get_result", id=thief))["warnings"] if "refused" in warning]
    assert f"to call as {victim}" in warned
    assert "refused process" in home.log.read_text()
    await lead.results(victim)


@pytest.mark.parametrize("disguise", ["", DISGUISES["without its environment"]])
@pytest.mark.parametrize("where", ["verify", "setup"])
async def test_commands_that_prepare_or_check_a_merge_have_no_rights(
    lead: Lead, repository: Path, home: Home, tmp_path: Path, disguise: str, where: str
) -> None:
    git(repository, "branch", "release")
    calls = f"{disguise} {COMMAND} merge a1 --into release --confirm", f"{disguise} {COMMAND} ps"
    script = "\n".join(f"{words} 2>> {tmp_path}/refused >&2; echo $? >> {tmp_path}/codes" for words in calls)
    (tmp_path / "script").write_text(f"export FORKJOIN_HOME={home.state}\n{script}\n")
    if where == "setup":
        (repository / "forkjoin.toml").write_text(f"setup = 'sh {tmp_path}/script'\n")
        forkjoin(repository, "trust", "--yes")
    await lead.run("echo one > one.txt")
    (tmp_path / "codes").unlink(missing_ok=True)
    (tmp_path / "refused").unlink(missing_ok=True)
    merged = await lead.call(
        "merge_worktree", ids=["a1"], verify=f"sh {tmp_path}/script" if where == "verify" else "true"
    )
    assert [agent["id"] for agent in merged["merged"]] == ["a1"]
    assert (tmp_path / "codes").read_text().split() == ["1", "1"]
    assert (tmp_path / "refused").read_text().count("a command such as setup or verify") == 2
    assert git(repository, "rev-parse", "release") != git(repository, "rev-parse", "main")


async def test_a_verify_that_merges_into_the_target_it_checks_is_refused_at_once(
    lead: Lead, home: Home, tmp_path: Path
) -> None:
    await lead.run("echo one > one.txt", "echo two > two.txt")
    verify = f"FORKJOIN_HOME={home.state} {COMMAND} merge a2 2> {tmp_path}/refused; test $? = 1"
    merged = await lead.call("merge_worktree", ids=["a1"], verify=verify)
    assert [agent["id"] for agent in merged["merged"]] == ["a1"]
    assert "(t1-" in (tmp_path / "refused").read_text()
    assert (await lead.listed("a2"))["merge"] == "unmerged"


async def test_an_agents_verify_is_refused_and_its_lead_is_warned(lead: Lead, home: Home, tmp_path: Path) -> None:
    verify = f"export FORKJOIN_HOME={home.state}; {COMMAND} ps; test $? = 1"
    (agent,) = await lead.run("true", verify=verify)
    result = await lead.call("get_result", id=agent)
    assert result["verify"] == "passed"
    assert "to call from its verify" in " ".join(result["warnings"])


def test_the_token_without_rights_is_refused_wherever_it_is_shown(repository: Path, home: Home) -> None:
    done = forkjoin(repository, "ps", check=False, env={"FORKJOIN_TOKEN": NO_RIGHTS})
    assert (done.returncode, "(known by its FORKJOIN_TOKEN)" in done.stderr) == (1, True)


async def test_a_process_of_no_attempt_with_a_token_is_the_agent(
    lead: Lead, repository: Path, home: Home, tmp_path: Path
) -> None:
    """A container that an agent runs is not a child process of its program."""
    (agent,) = await lead.spawn(f"printf %s $FORKJOIN_TOKEN > {tmp_path}/token; sleep 1000")
    await until(lambda: (tmp_path / "token").exists() and (tmp_path / "token").read_text())
    environment = {"FORKJOIN_TOKEN": (tmp_path / "token").read_text()}
    done = forkjoin(repository, "stop", agent, check=False, env=environment)
    assert f"you are agent {agent}" in done.stderr
    await lead.call("stop_agents", ids=[agent])


def test_a_process_that_has_ended_when_its_hello_is_read_is_refused(home: Home, repository: Path) -> None:
    forkjoin(repository, "daemon", "start")
    ours, theirs = socket.socketpair()
    script = (
        "import os, socket, sys\n"
        "peer = socket.socket(socket.AF_UNIX); os.chdir(sys.argv[1]); peer.connect('daemon.sock')\n"
        "socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b'x'], [peer.fileno()])\n"
    )
    with ours, theirs:
        argv = [sys.executable, "-c", script, str(home.state), str(theirs.fileno())]
        subprocess.run(argv, check=True, pass_fds=(theirs.fileno(),), timeout=GIVE_UP_S)
        _, (passed,), _, _ = socket.recv_fds(ours, 1, 1)
    with socket.socket(fileno=passed) as peer:
        peer.settimeout(GIVE_UP_S)
        hello = {"protocol": 1, "version": "0.1", "kind": "cli", "relay": "x", "cwd": str(repository)}
        peer.sendall(json.dumps(hello).encode() + b"\n")
        answer = json.loads(peer.makefile().readline())
    assert (answer["ok"], "is gone" in answer["error"] or "has ended" in answer["error"]) == (False, True)


async def test_a_person_in_an_agents_worktree_keeps_a_persons_rights(lead: Lead, home: Home) -> None:
    (agent,) = await lead.run("true")
    (worktree,) = (home.worktrees).glob(f"*/{agent}-*")
    assert json.loads(forkjoin(worktree, "ps", "--json").stdout)["agents"][0]["id"] == agent
    forkjoin(worktree, "message", agent, "true")
