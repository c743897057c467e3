"""Requests of agents during a wait, shown to the person at the lead's client in forms."""

import json
from pathlib import Path

import anyio
import pytest
from forkjoin.reconciler import Reconciler
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult
from support.agent_requests import DANGEROUS, QUESTION, Call, is_asked, news
from support.harness import Lead, first_answer, lead_of


class Person:
    """A person who answers forms."""

    def __init__(self, *answers: ElicitResult) -> None:
        self.answers = list(answers)
        self.asked: list[ElicitRequestParams] = []

    async def answer(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self.asked.append(params)
        return self.answers.pop(0)


async def test_a_request_during_a_wait_is_shown_to_the_person_and_the_answer_counts(
    in_process_reconciler: Reconciler, repository: Path, program: Lead
) -> None:
    person = Person(
        ElicitResult(action="accept", content={"answer": "Tabs."}),
        ElicitResult(action="accept", content={"decision": "deny", "reason": "no"}),
    )
    question, permission = Call(program, "ask_lead", QUESTION), Call(program, "approve", DANGEROUS)
    async with (
        lead_of(in_process_reconciler, repository, elicitation_callback=person.answer, mode="legacy") as lead,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(question.run)
        await first_answer(lambda: is_asked(lead, 1))
        tasks.start_soon(permission.run)
        await first_answer(lambda: is_asked(lead, 2))
        waited = await lead.call("wait_agents", timeout_s=1)
        assert (waited["timed_out"], "requests" in waited) == (True, False)
    assert question.answer == {"answer": "Tabs.", "answered_by": "the person"}
    assert json.loads(permission.answer)["message"] == "That was answered by the person: deny (no)"
    assert [form.message.split(": ")[0] for form in person.asked] == [
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
async def test_the_lead_gets_a_request_that_the_person_does_not_answer(
    in_process_reconciler: Reconciler, repository: Path, program: Lead, told: ElicitResult
) -> None:
    person = Person(told)
    async with (
        lead_of(in_process_reconciler, repository, elicitation_callback=person.answer, mode="legacy") as lead,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        assert [request["request_id"] for request in await news(lead)] == ["r1"]
        await lead.call("answer_request", request_id="r1", answer="Tabs.")
    assert len(person.asked) == 1


async def test_the_lead_gets_the_requests_that_are_open_after_several_forms(
    in_process_reconciler: Reconciler, repository: Path, program: Lead
) -> None:
    person = Person(ElicitResult(action="accept", content={"answer": "Tabs."}), ElicitResult(action="cancel"))
    async with (
        lead_of(in_process_reconciler, repository, elicitation_callback=person.answer, mode="legacy") as lead,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await first_answer(lambda: is_asked(lead, 1))
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        await first_answer(lambda: is_asked(lead, 2))
        assert [request["request_id"] for request in await news(lead)] == ["r2"]
        await lead.call("answer_request", request_id="r2", answer="Tabs.")


async def test_the_lead_gets_a_request_if_the_persons_answer_can_not_be_recorded(
    in_process_reconciler: Reconciler, repository: Path, program: Lead
) -> None:
    records = in_process_reconciler.store.database.connection
    records.execute("CREATE TRIGGER full BEFORE UPDATE ON request BEGIN SELECT RAISE(ABORT, 'full'); END")
    person = Person(ElicitResult(action="accept", content={"answer": "Tabs."}))
    async with (
        lead_of(in_process_reconciler, repository, elicitation_callback=person.answer, mode="legacy") as lead,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Call(program, "ask_lead", QUESTION).run)
        assert [request["request_id"] for request in await news(lead)] == ["r1"]
        records.execute("DROP TRIGGER full")
        await lead.call("answer_request", request_id="r1", answer="Tabs.")


async def test_a_form_is_withdrawn_when_the_request_is_answered_elsewhere(
    in_process_reconciler: Reconciler, repository: Path, program: Lead
) -> None:
    put, gone = anyio.Event(), anyio.Event()

    async def think(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        put.set()
        try:
            await anyio.sleep_forever()
        finally:
            gone.set()
        raise AssertionError

    question = Call(program, "ask_lead", QUESTION)
    async with (
        lead_of(in_process_reconciler, repository, elicitation_callback=think, mode="legacy") as lead,
        lead_of(in_process_reconciler, repository, kind="cli") as person,
    ):
        waited = Call(lead, "wait_agents", {"timeout_s": 10})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(question.run)
            tasks.start_soon(waited.run)
            await put.wait()
            await person.call("answer_request", request_id="r1", answer="Tabs.")
            with anyio.fail_after(5):
                await gone.wait()
        assert "requests" not in waited.answer
    assert question.answer["answered_by"] == "the person"
