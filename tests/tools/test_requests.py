"""Requests of agents: reported by a wait, listed, and answered once."""

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from forkjoin.core.model import Pause, PauseKind, PauseReason, State
from forkjoin.core.request import Request
from forkjoin.reconciler import Reconciler
from forkjoin_tools import reply_wait
from support.agent_requests import DANGEROUS, QUESTION, Call, is_asked, news
from support.harness import GIVE_UP_S, Lead, first_answer, git, lead_of, until


@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_a_wait_reports_a_permission_request_and_the_program_gets_the_decision(
    near_lead: Lead, program: Lead, decision: str
) -> None:
    call = Call(program, "approve", DANGEROUS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        (request,) = await news(near_lead)
        assert request.pop("expires_s") in (599, 600)
        text = 'Bash {"command": "rm -rf build"}'
        assert request == {"request_id": "r1", "id": "a1", "kind": "permission", "text": text, "new": True}
        answered = await near_lead.call("answer_request", request_id="r1", decision=decision, reason="it is generated")
        assert answered == {"request_id": "r1", "id": "a1", "kind": "permission", "said": decision}
    answer = json.loads(call.answer)
    if decision == "allow":
        assert answer == {"behavior": "allow", "updatedInput": {}}
    else:
        assert answer["message"] == "That was answered by lead session-1: deny (it is generated)"
    row = await near_lead.listed("a1")
    assert row["state"] == "running"


async def test_a_wait_reports_a_request_at_once_and_the_next_wait_continues_and_repeats_it(
    near_lead: Lead, program: Lead
) -> None:
    call = Call(program, "ask_lead", QUESTION)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        (request,) = await news(near_lead)
        assert request["text"] == "Tabs or [31m spaces?"
        again = await near_lead.call("wait_agents", timeout_s=0.1)
        assert again["timed_out"] is True
        assert [request["request_id"] for request in again["requests"]] == ["r1"]
        assert (await near_lead.call("list_agents"))["requests"] == 1
        assert (await near_lead.call("get_status"))["requests"] == 1
        (whole,) = (await near_lead.call("list_requests"))["requests"]
        assert whole["text"] == QUESTION["question"]
        await near_lead.call("answer_request", request_id="r1", answer="Tabs.")
    assert call.answer == {"answer": "Tabs.", "answered_by": "lead session-1"}
    assert "requests" not in await near_lead.call("list_agents")


async def test_a_wait_without_time_reports_a_request(near_lead: Lead, program: Lead) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await first_answer(lambda: is_asked(near_lead, 1))
        waited = await near_lead.call("wait_agents", timeout_s=0)
        assert (waited["timed_out"], [request["request_id"] for request in waited["requests"]]) == (False, ["r1"])
        await near_lead.call("answer_request", request_id="r1", answer="Tabs.")


async def test_the_request_of_a_frozen_agent_is_reported(
    in_process_reconciler: Reconciler, near_lead: Lead, program: Lead
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await first_answer(lambda: is_asked(near_lead, 1))
        pause = Pause(PauseReason.MEMORY, kind=PauseKind.FROZEN, not_before=time.time() + 1000)
        await in_process_reconciler.store.lifecycle.move(
            await in_process_reconciler.store.agents.get(1), State.PAUSED, None, pause
        )
        waited = await near_lead.call("wait_agents", timeout_s=0)
        assert (waited["pending"][0]["state"], waited["requests"][0]["request_id"]) == ("paused", "r1")
        await near_lead.call("answer_request", request_id="r1", answer="Tabs.")


async def test_another_lead_and_a_person_get_the_request_and_may_answer(
    in_process_reconciler: Reconciler, repository: Path, near_lead: Lead, program: Lead
) -> None:
    call = Call(program, "ask_lead", QUESTION)
    async with (
        lead_of(in_process_reconciler, repository, "session-2") as other,
        lead_of(in_process_reconciler, repository, kind="cli") as person,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(call.run)
        for lead in (near_lead, person):
            assert [request["request_id"] for request in await news(lead)] == ["r1"]
        waited = await other.call("wait_agents", ids=["a1"], timeout_s=GIVE_UP_S)
        assert [request["request_id"] for request in waited["requests"]] == ["r1"]
        await person.call("answer_request", request_id="r1", answer="Tabs.")
        why = await near_lead.refusal("answer_request", request_id="r1", answer="Spaces.")
        assert why == "r1 is closed, and the first answer counts. It was answered by the person: Tabs."
        for request, says in (("r1", "it was answered by the person: Tabs."), ("r2", "No request 'r2'")):
            assert says in await near_lead.refusal("list_requests", request_id=request)
    assert call.answer["answered_by"] == "the person"


async def test_a_wait_ends_when_another_agent_of_the_lead_asks(near_lead: Lead, program: Lead) -> None:
    call = Call(program, "ask_lead", QUESTION)
    (other,) = await near_lead.spawn("sleep 1000")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        waited = await near_lead.call("wait_agents", ids=[other], timeout_s=GIVE_UP_S)
        assert ([agent["id"] for agent in waited["pending"]], waited["timed_out"]) == ([other], False)
        assert [request["request_id"] for request in waited["requests"]] == ["r1"]
        again = await near_lead.call("wait_agents", ids=[other], timeout_s=0.2)
        assert again["timed_out"]
        await near_lead.call("answer_request", request_id="r1", answer="Tabs.")


async def test_nothing_is_recorded_while_an_agent_waits_for_an_answer(
    in_process_reconciler: Reconciler, near_lead: Lead, program: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_wait, "PROGRESS_S", 0.02)
    looks: list[int] = []
    really = in_process_reconciler.store.requests.get

    async def request(number: int) -> Request | None:
        looks.append(in_process_reconciler.store.changes.version)
        return await really(number)

    monkeypatch.setattr(in_process_reconciler.store.requests, "get", request)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await until(lambda: len(looks) > 20)
        assert len(set(looks[-10:])) == 1
        await near_lead.call("answer_request", request_id="r1", answer="Tabs.")


@pytest.mark.parametrize("text", ['{"indent": "tabs"}', '["tabs"]', "null"])
async def test_an_answer_may_be_json(near_lead: Lead, program: Lead, text: str) -> None:
    call = Call(program, "ask_lead", QUESTION)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        await news(near_lead)
        await near_lead.call("answer_request", request_id="r1", answer=text)
    assert call.answer["answer"] == text


async def test_an_answer_of_the_wrong_kind_is_refused_and_the_request_stays(near_lead: Lead, program: Lead) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await news(near_lead)
        tasks.start_soon(Call(program, "approve", DANGEROUS).run)
        await news(near_lead)
        for request, given in (
            ("r1", {"decision": "allow"}),
            ("r1", {}),
            ("r1", {"answer": "Tabs.", "decision": "allow"}),
        ):
            why = await near_lead.refusal("answer_request", request_id=request, **given)
            assert "r1 is a question: pass only answer. Its text: Tabs" in why
        assert "pass only decision (allow or deny)" in await near_lead.refusal(
            "answer_request", request_id="r2", answer="yes"
        )
        await near_lead.call("answer_request", request_id="r1", answer="Tabs.")
        await near_lead.call("answer_request", request_id="r2", decision="deny")


@pytest.mark.parametrize("request_id", ["r99", "r0", "r", "a1", "1", "r1; drop", f"r{'9' * 400}", "r1\u0661"])
async def test_an_unknown_request_is_refused_with_a_message(near_lead: Lead, request_id: str) -> None:
    assert "Call list_requests" in await near_lead.refusal("answer_request", request_id=request_id, answer="x")


async def test_a_stranger_from_another_project_sees_and_answers_nothing(
    in_process_reconciler: Reconciler, tmp_path: Path, near_lead: Lead, program: Lead
) -> None:
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    async with lead_of(in_process_reconciler, other) as stranger, anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await news(near_lead)
        assert (await stranger.call("list_requests"))["requests"] == []
        assert "No request 'r1'" in await stranger.refusal("answer_request", request_id="r1", answer="x")
        await near_lead.call("answer_request", request_id="r1", answer="Tabs.")


async def test_an_agent_answers_nothing_not_even_its_own(near_lead: Lead, program: Lead) -> None:
    assert "is only for the lead" in await program.refusal("answer_request", request_id="r1", decision="allow")


@pytest.mark.parametrize("default", [None, "spaces"])
async def test_without_an_answer_in_time_the_default_counts(
    in_process_reconciler: Reconciler,
    near_lead: Lead,
    program: Lead,
    monkeypatch: pytest.MonkeyPatch,
    default: str | None,
) -> None:
    given = {"question": "Tabs?", "timeout_minutes": 1, **({"default": default} if default else {})}
    call = Call(program, "ask_lead", given)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        await news(near_lead)
        expire(in_process_reconciler, monkeypatch, 61)
    assert call.answer["answered_by"] == "nobody"
    assert call.answer["answer"] == default or "decide yourself" in call.answer["answer"]


def expire(reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let this many seconds pass for all requests."""
    later = SimpleNamespace(time=lambda: time.time() + seconds, monotonic=lambda: time.monotonic() + seconds)
    monkeypatch.setattr("forkjoin.agents.open_requests.time", later)
    reconciler.store.changes.announce()


async def test_a_permission_is_denied_when_its_time_is_up(
    in_process_reconciler: Reconciler, near_lead: Lead, program: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Call(program, "approve", DANGEROUS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        await news(near_lead)
        expire(in_process_reconciler, monkeypatch, 601)
    assert json.loads(call.answer) == {"behavior": "deny", "message": "That was answered by nobody in time: deny"}


async def test_a_request_does_not_expire_while_the_machine_sleeps(
    in_process_reconciler: Reconciler, near_lead: Lead, program: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "approve", DANGEROUS).run)
        await news(near_lead)
        woken = SimpleNamespace(time=lambda: time.time() + 9_000, monotonic=time.monotonic)
        monkeypatch.setattr("forkjoin.agents.open_requests.time", woken)
        in_process_reconciler.store.changes.announce()
        expires_s = await first_answer(lambda: _postponed(near_lead))
        assert expires_s == pytest.approx(9_600, abs=30)
        await near_lead.call("answer_request", request_id="r1", decision="deny")


async def _postponed(lead: Lead) -> int | None:
    """Return the seconds until the request expires, once that was postponed."""
    (request,) = (await lead.call("list_requests"))["requests"]
    return int(request["expires_s"]) if request["expires_s"] > 600 else None


async def test_a_request_that_can_not_be_closed_delays_no_other_agent(
    in_process_reconciler: Reconciler, near_lead: Lead, program: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = in_process_reconciler.store.database.connection
    records.execute("CREATE TRIGGER broken BEFORE UPDATE ON request BEGIN SELECT RAISE(ABORT, 'broken'); END")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await news(near_lead)
        expire(in_process_reconciler, monkeypatch, 601)
        (other,) = await near_lead.spawn("true")
        assert (await near_lead.results(other))[0]["state"] == "succeeded"
        records.execute("DROP TRIGGER broken")


async def test_a_stop_withdraws_the_agents_requests(near_lead: Lead, program: Lead) -> None:
    call = Call(program, "approve", DANGEROUS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call.run)
        await news(near_lead)
        await near_lead.call("stop_agents", ids=["a1"])
    assert "withdrawn" in json.loads(call.answer)["message"]
    assert "withdrawn" in await near_lead.refusal("answer_request", request_id="r1", decision="allow")
    assert "has ended (stopped)" in await program.refusal("ask_lead", question="Still there?")


async def test_a_request_that_the_program_cancels_is_withdrawn(near_lead: Lead, program: Lead) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "approve", DANGEROUS).run)
        await news(near_lead)
        tasks.cancel_scope.cancel()
    await near_lead.until("a1", state="running")
    assert "withdrawn" in await near_lead.refusal("answer_request", request_id="r1", decision="allow")


async def test_a_huge_tool_input_is_cut_in_the_middle_when_recorded_and_when_listed(
    near_lead: Lead, program: Lead
) -> None:
    giant = {"content": "\x00\x1b é\u202e" * 200_000, "end": "what matters"}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "approve", {"tool_name": "Write", "input": giant}).run)
        (request,) = await news(near_lead)
        assert len(request["text"]) <= 240
        assert re.search(r"\n\[cut: \d+ more characters; list_requests r1\]$", request["text"])
        (whole,) = (await near_lead.call("list_requests"))["requests"]
        assert "more characters]" in whole["text"]
        assert whole["text"].endswith('"what matters"}')
        assert len(whole["text"]) < 16_100
        await near_lead.call("answer_request", request_id="r1", decision="allow")


@pytest.mark.parametrize(
    "given",
    [
        {"question": "x" * 8_001},
        {"question": " "},
        {"question": "x", "default": "y" * 2_001},
        {"question": "x", "timeout_minutes": 0.5},
    ],
)
async def test_a_question_beyond_bounds_is_refused(near_lead: Lead, program: Lead, given: dict[str, str]) -> None:
    assert "ask_lead was refused" in await program.refusal("ask_lead", **given)


async def test_an_agent_that_asks_in_a_loop_is_limited_and_all_its_requests_are_reported(
    near_lead: Lead, program: Lead
) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(16):
            tasks.start_soon(Call(program, "ask_lead", {"question": f"{number} " + "🙂" * 7_000}).run)
        await first_answer(lambda: is_asked(near_lead, 16))
        assert "16 requests of yours are open" in await program.refusal("ask_lead", question="One more?")
        denied = json.loads(await program.call("approve", **DANGEROUS))
        assert denied["behavior"] == "deny"
        listed = await near_lead.call("list_requests")
        assert (len(listed["requests"]), "more" in listed) == (16, False)
        assert "more characters; list_requests r16]" in listed["requests"][15]["text"]
        (whole,) = (await near_lead.call("list_requests", request_id="r16"))["requests"]
        assert whole["text"].endswith("🙂" * 7_000)
        first, second = [{request["request_id"] for request in await news(near_lead)} for _ in range(2)]
        assert len(first) < len(first | second) == 16
        await near_lead.call("stop_agents", ids=["a1"])
        tasks.cancel_scope.cancel()


async def test_requests_and_answers_contain_no_secret(
    in_process_reconciler: Reconciler, near_lead: Lead, program: Lead
) -> None:
    key = "sk-ant-REDACTED"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "approve", {"tool_name": "Bash", "input": {"command": f"curl -H {key}"}}).run)
        (request,) = await news(near_lead)
        assert key not in request["text"]
        await near_lead.call("answer_request", request_id="r1", decision="allow", reason=f"{key} is yours")
    stored = await in_process_reconciler.store.requests.get(1)
    assert stored
    assert key not in f"{stored}"


async def test_a_cut_request_contains_no_part_of_a_secret(near_lead: Lead, program: Lead) -> None:
    begins = 'Bash {"command": "'
    command = "x" * (7_990 - len(begins)) + " sk-ant-REDACTED" + "x" * 9_000
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Call(program, "approve", {"tool_name": "Bash", "input": {"command": command}}).run)
        await news(near_lead)
        (whole,) = (await near_lead.call("list_requests"))["requests"]
        assert "sk-ant" not in whole["text"]
        await near_lead.call("answer_request", request_id="r1", decision="deny")
