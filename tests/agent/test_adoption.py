"""A daemon that takes over: what another has left goes on, and what it lost is waited for and said."""

import os
import signal
from pathlib import Path

import anyio
from forkjoin import lock
from forkjoin.paths import Home
from harness import GIVE_UP_S, Lead, forkjoin, open_lead


def _kill_daemon(where: Path, home: Home) -> None:
    pid = int(forkjoin(where, "daemon", "status").stdout.partition("pid ")[2].partition(",")[0])
    os.kill(pid, signal.SIGKILL)
    while lock.is_held(home.daemon_lock):
        pass


async def _until_running(lead: Lead, agent: str) -> None:
    with anyio.fail_after(GIVE_UP_S):
        while (await lead.call("list_agents", ids=[agent]))["agents"][0]["state"] != "running":
            await anyio.sleep(0.02)


async def test_an_agent_that_ended_while_no_daemon_was_there_gets_its_result(repository: Path, home: Home) -> None:
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn(f"until test -e {home.state}/go; do sleep 0.02; done; echo x > x.txt; echo told")
        await _until_running(lead, first)
        _kill_daemon(repository, home)
        (home.state / "go").touch()
        ended = await lead.call("wait_agents", ids=[first], timeout_s=GIVE_UP_S)
        assert [(one["state"], one["summary"]) for one in ended["finished"]] == [("succeeded", "told")]
        assert (await lead.call("get_result", id=first))["files_changed"] == 1


async def test_a_shim_that_ends_starts_the_daemon_where_none_is_there(repository: Path, home: Home) -> None:
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn(f"until test -e {home.state}/go; do sleep 0.02; done; echo told")
        await _until_running(lead, first)
    _kill_daemon(repository, home)
    (home.state / "go").touch()
    with anyio.fail_after(GIVE_UP_S):
        while not lock.is_held(home.daemon_lock):
            await anyio.sleep(0.02)
    assert "told" in forkjoin(repository, "wait", first).stdout


async def test_what_a_restart_has_queued_waits_for_its_leads_environment_and_says_so(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    home.config_file.write_text(home.config_file.read_text().replace("[limits]", "[limits]\nmax_running = 1"))
    async with open_lead(repository, MINE="theirs") as lead:
        blocker, second = await lead.spawn("sleep 1000", 'echo "$MINE"')
        await _until_running(lead, blocker)
    _kill_daemon(repository, home)
    forkjoin(tmp_path, "daemon", "start")  # from elsewhere: it brings no environment for this project
    status = forkjoin(tmp_path, "status").stdout
    assert "environment is gone since a restart" in status
    async with open_lead(repository, MINE="theirs again") as lead:
        await lead.call("stop_agents", ids=[blocker])
        ended = await lead.call("wait_agents", ids=[second], timeout_s=GIVE_UP_S)
        assert ended["finished"][0]["summary"] == "theirs again"


async def test_an_environment_that_is_no_utf_8_arrives_as_it_was(repository: Path, home: Home) -> None:
    odd = os.fsdecode(b"caf\xe9")
    async with open_lead(repository, ODD=odd) as lead:
        (first,) = await lead.run('printf %s "$ODD" | od -An -tx1')
        assert (await lead.call("get_result", id=first))["output"].split() == ["63", "61", "66", "e9"]
