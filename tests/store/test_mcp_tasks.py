"""The records of MCP tasks: each is made once, and kept for a week."""

from types import SimpleNamespace

import pytest
from forkjoin.core.session import Call
from forkjoin.store import retention
from forkjoin.store.mcp_tasks import KEPT_S, McpTask
from forkjoin.store.store import Store


async def defer(store: Store, request: str = "1") -> McpTask:
    return await store.mcp_tasks.add(1, Call("relay", request), "wait_agents", {"until": "any"}, [3, 4])


async def test_a_repeated_call_returns_the_task_of_the_first_call(store: Store) -> None:
    first, again, other = await defer(store), await defer(store), await defer(store, "2")
    assert first == again != other
    assert await store.mcp_tasks.get_all([other.id, "none", first.id]) == [other, first]
    assert (first.call, first.arguments, first.agents) == (Call("relay", "1"), {"until": "any"}, (3, 4))


async def test_only_the_first_answer_or_cancellation_of_a_task_counts(store: Store) -> None:
    answered, cancelled = await defer(store), await defer(store, "2")
    for answer in ({"a": 1}, {"a": 2}):
        await store.mcp_tasks.finish(answered.id, answer)
        await store.mcp_tasks.cancel(answered.id)
    await store.mcp_tasks.cancel(cancelled.id)
    await store.mcp_tasks.finish(cancelled.id, {"a": 3})
    ends = await store.mcp_tasks.get_all([answered.id, cancelled.id])
    assert [(one.answer, one.cancelled) for one in ends] == [({"a": 1}, False), (None, True)]


@pytest.mark.parametrize(("later_s", "is_kept"), [(KEPT_S - 60, True), (KEPT_S + 60, False)])
async def test_a_task_is_deleted_after_a_week(
    store: Store, monkeypatch: pytest.MonkeyPatch, later_s: float, *, is_kept: bool
) -> None:
    made = await defer(store)
    monkeypatch.setattr(retention, "time", SimpleNamespace(time=lambda: made.created + later_s))
    await store.retention.prune(1, [])
    assert bool(await store.mcp_tasks.get_all([made.id])) is is_kept
