"""The real claude under a budget: it is asked to finish, and pauses at most one call beyond the budget."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.daemon_in_process import open_daemon_in_process
from support.fakes.messages_api import MessagesApi
from support.fakes.script import Asked, Block, Text, ToolUse
from support.harness import first_answer, lead_of

pytestmark = pytest.mark.vendor

#: The cost of a call with the API's usage: claude-opus-4-8, 100 tokens input, 1000 read from its cache, 10 output.
CALL_USD = (100 * 5 + 1000 * 0.5 + 10 * 25) / 1e6
LOOK = ToolUse("Bash", {"command": "echo x >> x.txt; sleep 0.2", "description": "work"})


def look_until(go: Path) -> ToolUse:
    """Return a tool call that ends a second after the file exists.

    Within that second claude reads a message that was sent before.
    """
    wait = f"until test -e {go}; do sleep 0.05; done; sleep 1"
    return ToolUse("Bash", {"command": f"echo x >> x.txt; {wait}", "description": "work"})


async def let_go_once_asked_to_finish(reconciler: Reconciler, go: Path) -> None:
    """Create the file as soon as forkjoin has sent the agent its message to finish."""

    async def is_asked() -> bool:
        return (await reconciler.store.agents.get(1)).money.wind_up

    await first_answer(is_asked)
    go.touch()


async def test_claude_pauses_at_most_one_call_beyond_its_budget_and_continues_when_the_budget_is_raised(
    api: MessagesApi, repository: Path, home: Home, tmp_path: Path
) -> None:
    go = tmp_path / "go"

    def answers(asked: Asked) -> Sequence[Block]:
        messages = json.dumps(asked.body["messages"])
        if "Your program was interrupted" in messages:
            return [Text("All done.")]
        return [look_until(go) if asked.answers == 8 else LOOK]  # the model ignores the message to finish

    api.script = answers
    async with open_daemon_in_process(home) as reconciler, lead_of(reconciler, repository) as lead:
        (first,) = await lead.spawn("Work.", model="claude-opus-4-8", budget_usd=10 * CALL_USD)
        await let_go_once_asked_to_finish(reconciler, go)
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
    api: MessagesApi, repository: Path, home: Home, tmp_path: Path
) -> None:
    go = tmp_path / "go"

    def answers(asked: Asked) -> Sequence[Block]:
        if "Finish now" in json.dumps(asked.body["messages"]):
            return [Text("This is left: all.")]
        return [LOOK if asked.answers < 8 else look_until(go)]

    api.script = answers
    async with open_daemon_in_process(home) as reconciler, lead_of(reconciler, repository) as lead:
        (first,) = await lead.spawn("Work.", model="claude-opus-4-8", budget_usd=10 * CALL_USD)
        await let_go_once_asked_to_finish(reconciler, go)
        (result,) = await lead.results(first)
    assert (result["state"], result["output"]) == ("succeeded", "This is left: all.")
    assert result["cost_usd"] < 11 * CALL_USD
