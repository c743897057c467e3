"""Messages to the real claude, while it runs and after it has ended."""

import json
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support import vendor_programs
from support.daemon_in_process import open_lead_in_process
from support.fakes.messages_api import MessagesApi
from support.fakes.script import Asked, Block, Text, ToolUse
from support.harness import until

pytestmark = pytest.mark.vendor


@vendor_programs.for_each_claude
async def test_claude_receives_all_messages_in_order_while_it_runs_and_after_it_has_ended(
    api: MessagesApi, repository: Path, home: Home, tmp_path: Path
) -> None:
    up, go = tmp_path / "up", tmp_path / "go"
    wait = f"touch {up}; until test -e {go}; do sleep 0.05; done"

    def script(asked: Asked) -> list[Block]:
        if not up.exists():
            return [ToolUse("Bash", {"command": wait, "description": "wait"})]
        return [Text(f"heard {heard(asked)}")]

    api.script = script
    async with open_lead_in_process(home, repository) as lead:
        (agent,) = await lead.spawn("Begin.")
        await until(up.exists)
        for text in ("message one", "message two"):
            assert (await lead.call("message_agent", id=agent, text=text))["delivery"] == "now"
        go.touch()
        (first,) = await lead.results(agent)
        assert first["output"] == "heard ['message one', 'message two']"
        assert (await lead.call("message_agent", id=agent, text="message three"))["delivery"] == "next_turn"
        await lead.call("message_agent", id=agent, text="message four")  # the next turn may have begun already
        (second,) = await lead.results(agent)
    assert second["output"] == "heard ['message one', 'message two', 'message three', 'message four']"
    assert heard(api.asked[-1], "Begin.") == ["Begin."]


def heard(asked: Asked, *words: str) -> list[str]:
    """Return those of the words that are in the request, in the request's order."""
    body = json.dumps(asked.body["messages"])
    wanted = words or tuple(f"message {number}" for number in ("one", "two", "three", "four"))
    return sorted((word for word in wanted if word in body), key=body.index)
