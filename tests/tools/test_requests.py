"""What agents ask: told by a wait, listed, and answered once, by whoever is first."""

import json
import re
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from forkjoin.loop import Loop
from forkjoin.model import Pause, State
from forkjoin.paths import Home
from harness import GIVE_UP_S, Lead, ToolRefusedError, first_answer, git, lead_of, open_loop_in_memory, program_of
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

DANGEROUS = {"tool_name": "Bash", "input": {"command": "rm -rf build"}, "tool_use_id": "t1"}
QUESTION = {"question": "Tabs\nor \x1b[31m spaces?"}


@pytest.fixture
async def loop(home: Home) -> AsyncIterator[Loop]:
    async with open_loop_in_memory(home) as loop:
        yield loop
        await loop.store.ask_stop(await loop.store.live())
        with anyio.fail_after(GIVE_UP_S):
            await loop.store.changes.until(lambda: _none_live(loop))


async def _none_live(loop: Loop) -> bool | None:
    return not await loop.store.live() or None


@pytest.fixture
async def lead(loop: Loop, repository: Path) -> AsyncIterator[Lead]:
    async with lead_of(loop, repository) as found:
        yield found


@pytest.fixture
async def program(loop: Loop, lead: Lead) -> AsyncIterator[Lead]:
    """The program of a1, which runs."""
    (agent,) = await lead.spawn("sleep 1000")
    await lead.until(agent, state="running")
    async with program_of(loop, agent) as found:
        yield found


class Call:
    """A tool call under way, and what it came to."""

    def __init__(self, whose: Lead, tool: str, given: dict[str, Any]) -> None:
        self._act = partial(whose.call, tool, **given)
        self.answer: Any = None

    async def run(self) -> None:
        try:
            self.answer = await self._act()
        except ToolRefusedError as error:
            self.answer = str(error)


async def news(lead: Lead) -> list[Any]:
    """What a wait tells that agents ask."""
    told = await lead.call("wait_agents", timeout_s=GIVE_UP_S)
    assert not told["timed_out"]
    return list(told["requests"])


@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_a_permission_is_told_by_the_wait_and_its_decision_to_the_program(
    lead: Lead, program: Lead, decision: str
) -> None:
    asked = Call(program, "approve", DANGEROUS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asked.run)
        (request,) = await news(lead)
        assert request.pop("expires_s") in (599, 600)
        text = 'Bash {"command": "rm -rf build"}'
        assert request == {"request_id": "r1", "id": "a1", "kind": "permission", "text": text}
        answered = await lead.call("answer_request", request_id="r1", decision=decision, reason="it is made anew")
        assert answered == {"request_id": "r1", "id": "a1", "kind": "permission", "said": decision}
    told = json.loads(asked.answer)
    if decision == "allow":
        assert told == {"behavior": "allow", "updatedInput": {}}
    else:
        assert told["message"] == "That was answered by lead session-1: deny (it is made anew)"
    row = await lead.listed("a1")
    assert row["state"] == "running"


async def test_a_wait_tells_a_request_at_once_and_the_next_waits_on_and_reminds_of_it(
    lead: Lead, program: Lead
) -> None:
    asked = Call(program, "ask_lead", QUESTION)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asked.run)
        (request,) = await news(lead)
        assert request["text"] == "Tabs or [31m spaces?"
        again = await lead.call("wait_agents", timeout_s=0.1)
        assert again["timed_out"] is True
        assert [one["request_id"] for one in again["requests"]] == ["r1"]
        assert (await lead.call("list_agents"))["requests"] == 1
        assert (await lead.call("get_status"))["requests"] == 1
        (whole,) = (await lead.call("list_requests"))["requests"]
        assert whole["text"] == QUESTION["question"]
        await lead.call("answer_request", request_id="r1", answer="Tabs.")
    assert asked.answer == {"answer": "Tabs.", "answered_by": "lead session-1"}
    assert "requests" not in await lead.call("list_agents")


async def test_a_wait_that_only_looks_tells_a_request_too(lead: Lead, program: Lead) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await first_answer(lambda: _has(lead, 1))
        told = await lead.call("wait_agents", timeout_s=0)
        assert (told["timed_out"], [one["request_id"] for one in told["requests"]]) == (False, ["r1"])
        await lead.call("answer_request", request_id="r1", answer="Tabs.")


async def test_what_one_asks_that_is_frozen_is_told_too(loop: Loop, lead: Lead, program: Lead) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await first_answer(lambda: _has(lead, 1))
        pause = Pause("room", frozen=True, not_before=time.time() + 1000)
        await loop.store.move(await loop.store.agent(1), State.PAUSED, None, pause)
        told = await lead.call("wait_agents", timeout_s=0)
        assert (told["pending"][0]["state"], told["requests"][0]["request_id"]) == ("paused", "r1")
        await lead.call("answer_request", request_id="r1", answer="Tabs.")


async def test_another_lead_that_waits_for_it_and_a_person_are_told_too_and_may_answer(
    loop: Loop, repository: Path, lead: Lead, program: Lead
) -> None:
    asked = Call(program, "ask_lead", QUESTION)
    async with (
        lead_of(loop, repository, "session-2") as other,
        lead_of(loop, repository, kind="cli") as person,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(asked.run)
        for one in (lead, person):
            assert [request["request_id"] for request in await news(one)] == ["r1"]
        told = await other.call("wait_agents", ids=["a1"], timeout_s=GIVE_UP_S)
        assert [request["request_id"] for request in told["requests"]] == ["r1"]
        await person.call("answer_request", request_id="r1", answer="Tabs.")
        why = await lead.refusal("answer_request", request_id="r1", answer="Spaces.")
        assert why == "r1 is closed, and the first answer counts. It was answered by the person: Tabs."
    assert asked.answer["answered_by"] == "the person"


@pytest.mark.parametrize("text", ['{"indent": "tabs"}', '["tabs"]', "null"])
async def test_an_answer_may_be_json(lead: Lead, program: Lead, text: str) -> None:
    asked = Call(program, "ask_lead", QUESTION)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asked.run)
        await news(lead)
        await lead.call("answer_request", request_id="r1", answer=text)
    assert asked.answer["answer"] == text


async def test_an_answer_of_the_wrong_kind_is_refused_and_the_request_stays(lead: Lead, program: Lead) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await news(lead)
        tasks.start_soon(Call(program, "approve", DANGEROUS).run)
        await news(lead)
        for request, given in (
            ("r1", {"decision": "allow"}),
            ("r1", {}),
            ("r1", {"answer": "Tabs.", "decision": "allow"}),
        ):
            why = await lead.refusal("answer_request", request_id=request, **given)
            assert "r1 is a question: give answer, in words, alone. It asks: Tabs" in why
        assert "give decision, allow or deny" in await lead.refusal("answer_request", request_id="r2", answer="yes")
        await lead.call("answer_request", request_id="r1", answer="Tabs.")
        await lead.call("answer_request", request_id="r2", decision="deny")


@pytest.mark.parametrize("request_id", ["r99", "r0", "r", "a1", "1", "r1; drop", f"r{'9' * 400}", "r1\u0661"])
async def test_a_request_that_there_is_not_is_refused_in_words(lead: Lead, request_id: str) -> None:
    assert "Call list_requests" in await lead.refusal("answer_request", request_id=request_id, answer="x")


async def test_a_stranger_from_another_project_sees_and_answers_nothing(
    loop: Loop, tmp_path: Path, lead: Lead, program: Lead
) -> None:
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    async with lead_of(loop, other) as stranger, anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await news(lead)
        assert (await stranger.call("list_requests"))["requests"] == []
        assert "No request 'r1'" in await stranger.refusal("answer_request", request_id="r1", answer="x")
        await lead.call("answer_request", request_id="r1", answer="Tabs.")


async def test_an_agent_answers_nothing_not_even_its_own(lead: Lead, program: Lead) -> None:
    assert "is the lead's alone" in await program.refusal("answer_request", request_id="r1", decision="allow")


@pytest.mark.parametrize("default", [None, "spaces"])
async def test_without_an_answer_in_time_the_default_counts(
    loop: Loop, lead: Lead, program: Lead, monkeypatch: pytest.MonkeyPatch, default: str | None
) -> None:
    given = {"question": "Tabs?", "timeout_minutes": 1, **({"default": default} if default else {})}
    asked = Call(program, "ask_lead", given)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asked.run)
        await news(lead)
        expire(loop, monkeypatch, 61)
    assert asked.answer["answered_by"] == "nobody"
    assert asked.answer["answer"] == default or "decide yourself" in asked.answer["answer"]


def expire(loop: Loop, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let so many seconds have passed for what is asked."""
    later = SimpleNamespace(time=lambda: time.time() + seconds, monotonic=lambda: time.monotonic() + seconds)
    monkeypatch.setattr("forkjoin.agent.request.time", later)
    loop.store.changes.announce()


async def test_a_permission_is_denied_when_its_time_is_up(
    loop: Loop, lead: Lead, program: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Call(program, "approve", DANGEROUS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asked.run)
        await news(lead)
        expire(loop, monkeypatch, 601)
    assert json.loads(asked.answer) == {"behavior": "deny", "message": "That was answered by nobody in time: deny"}


async def test_while_the_machine_slept_no_time_ran_for_what_was_asked(
    loop: Loop, lead: Lead, program: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "approve", DANGEROUS).run)
        await news(lead)
        woken = SimpleNamespace(time=lambda: time.time() + 9_000, monotonic=time.monotonic)
        monkeypatch.setattr("forkjoin.agent.request.time", woken)
        loop.store.changes.announce()
        expires_s = await first_answer(lambda: _postponed(lead))
        assert expires_s == pytest.approx(9_600, abs=30)
        await lead.call("answer_request", request_id="r1", decision="deny")


async def _postponed(lead: Lead) -> int | None:
    """In how many seconds what is asked expires, once that was put off."""
    (request,) = (await lead.call("list_requests"))["requests"]
    return int(request["expires_s"]) if request["expires_s"] > 600 else None


async def test_what_can_not_be_closed_in_time_holds_up_no_agent(
    loop: Loop, lead: Lead, program: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = loop.store._connection
    records.execute("CREATE TRIGGER broken BEFORE UPDATE ON request BEGIN SELECT RAISE(ABORT, 'broken'); END")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await first_answer(lambda: _has(lead, 1))
        expire(loop, monkeypatch, 601)
        (other,) = await lead.spawn("true")
        assert (await lead.results(other))[0]["state"] == "succeeded"
        records.execute("DROP TRIGGER broken")


async def test_a_stop_withdraws_what_an_agent_asks(lead: Lead, program: Lead) -> None:
    asked = Call(program, "approve", DANGEROUS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(asked.run)
        await news(lead)
        await lead.call("stop_agents", ids=["a1"])
    assert "withdrawn" in json.loads(asked.answer)["message"]
    assert "withdrawn" in await lead.refusal("answer_request", request_id="r1", decision="allow")
    assert "is at its end (stopped)" in await program.refusal("ask_lead", question="Still there?")


async def test_what_its_program_gives_up_is_withdrawn(lead: Lead, program: Lead) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "approve", DANGEROUS).run)
        await news(lead)
        tasks.cancel_scope.cancel()
    await lead.until("a1", state="running")
    assert "withdrawn" in await lead.refusal("answer_request", request_id="r1", decision="allow")


async def test_a_giant_input_is_cut_in_its_midst_and_where_it_is_read(lead: Lead, program: Lead) -> None:
    giant = {"content": "\x00\x1b é\u202e" * 200_000, "end": "what matters"}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "approve", {"tool_name": "Write", "input": giant}).run)
        (request,) = await news(lead)
        assert len(request["text"]) <= 240
        assert re.search(r"… \[\d+ more: list_requests r1\]$", request["text"])
        (whole,) = (await lead.call("list_requests"))["requests"]
        assert "more characters]" in whole["text"]
        assert whole["text"].endswith('"what matters"}')
        assert len(whole["text"]) < 16_100
        await lead.call("answer_request", request_id="r1", decision="allow")


@pytest.mark.parametrize(
    "given",
    [
        {"question": "x" * 8_001},
        {"question": " "},
        {"question": "x", "default": "y" * 2_001},
        {"question": "x", "timeout_minutes": 0.5},
    ],
)
async def test_a_question_beyond_bounds_is_refused(lead: Lead, program: Lead, given: dict[str, str]) -> None:
    assert "ask_lead refused" in await program.refusal("ask_lead", **given)


async def test_one_that_asks_in_a_loop_is_told_to_wait_and_all_of_it_is_told_in_the_end(
    lead: Lead, program: Lead
) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(Call(program, "ask_lead", {"question": f"{number} " + "🙂" * 7_000}).run)
        await first_answer(lambda: _has(lead, 16))
        assert "16 requests of yours are open" in await program.refusal("ask_lead", question="One more?")
        denied = json.loads(await program.call("approve", **DANGEROUS))
        assert denied["behavior"] == "deny"
        listed = await lead.call("list_requests")
        assert (len(listed["requests"]), "more" in listed) == (16, False)
        assert "more: list_requests r16]" in listed["requests"][15]["text"]
        (whole,) = (await lead.call("list_requests", request_id="r16"))["requests"]
        assert whole["text"].endswith("🙂" * 7_000)
        first, second = [{one["request_id"] for one in await news(lead)} for _ in range(2)]
        assert len(first) < len(first | second) == 16
        await lead.call("stop_agents", ids=["a1"])
        tasks.cancel_scope.cancel()


async def _has(lead: Lead, count: int) -> bool:
    return bool((await lead.call("get_status"))["requests"] == count)


async def test_no_key_is_in_what_is_asked_and_answered(loop: Loop, lead: Lead, program: Lead) -> None:
    key = "sk-ant-REDACTED"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "approve", {"tool_name": "Bash", "input": {"command": f"curl -H {key}"}}).run)
        (request,) = await news(lead)
        assert key not in request["text"]
        await lead.call("answer_request", request_id="r1", decision="allow", reason=f"{key} is yours")
    stored = await loop.store.request(1)
    assert stored
    assert key not in f"{stored}"


async def test_of_a_key_that_the_cut_would_tear_no_half_is_told(lead: Lead, program: Lead) -> None:
    begins = 'Bash {"command": "'
    command = "x" * (7_990 - len(begins)) + " sk-ant-REDACTED" + "x" * 9_000
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "approve", {"tool_name": "Bash", "input": {"command": command}}).run)
        await news(lead)
        (whole,) = (await lead.call("list_requests"))["requests"]
        assert "sk-ant" not in whole["text"]
        await lead.call("answer_request", request_id="r1", decision="deny")


# -- the person at the lead's client


class Person:
    """Who answers forms."""

    def __init__(self, *answers: ElicitResult) -> None:
        self.answers = list(answers)
        self.asked: list[ElicitRequestParams] = []

    async def answer(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self.asked.append(params)
        return self.answers.pop(0)


async def test_what_is_asked_during_a_wait_is_put_to_the_person_whose_answer_counts(
    loop: Loop, repository: Path, program: Lead
) -> None:
    person = Person(
        ElicitResult(action="accept", content={"answer": "Tabs."}),
        ElicitResult(action="accept", content={"decision": "deny", "reason": "no"}),
    )
    question, permission = Call(program, "ask_lead", QUESTION), Call(program, "approve", DANGEROUS)
    async with (
        lead_of(loop, repository, elicitation_callback=person.answer, mode="legacy") as lead,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(question.run)
        await first_answer(lambda: _has(lead, 1))
        tasks.start_soon(permission.run)
        await first_answer(lambda: _has(lead, 2))
        told = await lead.call("wait_agents", timeout_s=1)
        assert (told["timed_out"], "requests" in told) == (True, False)
    assert question.answer == {"answer": "Tabs.", "answered_by": "the person"}
    assert json.loads(permission.answer)["message"] == "That was answered by the person: deny (no)"
    assert [one.message.split(": ")[0] for one in person.asked] == [
        "a1 (sleep-1000) asks",
        "a1 (sleep-1000) wants to do this",
    ]


@pytest.mark.parametrize(
    "told",
    [
        ElicitResult(action="cancel"),
        ElicitResult(action="decline"),
        ElicitResult(action="accept", content={"answer": " "}),
        ElicitResult(action="accept", content={"nonsense": 1}),
    ],
)
async def test_what_the_person_does_not_answer_the_lead_is_told(
    loop: Loop, repository: Path, program: Lead, told: ElicitResult
) -> None:
    person = Person(told)
    async with (
        lead_of(loop, repository, elicitation_callback=person.answer, mode="legacy") as lead,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        assert [request["request_id"] for request in await news(lead)] == ["r1"]
        await lead.call("answer_request", request_id="r1", answer="Tabs.")
    assert len(person.asked) == 1


async def test_of_several_forms_the_lead_is_told_what_is_open_then(loop: Loop, repository: Path, program: Lead) -> None:
    person = Person(ElicitResult(action="accept", content={"answer": "Tabs."}), ElicitResult(action="cancel"))
    async with (
        lead_of(loop, repository, elicitation_callback=person.answer, mode="legacy") as lead,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await first_answer(lambda: _has(lead, 1))
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await first_answer(lambda: _has(lead, 2))
        assert [request["request_id"] for request in await news(lead)] == ["r2"]
        await lead.call("answer_request", request_id="r2", answer="Tabs.")


async def test_what_the_person_answers_and_can_not_be_recorded_the_lead_is_told(
    loop: Loop, repository: Path, program: Lead
) -> None:
    records = loop.store._connection
    records.execute("CREATE TRIGGER full BEFORE UPDATE ON request BEGIN SELECT RAISE(ABORT, 'full'); END")
    person = Person(ElicitResult(action="accept", content={"answer": "Tabs."}))
    async with (
        lead_of(loop, repository, elicitation_callback=person.answer, mode="legacy") as lead,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        assert [request["request_id"] for request in await news(lead)] == ["r1"]
        records.execute("DROP TRIGGER full")
        await lead.call("answer_request", request_id="r1", answer="Tabs.")


async def test_a_form_is_taken_back_when_somebody_else_answers(loop: Loop, repository: Path, program: Lead) -> None:
    put, gone = anyio.Event(), anyio.Event()

    async def think(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        put.set()
        try:
            await anyio.sleep_forever()
        finally:
            gone.set()
        raise AssertionError

    asked = Call(program, "ask_lead", QUESTION)
    async with (
        lead_of(loop, repository, elicitation_callback=think, mode="legacy") as lead,
        lead_of(loop, repository, kind="cli") as person,
    ):
        waited = Call(lead, "wait_agents", {"timeout_s": 10})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked.run)
            tasks.start_soon(waited.run)
            await put.wait()
            await person.call("answer_request", request_id="r1", answer="Tabs.")
            with anyio.fail_after(5):
                await gone.wait()
        assert "requests" not in waited.answer
    assert asked.answer["answered_by"] == "the person"
