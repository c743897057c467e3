"""After the lead's end its agents go on, and a new lead finds all of them."""

import os
import signal
from pathlib import Path

import pytest
from conftest import processes_of
from forkjoin.core.paths import Home
from support.harness import GIVE_UP_S, INITIALIZE, INITIALIZED, RawRelay, open_lead

#: Ways in which the relay ends: a signal to the relay or to its process group, or a closed stdin.
ENDS = [
    (0, False),
    *((signum, group) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL) for group in (False, True)),
]


def _end(relay: RawRelay, signum: int, group: bool) -> None:
    if signum:
        (os.killpg if group else os.kill)(relay.process.pid, signum)
    else:
        assert relay.process.stdin
        relay.process.stdin.close()
    relay.process.wait(GIVE_UP_S)


@pytest.mark.parametrize(("signum", "group"), ENDS)
async def test_agents_outlive_their_lead_and_a_new_one_finds_them(
    repository: Path, home: Home, signum: int, group: bool
) -> None:
    task = f"echo up > up.txt; until test -e {home.state}/go; do sleep 0.02; done; echo lived on"
    with RawRelay(repository, own_group=True) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        relay.answer()
        relay.call(1, "spawn_agents", agents=[{"task": task}, {"task": task}])
        _end(relay, signum, group)
    async with open_lead(repository, "another") as lead:
        listed = (await lead.call("list_agents"))["agents"]
        assert sorted(agent["id"] for agent in listed) == ["a1", "a2"]
        assert {agent["state"] for agent in listed} <= {"queued", "preparing", "running"}
        (home.state / "go").touch()
        ended = (await lead.call("wait_agents", ids=["a1", "a2"], timeout_s=GIVE_UP_S))["finished"]
        assert [(agent["state"], agent["summary"]) for agent in ended] == [("succeeded", "lived on")] * 2
    left = [words for words in processes_of(home.state).values() if "lived on" in words or "shim.py" in words]
    assert left == []
