"""With thousands of recorded agents, a call reads only the agents that it returns."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from forkjoin.reconciler import Reconciler
from forkjoin.store import rows
from support.harness import Lead, lead_of
from support.records import multiply

MANY = 2000


class Reads:
    """A counter of the agents read from the records."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        read = rows.agent

        def count(row: rows.Row) -> Any:
            self.count += 1
            return read(row)

        monkeypatch.setattr(rows, "agent", count)


@pytest.fixture
async def crowd(in_process_reconciler: Reconciler, near_lead: Lead) -> Lead:
    """Yield a lead with thousands of ended agents."""
    await near_lead.run("true")
    multiply(in_process_reconciler.services.home.records, MANY)
    return near_lead


@pytest.fixture
async def person(in_process_reconciler: Reconciler, crowd: Lead, repository: Path) -> AsyncIterator[Lead]:
    """Yield a person at the command line in the crowd's repository."""
    async with lead_of(in_process_reconciler, repository, kind="cli") as found:
        yield found


@pytest.fixture
def reads(crowd: Lead, person: Lead, monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


async def test_a_page_of_the_list_reads_that_page_alone(crowd: Lead, reads: Reads) -> None:
    page = await crowd.call("list_agents", limit=10)
    assert [agent["id"] for agent in page["agents"]] == [f"a{MANY - n}" for n in range(10)]
    assert sum(page["counts"].values()) == MANY
    assert reads.count < 20


async def test_the_pages_of_a_list_hold_each_agent_once_newest_first(crowd: Lead) -> None:
    chosen: dict[str, Any] = {"state": ["failed"], "limit": 200}
    page = await crowd.call("list_agents", **chosen)
    found = page["agents"]
    while "cursor" in page:
        page = await crowd.call("list_agents", **chosen, cursor=page["cursor"])
        found += page["agents"]
    assert [agent["id"] for agent in found] == [f"a{n}" for n in range(MANY, 0, -1) if n % 3 == 0]


async def test_a_session_summary_reads_only_the_agents_that_it_returns(person: Lead, reads: Reads) -> None:
    answer = await person.call("brief")
    assert [agent["id"] for agent in answer["agents"][:3]] == [f"a{MANY - 1}", f"a{MANY - 2}", f"a{MANY - 3}"]
    assert len(answer["agents"]) + answer["more"] == sum(n % 2 or not n % 3 for n in range(2, MANY + 1))
    assert reads.count < 30


async def test_a_status_reads_no_agent_that_has_ended(person: Lead, reads: Reads) -> None:
    await person.call("get_status")
    assert reads.count == 0


async def test_a_wait_without_ids_reads_only_the_agents_that_it_returns(crowd: Lead, reads: Reads) -> None:
    waited = await crowd.call("wait_agents", timeout_s=0)
    assert len(waited["finished"]) + waited["more"] == MANY - 1, "the first was told before"
    assert reads.count < 1300


async def test_waits_without_ids_report_every_end(crowd: Lead) -> None:
    told: list[str] = []
    more = 1
    while more:
        answer = await crowd.call("wait_agents", timeout_s=0)
        told += [agent["id"] for agent in answer["finished"]]
        more = answer.get("more", 0)
    assert told == [f"a{n}" for n in range(2, MANY + 1)]


async def test_a_check_of_conflicts_reads_no_more_agents_than_it_compares(crowd: Lead, reads: Reads) -> None:
    assert "At most 150 agents are compared" in await crowd.refusal("check_conflicts")
    assert reads.count < 160


async def test_a_pass_of_the_reconciler_reads_no_agent_that_has_ended(
    in_process_reconciler: Reconciler, reads: Reads
) -> None:
    await in_process_reconciler.schedule.apply()
    assert reads.count == 0
