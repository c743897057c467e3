"""The real claude under a budget: it is asked to finish, and pauses at most one call beyond the budget."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.fakes.messages_api import MessagesApi
from support.fakes.script import Asked, Block, Text, ToolUse
from support.harness import open_lead_in_memory

pytestmark = pytest.mark.vendor

#: The cost of a call with the API's usage: claude-opus-4-8, 100 tokens input, 1000 read from its cache, 10 output.
CALL_USD = (100 * 5 + 1000 * 0.5 + 10 * 25) / 1e6
LOOK = ToolUse("Bash", {"command": "echo x >> x.txt; sleep 0.2", "description": "work"})
#: This command runs long enough for forkjoin to read the call's cost and to send the message that follows from it.
LONG_LOOK = ToolUse("Bash", {"command": "echo x >> x.txt; sleep 10", "description": "work"})


async def test_claude_pauses_at_most_one_call_beyond_its_budget_and_continues_when_the_budget_is_raised(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    def answers(asked: Asked) -> Sequence[Block]:
        messages = json.dumps(asked.body["messages"])
        if "Your program was interrupted" in messages:
            return [Text("All done.")]
        return [LONG_LOOK if asked.answers == 8 else LOOK]  # the message to finish arrives, and the model ignores it

    api.script = answers
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.spawn("Work.", model="claude-opus-4-8", budget_usd=10 * CALL_USD)
        await lead.last_event(first, "is used up; set_budget raises it")
        paused = await lead.until(first, state="paused")
        calls = len(api.asked)
        assert 10 <= calls <= 11, "the call that uses up the budget, and perhaps one that was already in progress"
        assert paused["cost_usd"] == pytest.approx(calls * CALL_USD, rel=0.2)
        assert json.dumps([asked.body["messages"] for asked in api.asked]).count("Finish now") >= 1
        await lead.call("set_budget", id=first, budget_usd=20 * CALL_USD)
        (result,) = await lead.results(first)
    assert (result["state"], result["output"], result["files_changed"]) == ("succeeded", "All done.", 1)
    assert result["cost_usd"] == pytest.approx(len(api.asked) * CALL_USD, rel=0.2)


async def test_claude_that_is_asked_to_finish_succeeds_with_a_report_within_its_budget(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    def answers(asked: Asked) -> Sequence[Block]:
        if "Finish now" in json.dumps(asked.body["messages"]):
            return [Text("This is left: all.")]
        return [LOOK if asked.answers < 8 else LONG_LOOK]

    api.script = answers
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.spawn("Work.", model="claude-opus-4-8", budget_usd=10 * CALL_USD)
        (result,) = await lead.results(first)
    assert (result["state"], result["output"]) == ("succeeded", "This is left: all.")
    assert result["cost_usd"] < 11 * CALL_USD
