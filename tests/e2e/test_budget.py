"""The real claude under a budget: it is asked to wind up, and pauses before it spends more than one call beyond."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.fakes.messages_api import MessagesApi
from support.fakes.script import Asked, Block, Text, ToolUse
from support.harness import open_lead_in_memory

pytestmark = pytest.mark.vendor

#: What a call costs that uses what the API says: 100 tokens in, 1000 read from its cache, 10 out, of claude-opus-4-8.
CALL_USD = (100 * 5 + 1000 * 0.5 + 10 * 25) / 1e6
LOOK = ToolUse("Bash", {"command": "echo x >> x.txt; sleep 0.2", "description": "work"})
#: Until it is over, what its call has cost is known, and the word that follows from that has come.
LONG_LOOK = ToolUse("Bash", {"command": "echo x >> x.txt; sleep 10", "description": "work"})


async def test_claude_spends_no_more_than_its_budget_and_one_call_and_goes_on_with_more(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    def answers(asked: Asked) -> Sequence[Block]:
        told = json.dumps(asked.body["messages"])
        if "Your program was interrupted" in told:
            return [Text("All done.")]
        return [LONG_LOOK if asked.answers == 8 else LOOK]  # by then it is told to wind up, and heeds it not

    api.script = answers
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.spawn("Work.", model="claude-opus-4-8", budget_usd=10 * CALL_USD)
        await lead.last_event(first, "is used up; set_budget raises it")
        paused = await lead.until(first, state="paused")
        asked = len(api.asked)
        assert 10 <= asked <= 11, "the call by which the budget is used up, and one that was under way"
        assert paused["cost_usd"] == pytest.approx(asked * CALL_USD, rel=0.2)
        assert json.dumps([one.body["messages"] for one in api.asked]).count("Finish now") >= 1
        await lead.call("set_budget", id=first, budget_usd=20 * CALL_USD)
        (result,) = await lead.results(first)
    assert (result["state"], result["output"], result["files_changed"]) == ("succeeded", "All done.", 1)
    assert result["cost_usd"] == pytest.approx(len(api.asked) * CALL_USD, rel=0.2)


async def test_claude_that_is_asked_to_wind_up_ends_with_its_report(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    def answers(asked: Asked) -> Sequence[Block]:
        told = json.dumps(asked.body["messages"])
        if "Finish now" in told:
            return [Text("This is left: all.")]
        return [LOOK if asked.answers < 8 else LONG_LOOK]

    api.script = answers
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.spawn("Work.", model="claude-opus-4-8", budget_usd=10 * CALL_USD)
        (result,) = await lead.results(first)
    assert (result["state"], result["output"]) == ("succeeded", "This is left: all.")
    assert result["cost_usd"] < 11 * CALL_USD
