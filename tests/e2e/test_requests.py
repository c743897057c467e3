"""Permissions and questions of the real claude, which a lead answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from e2e.test_claude import REGISTERED, ask_claude, bash, of_forkjoin
from forkjoin.core.paths import Home
from support import vendor_programs
from support.daemon_in_process import open_lead_in_process
from support.fakes.messages_api import MessagesApi
from support.fakes.script import Text, by_prompt, in_turn
from support.harness import GIVE_UP_S, Lead

pytestmark = pytest.mark.vendor


async def asked(lead: Lead) -> Any:
    """Wait for a request of an agent, and return it."""
    answer = await lead.call("wait_agents", timeout_s=GIVE_UP_S)
    (request,) = answer["requests"]
    return request


#: The end of a command that is longer than the longest tool result that claude accepts.
LONG = f"# {'x' * 120_000}"


@vendor_programs.for_each_claude
async def test_the_lead_decides_about_each_command_that_the_permissions_do_not_allow(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    api.script = in_turn(
        [bash("echo allowed > one.txt")],
        [bash(f"echo $((40+2)) && mkfifo two {LONG}")],
        [bash(f"echo $((40+2)) && mkfifo three {LONG}")],
        [Text("Done.")],
    )
    async with open_lead_in_process(home, repository) as lead:
        await lead.call("spawn_agent", task="Begin.", permissions={"allow": ["Bash(echo:*)"]})
        for decision, command in (("allow", "mkfifo two"), ("deny", "mkfifo three")):
            request = await asked(lead)
            assert (request["id"], request["kind"]) == ("a1", "permission")
            assert command in request["text"]
            assert (await lead.listed("a1"))["state"] == "waiting"
            await lead.call("answer_request", request_id=request["request_id"], decision=decision, reason="as it is")
        (result,) = await lead.results("a1")
        log = await lead.call("read_log", id="a1")
    unasked, allowed, denied = api.asked[-1].results
    assert not unasked.is_error
    assert (allowed.is_error, "42" in allowed.text, "as it is" in allowed.text) == (False, True, False)
    assert (denied.is_error, "42" in denied.text, "as it is" in denied.text) == (True, False, True)
    for decision in ("allow", "deny"):
        assert f"answered by lead session-1: {decision} (as it is)" in log
    assert result["state"] == "succeeded"


@vendor_programs.for_each_claude
async def test_claude_as_lead_answers_its_agents_request(api: MessagesApi, repository: Path) -> None:
    lead = in_turn(
        [of_forkjoin("spawn_agents", agents=[{"task": "Begin.", "permissions": {"allow": ["Bash(echo:*)"]}}])],
        [of_forkjoin("wait_agents")],
        [of_forkjoin("answer_request", request_id="r1", decision="allow")],
        [of_forkjoin("wait_agents")],
        [Text("It is done.")],
    )
    api.script = by_prompt({"Fork it out.": lead, "Begin.": in_turn([bash("mkfifo two")], [Text("Done.")])})
    registered = ("--mcp-config", json.dumps(REGISTERED), "--strict-mcp-config")
    assert await ask_claude(repository, "Fork it out.", *registered) == "It is done."
    _, requested, _, ended = (result.text for result in api.asked[-1].results)
    assert "mkfifo two" in requested
    assert json.loads(ended)["finished"][0]["summary"] == "Done."


@vendor_programs.for_each_claude
async def test_a_question_reaches_the_lead_and_the_answer_reaches_the_model(
    api: MessagesApi, repository: Path, home: Home
) -> None:
    api.script = in_turn([of_forkjoin("ask_lead", question="Tabs or spaces?", default="spaces")], [Text("Done.")])
    async with open_lead_in_process(home, repository) as lead:
        await lead.call("spawn_agent", task="Begin.")
        request = await asked(lead)
        assert (request["kind"], request["text"]) == ("question", "Tabs or spaces?")
        await lead.call("answer_request", request_id=request["request_id"], answer="Tabs.")
        await lead.results("a1")
    (answer,) = api.asked[-1].results
    assert json.loads(answer.text) == {"answer": "Tabs.", "answered_by": "lead session-1"}
