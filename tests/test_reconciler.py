"""The retries of the reconciler, which need no other event."""

from pathlib import Path

import pytest
from forkjoin.agents import process_control
from forkjoin.agents.stop import end_processes
from forkjoin.core.model import Agent
from forkjoin.core.paths import Home
from forkjoin.services import Services
from support.harness import open_lead_in_memory


async def test_a_failed_stop_is_tried_again_without_another_event(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [OSError("processes can't be listed")]

    async def end(services: Services, agent: Agent) -> None:
        if errors:
            raise errors.pop()
        await end_processes(services, agent)

    monkeypatch.setattr(process_control, "end_processes", end)
    async with open_lead_in_memory(home, repository) as lead:
        (agent,) = await lead.spawn("sleep 1000")
        await lead.until(agent, state="running")
        stopped = await lead.call("stop_agents", ids=[agent])
        assert [row["state"] for row in stopped["agents"]] == ["stopped"]
