"""The store: refused changes, repeated calls, and records that survive a kill."""

import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from forkjoin.core.agent_spec import SpecParts
from forkjoin.core.error import BrokenPromiseError, CallerError, RecordsError, UnknownAgentError
from forkjoin.core.event import TEXT_LIMIT, Noted, Said
from forkjoin.core.model import FINAL, TRANSITIONS, Agent, Merge, Pause, PauseKind, Phase, State
from forkjoin.core.result import Result
from forkjoin.core.session import Call
from forkjoin.store.database import Database
from forkjoin.store.database_migration import open_database
from forkjoin.store.rows import Progress
from forkjoin.store.store import Store, open_store
from hypothesis import given, settings
from hypothesis import strategies as st
from support.records import NOBODY, new_agent, place


async def _spawn(store: Store, *names: str, call: Call = NOBODY) -> list[Agent]:
    return await store.lifecycle.spawn([new_agent(name) for name in names], place, call)


async def test_an_agent_is_read_back_as_it_was_recorded(store: Store) -> None:
    (agent,) = await _spawn(store, "first")
    assert (agent.id, agent.worktree.branch, agent.state) == ("a1", "forkjoin/a1-first", State.QUEUED)
    assert agent.spec == SpecParts(verify="true")
    assert await store.agents.task(1) == "a task"
    assert await store.agents.get(1) == agent
    assert await store.agents.find(1, "a1") == await store.agents.find(1, "first") == [agent]
    with pytest.raises(UnknownAgentError, match="has no agents yet"):
        await store.agents.find(2, "a1")
    with pytest.raises(UnknownAgentError, match=r"newest agents: a1 \(first\)"):
        await store.agents.find(1, "second")


@pytest.mark.parametrize("before", sorted(TRANSITIONS))
async def test_only_transitions_in_the_table_are_recorded(store: Store, before: Phase) -> None:
    for to in TRANSITIONS:
        (agent,) = await _spawn(store, f"{before}-{to}")
        now = before is PauseKind.FROZEN, before is PauseKind.ENDING, agent.number
        update = "UPDATE agent SET state = ?, frozen = ?, ending = ? WHERE number = ?"
        store.database.connection.execute(update, (_state(before), *now))
        agent = await store.agents.get(agent.number)
        pause = Pause(kind=to) if isinstance(to, PauseKind) else None
        if to in TRANSITIONS[before]:
            moved = await store.lifecycle.move(agent, _state(to), pause=pause)
            assert moved.phase is to
            assert (moved.timing.ended is not None) == (to in FINAL)
        else:
            with pytest.raises(BrokenPromiseError, match="can't go from"):
                await store.lifecycle.move(agent, _state(to), pause=pause)
            assert (await store.agents.get(agent.number)).phase is before


def _state(phase: Phase) -> State:
    return State.PAUSED if isinstance(phase, PauseKind) else phase


async def test_a_transition_from_an_outdated_state_is_refused(store: Store) -> None:
    (agent,) = await _spawn(store, "once")
    await store.lifecycle.move(agent, State.PREPARING)
    with pytest.raises(BrokenPromiseError):
        await store.lifecycle.move(agent, State.PREPARING)


async def test_each_attempt_has_its_own_progress(store: Store) -> None:
    (agent,) = await _spawn(store, "again")
    await store.events.add(agent, [], Progress(700, 600))
    assert await store.events.progress(agent) == Progress(700, 600)
    assert await store.events.progress(replace(agent, attempt=2)) == Progress(0, None)


async def test_a_late_result_of_an_older_attempt_is_refused(store: Store) -> None:
    (agent,) = await _spawn(store, "again")
    for state in (State.PREPARING, State.RUNNING, State.FINISHING):
        agent = await store.lifecycle.move(agent, state)
    store.database.connection.execute("UPDATE agent SET attempt = 2")
    with pytest.raises(BrokenPromiseError):
        await store.lifecycle.finish(agent, Result(1, State.SUCCEEDED, "", ""), Merge.NOTHING)
    assert (await store.agents.get(agent.number)).state is State.FINISHING
    assert await store.results.get(agent.number) is None


async def test_a_taken_name_refuses_the_whole_spawn(store: Store) -> None:
    await _spawn(store, "taken")
    with pytest.raises(CallerError, match="'taken' is taken by a1"):
        await _spawn(store, "free", "taken")
    assert [agent.name for agent in await store.agents.live()] == ["taken"]


async def test_a_derived_name_that_is_taken_gets_a_number(store: Store) -> None:
    agents = await store.lifecycle.spawn([new_agent("task", derived=True) for _ in range(3)], place, NOBODY)
    assert [agent.name for agent in agents] == ["task", "task-2", "task-3"]


async def test_no_derived_name_is_looked_up_twice(store: Store) -> None:
    asked: list[str] = []
    store.database.connection.set_trace_callback(lambda sql: asked.append(sql) if "merge <> 'merged'" in sql else None)
    agents = await store.lifecycle.spawn([new_agent("task", derived=True) for _ in range(50)], place, NOBODY)
    assert [agent.name for agent in agents[1:]] == [f"task-{n}" for n in range(2, 51)]
    assert len(asked) == 50 + 49


async def test_a_number_is_never_used_again(store: Store) -> None:
    await _spawn(store, "gone")
    await store.retention.delete_agent(1)
    (agent,) = await _spawn(store, "next")
    assert agent.id == "a2"


async def test_a_repeated_call_gets_the_first_answer(store: Store) -> None:
    call = Call("relay", "7")
    assert await store.calls.answer_to(call) is None
    (agent,) = await _spawn(store, "once", call=call)
    assert await store.calls.answer_to(call) == {"agents": [agent.number]}
    with pytest.raises(RecordsError):
        await _spawn(store, "twice", call=call)
    assert [agent.name for agent in await store.agents.live()] == ["once"]


async def test_listing_agents_reads_no_tasks(store: Store) -> None:
    await _spawn(store, "first", "second")

    def allow(action: int, table: str | None, *_: str | None) -> int:
        return sqlite3.SQLITE_DENY if (action, table) == (sqlite3.SQLITE_READ, "task") else sqlite3.SQLITE_OK

    store.database.connection.set_authorizer(allow)
    assert [agent.name for agent in await store.agents.live()] == ["first", "second"]
    with pytest.raises(RecordsError):
        await store.agents.task(1)


async def test_events_wake_no_waiters(store: Store) -> None:
    (agent,) = await _spawn(store, "speaker")
    seen = store.changes.version
    await store.events.add(agent, [(Said("hello"), 0)], Progress(6, None))
    assert store.changes.version == seen


async def test_agents_are_ordered_by_number_when_the_clock_jumps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 26."""
    for name, now in (("first", 2e9), ("second", 1e9), ("third", 3e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        await _spawn(store, name)
    assert [agent.name for agent in await store.agents.live()] == ["first", "second", "third"]
    assert [agent.name for agent in await store.agents.page(1, everything=True)] == ["third", "second", "first"]
    assert [agent.name for agent in (await store.agents.untold(1, "lead", 9, everyone=False))[0]] == [
        "first",
        "second",
        "third",
    ]


@pytest.mark.parametrize("task", ["-n '$(x)' `y` \\ \"", "a\r\nb\tc\n\n", "🦊 é \u202e", "x" * 2_000_000], ids=len)
async def test_a_task_is_stored_unchanged(store: Store, task: str) -> None:
    """Fault 13."""
    (agent,) = await store.lifecycle.spawn([new_agent("first", task=task)], place, NOBODY)
    assert await store.agents.task(agent.number) == task


async def test_a_result_is_recorded_once(store: Store) -> None:
    (agent,) = await _spawn(store, "once")
    agent = await store.lifecycle.move(
        await store.lifecycle.move(await store.lifecycle.move(agent, State.PREPARING), State.RUNNING), State.FINISHING
    )
    result = Result(1, State.FAILED, "first", "")
    await store.lifecycle.finish(agent, result, Merge.NOTHING)
    with pytest.raises(BrokenPromiseError):
        await store.lifecycle.finish(agent, replace(result, summary="second"), Merge.UNMERGED)
    assert await store.results.get(agent.number) == result


async def test_events_are_numbered_cut_and_read_in_pages(store: Store) -> None:
    (agent,) = await _spawn(store, "speaker")
    await store.events.add(agent, [(Said("é" * 5000), 0), (Noted("two"), 10)], Progress(20, None))
    await store.events.add(agent, [(Said("three"), 20)], Progress(30, 20))
    events = await store.events.page(agent.number, 0, 10)
    assert [(event.number, event.kind) for event in events] == [(1, "said"), (2, "noted"), (3, "said")]
    assert len(events[0].text.encode()) <= TEXT_LIMIT
    assert [event.number for event in await store.events.page(agent.number, 1, 1)] == [2]
    assert await store.events.progress(agent) == Progress(30, 20)
    assert (await store.agents.get(agent.number)).last_event == "three"


async def test_an_ended_agent_is_returned_until_it_was_reported_to_the_lead(store: Store) -> None:
    (agent,) = await _spawn(store, "ends")
    await store.lifecycle.ask_stop([agent])
    assert [one.state for one in (await store.agents.untold(1, "lead", 9, everyone=False))[0]] == [State.STOPPED]
    await store.agents.set_told(1, "lead", [(agent.number, agent.attempt)])
    assert await store.agents.untold(1, "lead", 9, everyone=False) == ([], 0)
    assert await store.agents.untold(1, "another", 9, everyone=False) == ([], 0)
    assert len((await store.agents.untold(1, "cli", 9, everyone=True))[0]) == 1


async def test_no_change_between_a_query_and_the_following_wait_is_missed(store: Store) -> None:
    seen = store.changes.version
    await _spawn(store, "new")
    with anyio.fail_after(5):
        await store.changes.after(seen)


async def test_a_record_survives_a_kill_of_the_daemon(tmp_path: Path) -> None:
    file = tmp_path / "records.sqlite"
    first = await open_store(file)
    await first.projects.get_or_add("/repository/.git")
    (agent,) = await _spawn(first, "kept")
    second = await open_store(file)  # the first was not closed, as after a kill
    assert await second.agents.get(agent.number) == agent
    await second.close()
    await first.close()


async def test_records_of_a_newer_forkjoin_are_refused_and_stay_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "records.sqlite"
    await (await open_store(file)).close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(CallerError, match="newer forkjoin"):
        await open_store(file)
    assert file.read_bytes() == before


@settings(deadline=None, max_examples=20)
@given(st.text(max_size=300))
def test_an_event_with_any_text_can_be_recorded(text: str) -> None:
    async def keep() -> None:
        store = Store(Database(open_database(Path(folder) / "records.sqlite")))
        try:
            await store.projects.get_or_add("/repository/.git")
            (agent,) = await _spawn(store, "speaker")
            await store.events.add(agent, [(Said(text), 0)], Progress(0, None))
            assert len(await store.events.page(agent.number, 0, 10)) == 1
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(keep)
