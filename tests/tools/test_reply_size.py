"""No reply line is over 64 KiB, including text, structure and escapes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forkjoin.core.paths import Home
from support.harness import GIVE_UP_S, INITIALIZE, INITIALIZED, RawRelay, tool_call

LIMIT = 64 * 1024


class Measured:
    """A relay that checks the length of every reply line."""

    def __init__(self, relay: RawRelay) -> None:
        self._relay = relay
        self._number = 0

    def call(self, tool: str, **arguments: Any) -> Any:
        self._number += 1
        self._relay.send(tool_call(self._number, tool, **arguments))
        assert self._relay.process.stdout
        line = self._relay.process.stdout.readline()
        assert len(line) <= LIMIT, (tool, len(line))
        result = json.loads(line)["result"]
        assert not result["isError"], result
        return result.get("structuredContent", result["content"][0]["text"])


@pytest.fixture
def relay(repository: Path, home: Home) -> Iterator[Measured]:
    with RawRelay(repository) as found:
        found.send(INITIALIZE, INITIALIZED)
        found.answer()
        yield Measured(found)


def test_an_agents_output_fits_into_replies_however_it_is_escaped(relay: Measured) -> None:
    for printed in ("\\001", "\\\\", "\\377", "\\360\\237\\231\\202", ""):
        loud = f"yes \"$(printf '{printed}x')\" | tr -d '\\nx' | head -c 60000" if printed else "yes '' | head -n 60000"
        agent = relay.call("spawn_agent", task=f"{loud} > file.txt; {loud}", verify=f"{loud}; exit 1")["id"]
        relay.call("wait_agents", ids=[agent], timeout_s=GIVE_UP_S)
        for detail in ("concise", "full"):
            relay.call("get_result", id=agent, detail=detail)
        relay.call("read_log", id=agent, limit=48_000)
        relay.call("read_log", id=agent, tail=500, limit=48_000)
        relay.call("read_diff", id=agent, limit=48_000)
        relay.call("list_agents")


def test_results_for_hundreds_of_agents_fit_and_report_every_agent(
    relay: Measured, home: Home, repository: Path
) -> None:
    agents = [{"task": "sleep 1000", "name": f"{n:03}-{'n' * 60}"} for n in range(250)]
    ids = [agent["id"] for agent in relay.call("spawn_agents", agents=agents)["agents"]]
    assert len(ids) == 250
    pending = relay.call("wait_agents", timeout_s=0)
    assert len(pending["pending"]) + pending.get("more", 0) == 250
    relay.call("stop_agents", ids=ids)
    reported: list[str] = []
    while ends := relay.call("wait_agents", timeout_s=GIVE_UP_S)["finished"]:
        reported += [end["id"] for end in ends]
    assert sorted(reported) == sorted(ids)
    assert len(relay.call("merge_worktree", ids=ids)["skipped"]) == 250
    relay.call("list_agents", limit=200)
