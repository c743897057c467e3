"""A daemon that takes over from another one: agents continue, and lost environments are waited for."""

import os
import sqlite3
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
from conftest import processes_of
from forkjoin.core import file_lock
from forkjoin.core.paths import Home
from support.harness import GIVE_UP_S, Lead, forkjoin, git, kill_daemon, kill_daemon_of, limit, open_lead, until


def _kill_daemon_at(home: Home) -> None:
    """Kill the daemon without a command that would bring an environment."""
    kill_daemon_of(home, next(pid for pid, words in processes_of(home.state).items() if "daemon\0run" in words))


async def test_an_agent_that_ended_while_no_daemon_ran_gets_its_result(repository: Path, home: Home) -> None:
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn(f"until test -e {home.state}/go; do sleep 0.02; done; echo x > x.txt; echo told")
        await lead.until(first, state="running")
        kill_daemon(repository, home)
        (home.state / "go").touch()
        ended = await lead.call("wait_agents", ids=[first], timeout_s=GIVE_UP_S)
        assert [(agent["state"], agent["summary"]) for agent in ended["finished"]] == [("succeeded", "told")]
        assert (await lead.call("get_result", id=first))["files_changed"] == 1


async def test_a_shim_starts_the_daemon_at_its_end_if_none_runs(repository: Path, home: Home) -> None:
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn(f"until test -e {home.state}/go; do sleep 0.02; done; echo told")
        await lead.until(first, state="running")
    kill_daemon(repository, home)
    (home.state / "go").touch()
    await until(lambda: file_lock.is_held(home.daemon_lock))
    assert "told" in forkjoin(repository, "wait", first).stdout


async def test_without_a_tmpfs_a_queued_agent_waits_after_a_restart_for_its_leads_environment(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    limit(home, max_running=1)
    async with open_lead(repository, MINE="theirs") as lead:
        blocker, second = await lead.spawn("sleep 1000", 'echo "$MINE"')
        await lead.until(blocker, state="running")
    kill_daemon(repository, home)
    forkjoin(tmp_path, "daemon", "start")  # outside of the project: brings no environment for it
    status = forkjoin(tmp_path, "status").stdout
    assert "environment is gone since a restart" in status
    async with open_lead(repository, MINE="theirs again") as lead:
        await lead.call("stop_agents", ids=[blocker])
        ended = await lead.call("wait_agents", ids=[second], timeout_s=GIVE_UP_S)
        assert ended["finished"][0]["summary"] == "theirs again"


async def test_an_agent_that_waits_for_its_leads_environment_has_no_slot(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    limit(home, max_running=1)
    until_go = f"until test -e {home.state}/go; do sleep 0.02; done"
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn(until_go, verify="test -e $HOME")
        await lead.until(first, state="running")
    _kill_daemon_at(home)
    (home.state / "go").touch()
    forkjoin(tmp_path, "daemon", "start")  # outside of the project: brings no environment for it
    elsewhere = tmp_path / "elsewhere"
    git(tmp_path, "clone", "--quiet", str(repository), str(elsewhere))
    async with open_lead(elsewhere, "other") as other:
        (second,) = await other.spawn("sleep 1000")
        await other.until(second, state="running")
        status = await other.call("get_status")
        assert (status["running"], status["queued"]) == (1, 1)
        assert status["waiting"] == [
            f"{first}: its lead's environment is gone since a restart; it comes back with its session"
        ]
        async with open_lead(repository) as lead:
            assert await lead.last_event(first, "the only slot is taken")
            assert (await lead.listed(first))["state"] == "finishing"
            await other.call("stop_agents", ids=[second])
            (result,) = await lead.results(first)
            assert (result["state"], result["verify"]) == ("succeeded", "passed")


async def test_a_failed_agent_doesnt_wait_for_an_environment_since_its_verify_doesnt_run(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn(f"until test -e {home.state}/go; do sleep 0.02; done; exit 3", verify="true")
        await lead.until(first, state="running")
    _kill_daemon_at(home)
    (home.state / "go").touch()
    forkjoin(tmp_path, "daemon", "start")  # outside of the project: brings no environment for it

    def state() -> str:
        with closing(sqlite3.connect(f"file:{home.records}?mode=ro", uri=True)) as records:
            found: str = records.execute("SELECT state FROM agent").fetchone()[0]
            return found

    await until(lambda: state() == "failed")


async def test_an_environment_that_is_not_utf_8_arrives_unchanged(repository: Path, home: Home) -> None:
    odd = os.fsdecode(b"caf\xe9")
    async with open_lead(repository, ODD=odd) as lead:
        (first,) = await lead.run('printf %s "$ODD" | od -An -tx1')
        assert (await lead.call("get_result", id=first))["output"].split() == ["63", "61", "66", "e9"]


async def test_a_merge_that_waits_for_its_lead_delays_no_other_merge(repository: Path, home: Home) -> None:
    verify = f"touch {home.state}/verifying; until test -e {home.state}/go; do sleep 0.02; done"
    first = second = ""
    async with open_lead(repository, "gone") as gone, anyio.create_task_group() as tasks:
        first, second = await gone.run("echo 1 > 1.txt", "echo 2 > 2.txt")
        tasks.start_soon(partial(gone.call, "merge_worktree", ids=[first], verify=verify))
        await until((home.state / "verifying").exists)
        subprocess.run(["pkill", "-9", "-P", str(os.getpid()), "-f", "forkjoin mcp"], check=True)
        _kill_daemon_at(home)
        tasks.cancel_scope.cancel()
    async with open_lead(repository, "other") as other:
        landed = await other.call("merge_worktree", ids=[second])
        assert [agent["id"] for agent in landed["merged"]] == [second]
        assert "1 merge(s) wait" in (await other.call("get_status"))["trouble"][0]
        (home.state / "go").touch()
        forkjoin(repository, "status")  # a person's command brings an environment
        await other.until(first, merge="merged")


async def test_the_next_daemon_completes_an_interrupted_stop(repository: Path, home: Home) -> None:
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn("trap '' TERM; while :; do sleep 0.1; done")
        await lead.until(first, state="running")
        with sqlite3.connect(home.records) as records:  # the state if the daemon was killed right after that
            kill_daemon(repository, home)
            records.execute("UPDATE agent SET stop_asked = 1")
        records.close()
        ended = await lead.call("wait_agents", ids=[first], timeout_s=GIVE_UP_S)
        assert [agent["state"] for agent in ended["finished"]] == ["stopped"]


async def test_an_agent_keeps_the_program_that_was_the_default_when_it_was_spawned(
    repository: Path, home: Home
) -> None:
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn(f"until test -e {home.state}/go; do sleep 0.02; done; echo told")
        await lead.until(first, state="running")
        home.config_file.write_text(home.config_file.read_text().replace('= "sh"', '= "claude"', 1))
        kill_daemon(repository, home)
        (home.state / "go").touch()
        ended = await lead.call("wait_agents", ids=[first], timeout_s=GIVE_UP_S)
        assert [(agent["state"], agent["summary"]) for agent in ended["finished"]] == [("succeeded", "told")]


async def test_agents_and_the_daemon_survive_records_that_are_locked_for_a_while(repository: Path, home: Home) -> None:
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn(f"until test -e {home.state}/go; do sleep 0.02; done; echo told")
        await lead.until(first, state="running")
        before = home.log.read_text().count(" up: ")
        records = sqlite3.connect(home.records, isolation_level=None)
        records.execute("BEGIN IMMEDIATE")
        (home.state / "go").touch()
        await until(lambda: "could not be carried on; trying again" in home.log.read_text())
        records.execute("ROLLBACK")
        records.close()
        ended = await lead.call("wait_agents", ids=[first], timeout_s=GIVE_UP_S)
        assert [(agent["state"], agent["summary"]) for agent in ended["finished"]] == [("succeeded", "told")]
        assert home.log.read_text().count(" up: ") == before


async def test_a_merged_agent_whose_name_was_taken_again_is_skipped_in_a_second_merge(lead: Lead) -> None:
    for text in ("one", "two"):
        agent = await lead.call("spawn_agent", task=f"echo {text} > {text}.txt", name="again")
        await lead.call("wait_agents", ids=[agent["id"]], timeout_s=GIVE_UP_S)
        await lead.call("merge_worktree", ids=[agent["id"]])
    landed = await lead.call("merge_worktree", ids=["a1"])
    assert landed["skipped"] == [{"id": "a1", "why": "merged before"}]
