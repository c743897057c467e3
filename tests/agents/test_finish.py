"""Ends of agents: hostile process trees, hangs, failures, lost runs of verify, a reboot."""

import contextlib
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import anyio
import pytest
from conftest import processes_of
from forkjoin.agents import stop
from forkjoin.core import file_lock
from forkjoin.core.error import RecordsError
from forkjoin.core.model import Agent
from forkjoin.core.paths import Home
from forkjoin.core.session import NO_RIGHTS
from forkjoin.process.executor import Executor
from support.harness import (
    GIVE_UP_S,
    Lead,
    forkjoin,
    git,
    lead_of,
    limit,
    open_lead,
    open_lead_in_memory,
    open_reconciler_in_memory,
    until,
)

#: A twice forked grandchild in its own session, and a suspended child. All ignore SIGTERM. The program leaves work.
HOSTILE = """
trap '' HUP INT TERM
echo half > half.txt
setsid sh -c 'trap "" HUP INT TERM; (while :; do sleep 1; done) & echo up'
sleep 1000 & kill -STOP $!
while :; do sleep 1; done
"""


def of_attempts(home: Home) -> dict[int, str]:
    """Return the processes of attempts: programs and shims."""
    return {pid: words for pid, words in processes_of(home.state).items() if "/attempts/" in words}


def marked(home: Home) -> set[int]:
    """Return the processes with an attempt's mark in their environment."""
    mark = f"FORKJOIN_MARK={home.attempts}/".encode()
    found: set[int] = set()
    for pid in processes_of(home.state):
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(pid)
        except OSError:
            continue
    return found


# -- stops


async def test_once_a_stop_is_answered_no_process_of_a_hostile_tree_runs(lead: Lead, home: Home) -> None:
    """Fault 7."""
    (agent,) = await lead.spawn(HOSTILE)
    await lead.until(agent, last_event="up")
    assert len(marked(home)) >= 3
    for _ in range(2):  # stopping again is no error
        answer = await lead.call("stop_agents", ids=[agent])
        assert [agent["state"] for agent in answer["agents"]] == ["stopped"]
        assert marked(home) == set()
    assert (await lead.call("get_result", id=agent))["files_changed"] == 1


class Immortal:
    """A process in every attempt that survives SIGKILL until it is made mortal."""

    words = "can't be ended: immortal (pid 7)"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lives = True
        really = Executor.cancel

        async def cancel(executor: Executor, handle: str, grace: float) -> list[str]:
            return await really(executor, handle, grace) or (["immortal (pid 7)"] if self.lives else [])

        monkeypatch.setattr(Executor, "cancel", cancel)
        monkeypatch.setattr(stop, "_AGAIN_S", 0.02)
        monkeypatch.setattr(stop, "_FINISH_S", 0)


@pytest.fixture
def immortal(monkeypatch: pytest.MonkeyPatch) -> Immortal:
    return Immortal(monkeypatch)


async def test_a_program_that_fills_the_disk_ends_although_its_stop_cant_be_recorded(
    home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        really = reconciler.store.lifecycle.ask_stop

        async def ask_stop(agents: Iterable[Agent]) -> list[Agent]:
            if marked(home):
                raise RecordsError("database or disk is full")
            return await really(agents)

        monkeypatch.setattr(reconciler.store.lifecycle, "ask_stop", ask_stop)
        (agent,) = await lead.spawn(HOSTILE)
        await lead.last_event(agent, "up")
        (stopped,) = (await lead.call("stop_agents", ids=[agent]))["agents"]
        assert stopped["state"] == "stopped"


async def test_a_stop_that_cant_be_recorded_reports_that_the_processes_have_ended(
    home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (agent,) = await lead.spawn(HOSTILE)
        await lead.last_event(agent, "up")
        reconciler.store.database.connection.execute("PRAGMA query_only = ON")
        refusal = await lead.refusal("stop_agents", ids=[agent])
        assert refusal.startswith("All processes have ended, and the agents' files are kept, but their stop could not")
        assert "call stop_agents again" in refusal
        assert not marked(home)
        reconciler.store.database.connection.execute("PRAGMA query_only = OFF")
        await lead.call("stop_agents", ids=[agent])
        assert (await lead.listed(agent))["state"] in ("stopped", "lost")


async def test_an_agent_is_not_stopped_while_a_process_that_cant_be_ended_is_reported(
    home: Home, repository: Path, immortal: Immortal
) -> None:
    """Fault 7: stopping again is no error."""
    async with open_lead_in_memory(home, repository) as lead:
        (agent,) = await lead.spawn("echo up; exec sleep 1000")
        await lead.until(agent, last_event="up")
        await lead.call("stop_agents", ids=[agent])
        await lead.until(agent, state="finishing", last_event=immortal.words)
        (again,) = (await lead.call("stop_agents", ids=[agent]))["agents"]
        assert (again["state"], again["note"]) == ("finishing", immortal.words)
        immortal.lives = False
        await lead.until(agent, state="stopped")
        assert "could not be ended" not in str((await lead.call("get_result", id=agent))["warnings"])


async def test_an_agent_is_not_stopped_before_its_verify_has_ended(
    home: Home, repository: Path, immortal: Immortal
) -> None:
    """Fault 7: the stop comes while verify runs."""
    async with open_lead_in_memory(home, repository) as lead:
        (agent,) = await lead.spawn("true", verify=f"touch {home.state}/verifying; exec sleep 1000")
        await until((home.state / "verifying").exists)
        (stopped,) = (await lead.call("stop_agents", ids=[agent]))["agents"]
        assert stopped["state"] == "finishing"
        await lead.until(agent, state="finishing", last_event=immortal.words)
        immortal.lives = False
        await lead.until(agent, state="stopped")


async def test_an_agent_with_an_internal_error_fails_once_none_of_its_processes_runs(
    home: Home, repository: Path, immortal: Immortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("forkjoin.agents.run_agent.store_output", fail)
    async with open_lead_in_memory(home, repository) as lead:
        (agent,) = await lead.spawn("exec sleep 1000")
        await lead.until(agent, last_event=immortal.words)
        assert (await lead.listed(agent))["state"] == "running"
        immortal.lives = False
        await lead.until(agent, state="failed")
        assert (await lead.call("get_result", id=agent))["error"] == "RuntimeError: a fault of ours"


async def test_a_child_that_holds_stdout_ends_with_its_agent(lead: Lead, home: Home) -> None:
    """Fault 8."""
    (agent,) = await lead.run("setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo told; exit 0")
    result = await lead.call("get_result", id=agent)
    assert (result["state"], result["output"]) == ("succeeded", "told\n")
    assert marked(home) == set()


# -- hangs


@pytest.mark.parametrize("limit", ["timeout_minutes", "silence_minutes"])
async def test_an_agent_that_hangs_is_timed_out_by_the_limit_that_its_error_names(
    lead: Lead, home: Home, limit: str
) -> None:
    """Fault 23: no process of the agent survives, and its work is kept."""
    (agent,) = await lead.run("echo kept > kept.txt; kill -STOP $$", **{limit: 0.02})
    result = await lead.call("get_result", id=agent)
    words = {"timeout_minutes": "ended by its time limit of 1.2 s", "silence_minutes": "ended after 1.2 s of silence"}
    assert (result["state"], result["error"]) == ("timed_out", words[limit])
    assert marked(home) == set()


async def test_a_wait_with_a_timeout_returns_and_shows_a_hanging_agents_last_event(lead: Lead) -> None:
    """Fault 23, without a time limit for the agent."""
    (agent,) = await lead.spawn("echo step 3 of 7; kill -STOP $$")
    await lead.until(agent, last_event="step 3 of 7")
    with anyio.fail_after(GIVE_UP_S):
        waited = await lead.call("wait_agents", ids=[agent], timeout_s=0.2)
    assert (waited["timed_out"], waited["pending"][0]["state"]) == (True, "running")
    assert (await lead.call("stop_agents", ids=[agent]))["agents"][0]["state"] == "stopped"


# -- failures

FAILURES: dict[str, tuple[str, str]] = {
    "exit": ("echo all is well; echo broken >&2; exit 3", "exit 3\nbroken"),
    "killed": ("echo all is well; kill -9 $$", "killed by signal 9\nall is well"),
    "silent": ("exit 1", "exit 1"),
}


@pytest.mark.parametrize("how", FAILURES)
async def test_an_agent_whose_program_fails_has_failed_whatever_it_printed(lead: Lead, how: str) -> None:
    """Fault 12: the result has the exit code or signal, and the end of stderr."""
    script, error = FAILURES[how]
    (agent,) = await lead.run(f"echo kept > kept.txt; {script}")
    result = await lead.call("get_result", id=agent)
    assert (result["state"], result["error"], result["files_changed"]) == ("failed", error, 1)
    assert result["warnings"][0] == "1 uncommitted path was committed for the agent."


#: Broken programs in place of claude: the content of their file, and the expected error.
BROKEN: dict[str, tuple[str | None, str]] = {
    "missing": (None, "No such file or directory"),
    "not executable": ("", "Permission denied"),
    "no stream": ("#!/bin/sh\necho no JSON; echo why >&2\n", "exit 0, without a result\nwhy"),
    "half a stream": ('#!/bin/sh\nprintf \'{"type": "result", "subty\'\n', "exit 0, without a result"),
    "an end, then a crash": (
        '#!/bin/sh\necho \'{"type": "result", "subtype": "success", "result": "well"}\'; exit 4\n',
        "exit 4, after its result",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_an_agent_whose_program_is_broken_has_failed(
    repository: Path, home: Home, tmp_path: Path, how: str
) -> None:
    """Fault 12: missing, not executable, a broken stream."""
    content, error = BROKEN[how]
    script = tmp_path / "talker"
    if content is not None:
        script.write_text(content)
        script.chmod(0o700 if content else 0o600)
    config = f'\n[agents.talker]\nkind = "claude"\ncommand = ["{script}"]\n'
    home.config_file.write_text(home.config_file.read_text() + config)
    async with open_lead(repository) as lead:
        (agent,) = await lead.run("a task", agent="talker")
        result = await lead.call("get_result", id=agent)
    assert result["state"] == "failed"
    assert error in result["error"]


# -- verify


async def test_a_verify_whose_shim_was_killed_runs_once_more(lead: Lead, home: Home) -> None:
    """Fault 27, for verify: a lost run says nothing about the work."""
    runs = home.state / "runs"
    verify = f'echo "$FORKJOIN_HOME" >> {runs}; test "$(wc -l < {runs})" -gt 1 || kill -9 $PPID; test -e x.txt'
    (agent,) = await lead.run("echo x > x.txt", verify=verify)
    result = await lead.call("get_result", id=agent)
    assert (result["state"], result["verify"]) == ("succeeded", "passed")
    assert runs.read_text().splitlines() == [str(home.state)] * 2
    assert marked(home) == set()


async def test_a_verify_that_is_lost_twice_fails_the_agent_with_a_reason(lead: Lead, home: Home) -> None:
    """Fault 27: without a passed verify, no agent succeeds."""
    (agent,) = await lead.run("echo x > x.txt", verify=f"echo run >> {home.state}/runs; kill -9 $PPID; sleep 1000")
    result = await lead.call("get_result", id=agent)
    assert (result["state"], result["verify"]) == ("failed", "failed")
    assert "lost, without an end record" in result["verify_output"]
    assert (home.state / "runs").read_text() == "run\n" * 2
    assert marked(home) == set()


async def test_a_verify_does_not_get_the_agents_token_and_the_token_is_not_on_disk(lead: Lead, home: Home) -> None:
    commands = [f'printf %s "${{FORKJOIN_TOKEN:?}}" > {home.state}/{name}' for name in ("program", "verify")]
    await lead.run(commands[0], verify=commands[1])
    token = (home.state / "program").read_bytes()
    assert (home.state / "verify").read_text() == NO_RIGHTS
    others = [file for file in home.state.rglob("*") if file.is_file() and file.name != "program"]
    assert not [file for file in others if token in file.read_bytes()]


# -- the machine


async def test_no_process_of_a_lost_agent_runs_once_its_end_is_recorded(lead: Lead, home: Home) -> None:
    """Fault 27: the program of a killed shim runs until the daemon ends it."""
    (agent,) = await lead.run("trap '' HUP INT TERM; (sleep 1000) & echo x > x.txt; kill -9 $PPID; sleep 1000")
    result = await lead.call("get_result", id=agent)
    assert marked(home) == set()
    assert (result["state"], result["files_changed"]) == ("lost", 1)


async def test_after_a_reboot_running_agents_are_lost_and_a_running_verify_runs_again(
    repository: Path, home: Home
) -> None:
    """Fault 27: all processes end at once and the boot id changes. All work is kept."""
    runs = home.state / "runs"
    verify = f"echo run >> {runs}; test $(wc -l < {runs}) -gt 1 || sleep 1000"
    async with open_lead(repository) as lead:
        (running,) = await lead.spawn("echo x > x.txt; echo up; exec sleep 1000")
        (verified,) = await lead.spawn("echo y > y.txt", verify=verify)
        await lead.until(running, last_event="up")
        await until(runs.exists)
        (daemon,) = (pid for pid, words in processes_of(home.state).items() if "daemon\0run" in words)
        for pid in (daemon, *of_attempts(home), *marked(home)):  # the daemon first, so that it notices nothing
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for file in home.attempts.glob("*/started.json"):
            file.write_text(json.dumps(["another boot", *json.loads(file.read_text())[1:]]))
        waited = await lead.call("wait_agents", ids=[running, verified], timeout_s=GIVE_UP_S)
        assert [agent["state"] for agent in waited["finished"]] == ["lost", "succeeded"]
        lost = await lead.call("get_result", id=running)
    assert git(repository, "show", f"{lost['branch']}:x.txt") == "x"
    assert "the machine went down" in lost["error"]
    assert runs.read_text() == "run\n" * 2


async def test_agents_start_in_the_order_of_the_queue(repository: Path, home: Home) -> None:
    """Fault 4: by priority, then in the order of the spawns."""
    limit(home, max_running=1)
    log, go = home.state / "log", home.state / "go"
    async with open_lead(repository) as lead:
        task = f"echo $FORKJOIN_NAME >> {log}; until test -e {go}; do sleep 0.02; done"
        agents = [{"name": f"n{n}", "priority": n % 3 - 1} for n in range(10)]
        await lead.spawn("first; " + task)
        await until(log.exists)
        spawned = await lead.call("spawn_agents", agents=agents, task=task)
        go.touch()
        ids = [agent["id"] for agent in spawned["agents"]]
        assert not (await lead.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S))["timed_out"]
    expected = sorted(range(10), key=lambda n: (-(n % 3 - 1), n))
    assert log.read_text().split()[1:] == [f"n{n}" for n in expected]
    assert list((repository / ".git").glob("**/*.lock")) == [repository / ".git" / "forkjoin.lock"]


async def test_an_agent_that_cant_start_for_lack_of_open_files_is_retried(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transient error does not end an agent."""
    refused: list[str] = []
    really = os.mkfifo

    def refuse_twice(path: Path, mode: int) -> None:
        if len(refused) < 2:
            refused.append(str(path))
            raise OSError(24, "Too many open files")
        really(path, mode)

    monkeypatch.setattr(os, "mkfifo", refuse_twice)
    monkeypatch.setattr("forkjoin.reconciler._RETRY_DELAY_S", 0.02)
    async with open_lead_in_memory(home, repository) as lead:
        (agent,) = await lead.run(f"echo started >> {home.state}/log")
        assert (await lead.call("get_result", id=agent))["state"] == "succeeded"
    assert len(refused) == 2
    assert (home.state / "log").read_text() == "started\n"


def test_the_command_line_accepts_a_silence_limit(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "echo up; exec sleep 1000", "--silence-minutes", "0.01")
    done = forkjoin(repository, "wait", check=False)
    assert "timed_out  ended after 0.6 s of silence" in done.stdout
    assert not file_lock.is_held(home.attempts / "a1-1" / "lock")
    about = json.loads((home.attempts / "a1-1" / "about.json").read_text())
    assert (about["agent"], about["spec"]["silence_minutes"]) == (1, 0.01)
    assert Path(about["worktree"]).is_dir()
