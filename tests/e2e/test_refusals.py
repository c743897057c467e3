"""The real claude as agents whose API refuses calls for a while: the agents then continue their conversations."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.scheduling import rate_limit_policy
from support.daemon_in_process import open_daemon_in_process, open_lead_in_process
from support.fakes.messages_api import MessagesApi
from support.fakes.script import ApiError, Asked, Block, Text, ToolUse
from support.harness import lead_of, let_pass

pytestmark = pytest.mark.vendor

#: The model's use of a tool, so that the agent has work to commit.
WRITE = ToolUse("Bash", {"command": "echo x > x.txt", "description": "write x.txt"})


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses after a refusal of the vendor."""
    monkeypatch.setattr(rate_limit_policy, "_FIRST_DELAY_S", 0.1)
    monkeypatch.setattr(rate_limit_policy, "RECOVERY_INTERVAL_S", 0.5)


async def test_an_agent_pauses_while_its_api_is_overloaded_and_continues_its_conversation(
    api: MessagesApi, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    overloaded = ApiError(529, "overloaded_error", "Overloaded")
    work: Iterator[ApiError | Sequence[Block]] = iter(
        [overloaded, overloaded, [WRITE], overloaded, overloaded, [Text("All done.")]]
    )

    def answers(asked: Asked) -> Sequence[Block]:
        if isinstance(answer := next(work), ApiError):
            raise answer
        return answer

    api.script = answers
    async with open_lead_in_process(home, repository) as lead:
        [id_] = await lead.run("Write x.txt.")
        result = await lead.call("get_result", id=id_)
    assert (result["state"], result["output"], result["files_changed"]) == ("succeeded", "All done.", 1)
    messages = json.dumps(api.asked[-1].body["messages"])
    assert "Write x.txt." in messages
    assert messages.count("Your program was interrupted during your work") == 2


def usage_limit(resets_at: int) -> dict[str, str]:
    """Return the headers with which the API reports a subscription's usage limit."""
    return {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": str(resets_at),
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }


async def test_agents_pause_at_a_usage_limit_until_its_reset_and_then_continue(
    api: MessagesApi, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    config = home.config_file.read_text()
    home.config_file.write_text(config.replace("environment = {", 'environment = { CLAUDE_CODE_OAUTH_TOKEN = "x",'))
    resets_at = int(time.time()) + 5000
    is_reset: list[bool] = []

    def answers(asked: Asked) -> Sequence[Block]:
        if not is_reset:
            raise ApiError(429, "rate_limit_error", "You have hit your limit", usage_limit(resets_at))
        return [Text("All done.")] if asked.results else [WRITE]

    api.script = answers
    async with open_daemon_in_process(home) as reconciler, lead_of(reconciler, repository) as lead:
        ids = await lead.spawn(*["Write x.txt."] * 2)
        for one in ids:
            await lead.until(one, state="paused")
            await lead.last_event(one, "takes no more until ")
        assert len(api.asked) == len(ids)  # no agent calls the API again before the reset
        is_reset.append(True)
        let_pass(reconciler, monkeypatch, 6000)
        results = await lead.results(*ids)
    assert [(one["state"], one["files_changed"]) for one in results] == [("succeeded", 1)] * 2
