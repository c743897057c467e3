"""Transient errors: the operation is retried, and no agent or merge fails (faults 16 and 17)."""

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from forkjoin.core.paths import Home
from support.harness import GIVE_UP_S, Lead, first_answer, lead_of, open_reconciler_in_memory

FULL = OSError(errno.ENOSPC, "No space left on device")


class Fault:
    """A wrapper of a function that fails until the fault is mended."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self.function = function
        self.mended = False

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not self.mended:
            raise FULL
        return await self.function(*arguments, **named)


async def _until_told(lead: Lead, what: str) -> None:
    async def is_told() -> bool:
        trouble = (await lead.call("get_status"))["trouble"]
        return any(what in line and "No space left" in line for line in trouble)

    await first_answer(is_told)


@pytest.mark.parametrize("moment", ["prepare", "finish"])
async def test_an_agent_waits_until_the_disk_has_space_and_its_last_event_says_so(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    from forkjoin.agents import run_agent

    fault = Fault(getattr(run_agent, moment))
    monkeypatch.setattr(run_agent, moment, fault)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (first,) = await lead.spawn("echo x > x.txt; echo told")
        await _until_told(lead, "a1 (")
        words = "a1 (echo-x-x-txt-echo-told) can't be carried on now, and is tried again"
        await lead.until(first, last_event=f"{words}: OSError: {FULL}")
        fault.mended = True
        ended = await lead.call("wait_agents", ids=[first], timeout_s=GIVE_UP_S)
        assert [(agent["state"], agent["summary"]) for agent in ended["finished"]] == [("succeeded", "told")]
        assert reconciler.trouble == {}


async def test_a_merge_waits_until_the_disk_has_space(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forkjoin.git.merging.merge_branches_in_order import merge_branches_in_order
    from forkjoin.merge_queue import train

    fault = Fault(merge_branches_in_order)
    monkeypatch.setattr(train, "merge_branches_in_order", fault)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.run("echo x > x.txt")
        landed: list[Any] = []

        async def merge() -> None:
            landed.append(await lead.call("merge_worktree", ids=["a1"]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(merge)
            await _until_told(lead, "merge job 1")
            fault.mended = True
        assert [agent["id"] for agent in landed[0]["merged"]] == ["a1"]
