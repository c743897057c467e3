"""The records of requests: the first answer counts, and an agent waits while a request of it is open."""

import time
from dataclasses import replace

import pytest
from forkjoin.core.error import CallerError
from forkjoin.core.event import Noted
from forkjoin.core.model import Agent, Pause, PauseKind, PauseReason, State
from forkjoin.core.request import Request
from forkjoin.core.session import Call
from forkjoin.store.rows import NewRequest
from forkjoin.store.store import Store
from support.records import NOBODY, new_agent, place

ASKED = NewRequest("question", "Which?", "neither", 60)


@pytest.fixture
async def agent(store: Store) -> Agent:
    (found,) = await store.lifecycle.spawn([new_agent("one")], place, NOBODY)
    for state in (State.PREPARING, State.RUNNING):
        found = await store.lifecycle.move(found, state)
    return found


async def ask(store: Store, name: str = "1", new: NewRequest = ASKED) -> Request:
    return await store.requests.add(1, Call("relay", name), new)


async def state(store: Store) -> State:
    return (await store.agents.get(1)).state


async def closed(store: Store, request: Request) -> Request:
    found = await store.requests.get(request.number)
    assert found
    assert found.closed is not None
    return found


async def test_an_agent_waits_until_all_its_requests_are_answered(store: Store, agent: Agent) -> None:
    first, second = await ask(store), await ask(store, "2")
    assert await state(store) is State.WAITING
    await store.requests.answer(first, "this", "", "the person", NOBODY)
    assert await state(store) is State.WAITING
    await store.requests.answer(second, "that", "", "the person", NOBODY)
    assert await state(store) is State.RUNNING
    notes = [event.text for event in await store.events.page(1, 0, 10)]
    assert notes[-1] == "r2 answered by the person: that"


async def test_a_repeated_call_finds_the_request_of_the_first_call(store: Store, agent: Agent) -> None:
    assert await ask(store) == await ask(store)
    assert len(await store.requests.open()) == 1


async def test_a_second_answer_is_refused_with_the_first(store: Store, agent: Agent) -> None:
    request = await ask(store)
    await store.requests.answer(request, "this", "it is better", "lead one", NOBODY)
    with pytest.raises(
        CallerError, match=r"the first answer counts\. It was answered by lead one: this \(it is better\)"
    ):
        await store.requests.answer(request, "that", "", "the person", NOBODY)


async def test_a_request_that_expires_gets_its_fallback_answer(store: Store, agent: Agent) -> None:
    request, later = await ask(store), await ask(store, "2", replace(ASKED, seconds=120))
    assert await store.requests.next_expiry() == request.expires
    await store.requests.expire(request.expires)
    assert (await closed(store, request)).outcome == "answered by nobody in time: neither"
    assert [one.number for one in await store.requests.open()] == [later.number]
    assert await store.requests.next_expiry() == later.expires
    with pytest.raises(CallerError, match="by nobody in time: neither"):
        await store.requests.answer(request, "this", "", "the person", NOBODY)


@pytest.mark.parametrize("how", ["end", "stop", "rest", "give up"])
async def test_requests_are_withdrawn_when_the_agents_program_is_about_to_end(
    store: Store, agent: Agent, how: str
) -> None:
    request = await ask(store)
    agent = await store.agents.get(1)
    match how:
        case "end":
            await store.lifecycle.end_attempt(agent, Noted("ended"), None, done=False)
        case "rest":
            await store.lifecycle.end_attempt(agent, Noted("ended"), Pause(PauseReason.RETRY, "a rest"), done=False)
        case "stop":
            await store.lifecycle.ask_stop([agent])
        case _:
            await store.lifecycle.move(agent, State.FINISHING)
    assert (await closed(store, request)).outcome.startswith("withdrawn")
    with pytest.raises(CallerError, match="withdrawn"):
        await store.requests.answer(request, "this", "", "the person", NOBODY)


async def test_a_thawed_agent_still_waits_for_its_open_request(store: Store, agent: Agent) -> None:
    request = await ask(store)
    frozen = await store.lifecycle.move(
        await store.agents.get(1), State.PAUSED, None, Pause(PauseReason.MEMORY, kind=PauseKind.FROZEN)
    )
    assert (await store.lifecycle.move(frozen, State.RUNNING)).state is State.WAITING
    await store.requests.answer(request, "this", "", "the person", NOBODY)
    assert await state(store) is State.RUNNING


async def test_an_agent_waits_for_a_request_that_it_made_before_it_was_running(store: Store) -> None:
    (agent,) = await store.lifecycle.spawn([new_agent("one")], place, NOBODY)
    agent = await store.lifecycle.move(agent, State.PREPARING)
    await ask(store)
    assert (await store.lifecycle.move(agent, State.RUNNING)).state is State.WAITING


async def test_an_agent_runs_again_when_its_request_is_withdrawn(store: Store, agent: Agent) -> None:
    request = await ask(store)
    await store.requests.withdraw(request)
    await store.requests.withdraw(request)
    assert "no longer waits for an answer" in (await closed(store, request)).outcome
    assert await state(store) is State.RUNNING


async def test_an_agent_may_have_16_requests_open_and_make_1000(store: Store, agent: Agent) -> None:
    for number in range(16):
        await ask(store, str(number))
    with pytest.raises(CallerError, match="16 requests of yours are open"):
        await ask(store, "17")
    await store.requests.expire(time.time() + 60)
    rows = [(f"old {number}",) for number in range(984)]
    insert = "INSERT INTO request (agent, call, kind, text, fallback, asked, expires, closed) "
    store.database.connection.executemany(f"{insert} VALUES (1, ?, 'question', '', '', 0, 0, 0)", rows)
    with pytest.raises(CallerError, match="asked 1000 times; decide yourself"):
        await ask(store, "18")


async def test_an_agent_that_is_being_stopped_may_not_ask(store: Store, agent: Agent) -> None:
    await store.lifecycle.ask_stop([agent])
    with pytest.raises(CallerError, match="being stopped, or have ended"):
        await ask(store)


async def test_a_request_is_reported_to_each_lead_once(store: Store, agent: Agent) -> None:
    request = await ask(store)
    assert await store.requests.untold(1, "one", [request]) == {1}
    await store.requests.set_told(1, "one", [request])
    await store.requests.set_told(1, "one", [request])
    assert await store.requests.untold(1, "one", [request]) == set()
    assert await store.requests.untold(1, "two", [request]) == {1}


async def test_a_request_is_found_only_in_its_own_project(store: Store, agent: Agent) -> None:
    request = await ask(store)
    await store.projects.get_or_add("/other/.git")
    assert await store.requests.find(1, 1) == request
    assert await store.requests.find(2, 1) is None
    assert await store.requests.open(2) == []


async def test_deleting_an_agent_deletes_its_requests(store: Store, agent: Agent) -> None:
    await store.requests.set_told(1, "one", [await ask(store)])
    await store.retention.delete_agent(1)
    assert await store.requests.get(1) is None
    assert store.database.connection.execute("SELECT count(*) AS n FROM request_told").fetchone() == {"n": 0}
