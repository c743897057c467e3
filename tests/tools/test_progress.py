"""Progress of blocking calls, reported every 10 seconds to clients that want it: the limit is 15."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from forkjoin.core.paths import Home
from forkjoin_tools import reply_wait, wait
from support.harness import Lead, lead_of, open_reconciler_in_memory, program_of, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reply_wait.PROGRESS_S == 10
    monkeypatch.setattr(reply_wait, "PROGRESS_S", 0.05)


class Watched:
    """A call whose client wants progress, and the progress reported so far."""

    def __init__(self, lead: Lead) -> None:
        self._lead = lead
        self.reported: list[tuple[float, str]] = []
        self.answer: Any = None

    async def call(self, tool: str, **arguments: Any) -> None:
        result = await self._lead.client.call_tool(tool, arguments, progress_callback=self._hear)
        self.answer = result.structured_content

    async def _hear(self, progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        self.reported.append((progress, message or ""))

    def heard(self, part: str) -> bool:
        return any(part in message for _, message in self.reported)


async def test_a_waits_progress_says_how_many_have_ended_and_what_the_others_do(repository: Path, home: Home) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        words = "working hard " * 20
        ids = await lead.spawn("true", f"until [ -e {repository}/go ]; do echo {words}; sleep 0.02; done", "sleep 1000")
        watched = Watched(lead)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: watched.call("wait_agents", ids=ids[:2]))
            await until(lambda: watched.heard(f"1 of 2 ended; {ids[1]} running: working hard working"))
            (repository / "go").touch()
        assert [agent["id"] for agent in watched.answer["finished"]] == ids[:2]
        progress = [number for number, _ in watched.reported]
        assert progress == sorted(set(progress))
        assert max(len(message) for _, message in watched.reported) <= 300
        timed = Watched(lead)
        await timed.call("wait_agents", ids=ids[2:], timeout_s=0.3)
        assert timed.answer["timed_out"] is True
        assert timed.heard("0 of 1 ended")
        await lead.call("stop_agents", ids=ids)


async def test_a_merges_progress_says_that_it_is_under_way_or_what_it_waits_for(repository: Path, home: Home) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        ids = await lead.run(*[f"echo {n} > {n}; git add .; git commit -qm {n}" for n in "ab"])
        (repository / ".git" / "info" / "exclude").write_text("go\n")
        verify = f"until [ -e {repository}/go ]; do sleep 0.02; done"
        first, second = Watched(lead), Watched(lead)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: first.call("merge_worktree", ids=ids[:1], verify=verify))
            await until(lambda: first.heard("merging 1 agent(s) into main"))
            tasks.start_soon(lambda: second.call("merge_worktree", ids=ids[1:]))
            await until(lambda: second.heard("waits for 1 earlier merge(s) into main"))
            (repository / "go").touch()
        merged = [agent["id"] for watched in (first, second) for agent in watched.answer["merged"]]
        assert merged == ids


async def test_a_merges_progress_says_that_it_waits_for_a_lost_environment(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        ids = await lead.run("echo a > a; git add .; git commit -qm a")
        merging = Watched(lead)
        async with anyio.create_task_group() as tasks:
            with monkeypatch.context() as lost:
                lost.setattr(reconciler.services.environments, "find", _nothing)
                tasks.start_soon(lambda: merging.call("merge_worktree", ids=ids, verify="true"))
                await until(lambda: merging.heard("waits for its lead's environment"))
            reconciler.store.changes.announce()
        assert [agent["id"] for agent in merging.answer["merged"]] == ids


def _nothing(*_: object) -> None:
    return None


async def test_an_agents_client_gets_progress_while_a_question_waits(repository: Path, home: Home) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (agent,) = await lead.spawn("sleep 1000")
        await lead.until(agent, state="running")
        async with program_of(reconciler, agent) as program:
            watched = Watched(program)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: watched.call("ask_lead", question="Tabs?"))
                await until(lambda: watched.heard("waiting for an answer"))
                (request,) = (await lead.call("list_requests"))["requests"]
                await lead.call("answer_request", request_id=request["request_id"], answer="Tabs.")
            assert watched.answer["answer"] == "Tabs."
        await lead.call("stop_agents", ids=[agent])


async def test_no_progress_is_computed_for_a_client_that_does_not_want_it(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(wait, "_describe_wait_progress", refuse)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (slow,) = await lead.spawn("sleep 1000")
        assert (await lead.call("wait_agents", timeout_s=0.3))["timed_out"] is True
        await lead.call("stop_agents", ids=[slow])
