"""Findings that agents of one lead share."""

import sqlite3
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from forkjoin.store.findings import MOST
from forkjoin_tools.reply_size import REPLY_BYTES, json_size
from support.harness import Lead, lead_of, program_of


async def at_work(lead: Lead, many: int) -> None:
    """Spawn this number of agents, which run until they are stopped."""
    for agent in await lead.spawn(*["sleep 1000"] * many):
        await lead.until(agent, state="running")


async def test_only_agents_of_the_same_lead_read_an_agents_findings(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    await at_work(near_lead, 2)
    async with lead_of(in_process_reconciler, repository, "session-2") as another:
        await at_work(another, 1)
    async with (
        program_of(in_process_reconciler, "a1") as reporter,
        program_of(in_process_reconciler, "a2") as other,
        program_of(in_process_reconciler, "a3") as stranger,
    ):
        await reporter.call("share_finding", text="The tests\nneed a database.")
        answer = await other.call("read_findings")
        assert answer.endswith("a1 (sleep-1000): The tests need a database.")
        assert await stranger.call("read_findings") == "Nobody has shared anything yet."
    assert (await near_lead.listed("a1"))["last_event"] == "found: The tests need a database."


async def test_the_oldest_of_too_many_findings_are_dropped(
    in_process_reconciler: Reconciler, near_lead: Lead, home: Home
) -> None:
    await at_work(near_lead, 2)
    async with program_of(in_process_reconciler, "a1") as reporter, program_of(in_process_reconciler, "a2") as other:
        await other.call("share_finding", text="the first")
        for number in range(MOST):
            await reporter.call("share_finding", text=f"number {number}")
        findings = (await other.call("read_findings")).splitlines()
    assert len(findings) == MOST
    assert findings[0].endswith(f"number {MOST - 1}")
    assert "the first" not in findings[-1]
    with sqlite3.connect(home.records) as records:
        assert records.execute("SELECT count(*) FROM finding").fetchone() == (MOST,)
    records.close()


@pytest.mark.parametrize("character", ["\x01", "\U0001f600"])
async def test_all_findings_fit_into_one_answer(
    in_process_reconciler: Reconciler, near_lead: Lead, character: str
) -> None:
    await near_lead.call("spawn_agent", task="sleep 1000", name="n" * 64)
    await near_lead.until("a1", state="running")
    async with program_of(in_process_reconciler, "a1") as reporter:
        for number in range(MOST):
            await reporter.call("share_finding", text=f"{number}: {character * 495}.")
        answer = await reporter.call("read_findings")
    assert f"): {MOST - 1}: " in answer.splitlines()[0]
    assert json_size(answer) <= REPLY_BYTES
    assert len(answer.splitlines()) == MOST or character != "\x01"


async def test_an_agent_that_reports_in_a_loop_is_limited(
    in_process_reconciler: Reconciler, near_lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forkjoin_tools.progress_and_findings._MOST_REPORTS", 3)
    (agent,) = await near_lead.spawn("sleep 1000")
    await near_lead.until(agent, state="running")
    async with program_of(in_process_reconciler, agent) as program:
        for tool in ("report_progress", "share_finding", "report_progress"):
            await program.call(tool, text="still here")
        for tool in ("report_progress", "share_finding"):
            assert "You have sent 3 reports, which is the limit" in await program.refusal(tool, text="and here")
        assert (
            len(await in_process_reconciler.store.findings.shared_with(await in_process_reconciler.store.agents.get(1)))
            == 1
        )
