"""The reconciler: what could not be done is tried again, whether or not anything else happens."""

from pathlib import Path

import pytest
from forkjoin.agents import process_control
from forkjoin.agents.stop import end_processes
from forkjoin.core.model import Agent
from forkjoin.core.paths import Home
from forkjoin.services import Services
from support.harness import open_lead_in_memory


async def test_a_stop_that_failed_is_tried_again_though_nothing_else_happens(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles = [OSError("no process can be looked at now")]

    async def end(services: Services, agent: Agent) -> None:
        if troubles:
            raise troubles.pop()
        await end_processes(services, agent)

    monkeypatch.setattr(process_control, "end_processes", end)
    async with open_lead_in_memory(home, repository) as lead:
        (agent,) = await lead.spawn("sleep 1000")
        await lead.until(agent, state="running")
        stopped = await lead.call("stop_agents", ids=[agent])
        assert [one["state"] for one in stopped["agents"]] == ["stopped"]
