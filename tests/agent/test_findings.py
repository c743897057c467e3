"""What agents tell each other: a short list, of those of one lead."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forkjoin.loop import Loop
from forkjoin.paths import Home
from forkjoin.record.findings import MOST
from harness import Lead, lead_of, open_loop_in_memory, program_of


@pytest.fixture
async def loop(home: Home) -> AsyncIterator[Loop]:
    async with open_loop_in_memory(home) as found:
        yield found


@pytest.fixture
async def lead(loop: Loop, repository: Path) -> AsyncIterator[Lead]:
    async with lead_of(loop, repository) as found:
        yield found


async def test_what_one_has_found_others_of_its_lead_read_and_nobody_else(
    loop: Loop, lead: Lead, repository: Path
) -> None:
    await lead.run("true", "true")
    async with lead_of(loop, repository, "session-2") as another:
        await another.run("true")
    async with program_of(loop, "a1") as one, program_of(loop, "a2") as other, program_of(loop, "a3") as stranger:
        await one.call("share_finding", text="The tests\nneed a database.")
        told = await other.call("read_findings")
        assert told.endswith("a1 (true): The tests need a database.")
        assert await stranger.call("read_findings") == "Nobody has shared anything yet."
    assert (await lead.listed("a1"))["last_event"] == "found: The tests need a database."


async def test_of_many_findings_the_oldest_go(loop: Loop, lead: Lead, home: Home) -> None:
    await lead.run("true", "true")
    async with program_of(loop, "a1") as one, program_of(loop, "a2") as other:
        await other.call("share_finding", text="the first")
        for number in range(MOST):
            await one.call("share_finding", text=f"number {number}")
        told = (await other.call("read_findings")).splitlines()
    assert len(told) == MOST
    assert told[0].endswith(f"number {MOST - 1}")
    assert "the first" not in told[-1]
    with sqlite3.connect(home.records) as records:
        assert records.execute("SELECT count(*) FROM finding").fetchone() == (MOST,)
    records.close()
