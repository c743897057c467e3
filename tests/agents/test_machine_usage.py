"""Memory of the machine: needs are learned, agents wait for it, and the youngest one gives it back."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from forkjoin.agents.machine_usage import MachineMonitor
from forkjoin.core.model import Agent, PauseKind
from forkjoin.core.paths import Home
from forkjoin.process.capacity import Capacity
from forkjoin.process.executor import Executor
from forkjoin.reconciler import Reconciler
from support.harness import Lead, first_answer, lead_of, open_lead_in_memory, open_reconciler_in_memory

GB = 1_000_000_000
TAKES = "python3 -c \"import time; x = b'x' * 200_000_000; time.sleep(0.5)\""

#: Runs until it gets a message.
TALKS = """
import os, time
answer('I begin.')
while run == 1:
    time.sleep(0.02)
succeed(told)"""


def let_have(reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """Make this much of ten gigabytes of memory free."""

    async def capacity() -> Capacity:
        return Capacity(2, 10 * GB, int(free), 0)

    monkeypatch.setattr(reconciler.services.executor, "capacity", capacity)
    reconciler.store.changes.announce()


async def test_a_measurement_of_the_machine_is_reused_for_a_moment(
    reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("forkjoin.agents.machine_usage.time", SimpleNamespace(monotonic=lambda: now))
    monitor = MachineMonitor(reconciler.services)
    let_have(reconciler, monkeypatch, 3 * GB)
    await monitor.measure([])
    let_have(reconciler, monkeypatch, 5 * GB)
    kept = await monitor.measure([])
    now = 1.5
    fresh = await monitor.measure([])
    assert kept
    assert fresh
    assert (kept.free_bytes, fresh.free_bytes) == (3 * GB, 5 * GB)


async def test_agents_run_if_the_machine_cant_be_measured(
    home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def capacity(_: Executor) -> Capacity:
        raise ValueError("a container's odd /proc")

    monkeypatch.setattr(Executor, "capacity", capacity)
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("echo x > x.txt")


async def test_an_agent_waits_for_the_memory_that_its_program_needed_before(
    home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.run(TAKES)
        ((kind, peak),) = (await reconciler.store.projects.memory_peaks()).items()
        assert kind == (1, "sh")
        assert 200_000_000 < peak < 400_000_000
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:  # it is kept
        let_have(reconciler, monkeypatch, 0.9 * GB)
        first, second, third = await lead.spawn(*["sleep 60"] * 3)
        await lead.last_event(third, "of memory free, 0.")
        await lead.call("stop_agents", ids=[first, second, third])


async def test_when_memory_is_short_the_youngest_agent_pauses_and_resumes_its_conversation(
    talking: Lead, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_have(reconciler, monkeypatch, 8 * GB)
    first, second = [(await talking.spawn(TALKS, agent="talker"))[0] for _ in range(2)]
    for id_ in (first, second):
        await talking.last_event(id_, "I begin.")
    let_have(reconciler, monkeypatch, 0.1 * GB)

    async def paused() -> list[Agent]:
        live = await reconciler.store.agents.live()
        return [agent for agent in live if agent.phase in (PauseKind.FROZEN, PauseKind.RESTING)]

    (youngest,) = await first_answer(paused)
    assert "of memory free, " in await talking.last_event(youngest.id, "needed")
    (other,) = {first, second} - {youngest.id}
    assert (await talking.listed(other))["state"] == "running"
    let_have(reconciler, monkeypatch, 8 * GB)
    (result,) = await talking.results(youngest.id)
    assert (result["state"], "(memory is short)" in result["output"]) == ("succeeded", True)
    await talking.call("stop_agents", ids=[other])
