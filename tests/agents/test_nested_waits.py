"""Waits of agents for the agents that they spawned."""

from pathlib import Path

import pytest
from forkjoin.core.session import digest_of
from forkjoin.reconciler import Reconciler
from forkjoin_tools.reply_wait import ReplyWait
from support.harness import (
    GIVE_UP_S,
    Lead,
    lead_of,
    program_of,
)
from support.nested_agents import WAITS, begin


async def test_an_agents_command_line_waits_for_its_nested_agents_in_the_only_slot(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_process_reconciler.schedule, "max_running", 1)
    await begin(near_lead, agents=5)
    await in_process_reconciler.store.agents.add_token(1, digest_of("its token"))
    async with program_of(in_process_reconciler, "a1") as program:
        await program.spawn("true", "true")
    async with lead_of(in_process_reconciler, repository, kind="cli", token="its token") as shell:
        waited = await shell.call("wait_agents", ids=["a2"], timeout_s=GIVE_UP_S)
        assert [agent["id"] for agent in waited["finished"]] == ["a2"]
        waited = await shell.call("wait_agents", timeout_s=GIVE_UP_S)
        assert [agent["id"] for agent in waited["finished"]] == ["a3"]


async def test_an_agent_that_waits_for_foreign_agents_keeps_its_slot(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(near_lead, agents=5)
    await in_process_reconciler.store.agents.add_token(1, digest_of("its token"))
    awaiting: list[list[int]] = []

    async def look(self: ReplyWait, *_: object) -> None:
        awaiting.append([*in_process_reconciler.services.waiting_for_nested])

    monkeypatch.setattr(ReplyWait, "wait", look)
    async with (
        program_of(in_process_reconciler, "a1") as program,
        lead_of(in_process_reconciler, repository, kind="cli", token="its token") as shell,
    ):
        (child,) = await program.spawn("true")
        for ids in ([child], [child, "a1"], ["a1"]):
            await shell.call("wait_agents", ids=ids)
    assert awaiting == [[1], [], []]


async def test_silence_while_waiting_for_nested_agents_does_not_count(
    in_process_reconciler: Reconciler, near_lead: Lead
) -> None:
    (parent,) = await near_lead.spawn(WAITS, nesting={"agents": 1}, silence_minutes=0.02)
    await near_lead.until(parent, state="running")
    async with program_of(in_process_reconciler, parent) as program:
        await program.spawn("sleep 3")
        await program.call("wait_agents", timeout_s=GIVE_UP_S)
        (Path((await in_process_reconciler.store.agents.get(1)).worktree.path) / "go").touch()
    (result,) = await near_lead.results(parent)
    assert result["state"] == "succeeded"


async def test_silence_while_nested_agents_are_merged_does_not_count(
    in_process_reconciler: Reconciler, near_lead: Lead
) -> None:
    (parent,) = await near_lead.spawn(WAITS, nesting={"agents": 1}, silence_minutes=0.02)
    await near_lead.until(parent, state="running")
    async with program_of(in_process_reconciler, parent) as program:
        await program.run("echo theirs > theirs.txt")
        await program.call("merge_worktree", ids=["a2"], verify="sleep 3")
        (Path((await in_process_reconciler.store.agents.get(1)).worktree.path) / "go").touch()
    (result,) = await near_lead.results(parent)
    assert result["state"] == "succeeded"
