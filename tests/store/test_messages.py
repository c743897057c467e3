"""The records of messages, and refusals of messages in all states of agents."""

import pytest
from forkjoin.core.error import CallerError
from forkjoin.core.event import TurnEnded
from forkjoin.core.model import Agent, Merge, State
from forkjoin.core.result import Result
from forkjoin.store.rows import NewMergeJob
from forkjoin.store.store import Store
from support.records import NOBODY, new_agent, place

TO_FINISHING = (State.PREPARING, State.RUNNING, State.FINISHING)


async def bring(store: Store, *states: State) -> Agent:
    """Return a new agent that went through these states."""
    (agent,) = await store.lifecycle.spawn([new_agent("one")], place, NOBODY)
    for state in states:
        agent = await store.lifecycle.move(agent, state)
    return agent


async def end(store: Store, agent: Agent) -> Agent:
    """Finish the agent as succeeded, and return its new record."""
    await store.lifecycle.finish(agent, Result(agent.attempt, State.SUCCEEDED, "", ""), Merge.UNMERGED)
    return await store.agents.get(agent.number)


async def send_message(store: Store, agent: Agent) -> Agent:
    await store.messages.add(agent, "more", NOBODY, "its caller's", "account")
    return await store.agents.get(agent.number)


async def test_an_agent_that_got_a_message_meanwhile_is_not_removed(store: Store) -> None:
    ended = await end(store, await bring(store, *TO_FINISHING))
    told = await send_message(store, ended)
    assert await store.lifecycle.begin_removal([ended]) == [told]
    assert not (await store.agents.get(1)).removing


async def test_an_agent_that_is_being_removed_gets_no_message(store: Store) -> None:
    ended = await end(store, await bring(store, *TO_FINISHING))
    assert await store.lifecycle.begin_removal([ended]) == []
    with pytest.raises(CallerError, match="was removed"):
        await send_message(store, ended)


async def test_an_agent_in_the_merge_queue_gets_no_message_and_is_not_removed(store: Store) -> None:
    ended = await end(store, await bring(store, *TO_FINISHING))
    await store.merges.add(NewMergeJob(1, "lead", (1,), "refs/heads/main", None, False, ""), NOBODY)
    with pytest.raises(CallerError, match="is being merged"):
        await send_message(store, ended)
    assert [one.merge for one in await store.lifecycle.begin_removal([ended])] == [Merge.QUEUED]


async def test_an_agent_that_is_being_stopped_gets_no_message(store: Store) -> None:
    running = await bring(store, State.PREPARING, State.RUNNING)
    await store.lifecycle.ask_stop([running])
    with pytest.raises(CallerError, match="is being stopped"):
        await send_message(store, running)


async def test_a_stopped_agent_does_not_continue_for_a_waiting_message(store: Store) -> None:
    finishing = await bring(store, *TO_FINISHING)
    await send_message(store, finishing)
    await store.lifecycle.ask_stop([finishing])
    assert (await end(store, finishing)).state is State.SUCCEEDED


async def test_an_attempt_for_a_message_that_waited_resets_wind_up(store: Store) -> None:
    (agent,) = await store.lifecycle.spawn([new_agent("one")], place, NOBODY)
    await store.agents.update(agent, wind_up=True)
    for state in TO_FINISHING:
        agent = await store.lifecycle.move(agent, state)
    await send_message(store, agent)
    again = await end(store, agent)
    assert (again.state, again.attempt, again.money.wind_up) == (State.QUEUED, 2, False)


@pytest.mark.parametrize(("ok", "state"), [(True, State.SUCCEEDED), (False, State.QUEUED)])
async def test_a_message_waits_again_only_if_the_turn_after_it_failed(store: Store, ok: bool, state: State) -> None:
    running = await bring(store, State.PREPARING, State.RUNNING)
    await send_message(store, running)
    (message,) = await store.messages.waiting(running)
    await store.messages.begin_sending(message)
    await store.messages.set_sent(message, running)
    await store.events.add(running, [(TurnEnded(ok, "(error) is the word that the log shows"), 0)])
    assert await store.events.last_turn(running) == TurnEnded(ok, "(error) is the word that the log shows")
    finishing = await store.lifecycle.move(running, State.FINISHING)
    assert (await end(store, finishing)).state is state


async def test_an_ended_agent_continues_in_the_environment_of_the_messages_sender(store: Store) -> None:
    ended = await end(store, await bring(store, *TO_FINISHING))
    assert ended.environment == "e"
    told = await send_message(store, ended)
    assert (told.environment, told.account, told.lead) == ("its caller's", "account", "lead")


async def test_undoing_a_merge_clears_was_merged_of_an_agent_that_continues(store: Store) -> None:
    ended = await end(store, await bring(store, *TO_FINISHING))
    landing = await store.merges.add(NewMergeJob(1, "lead", (1,), "refs/heads/main", None, False, ""), NOBODY)
    await store.merges.finish(landing, {1: Merge.MERGED}, (), str)
    told = await send_message(store, ended)
    assert (told.merge, told.history.was_merged) == (Merge.UNMERGED, True)
    await store.merges.finish(landing, {}, [1], str)
    assert not (await store.agents.get(1)).history.was_merged
