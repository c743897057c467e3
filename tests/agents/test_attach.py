"""A person attached to an agent: its program ends for them, and continues when they have left."""

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.harness import (
    GIVE_UP_S,
    Lead,
    first_answer,
    git,
    lead_of,
    let_pass,
    open_reconciler_in_memory,
    program_of,
    until,
)

#: Prints `up`, then keeps working until it is resumed.
TASK = "answer('up')\nif not resumed:\n    hear()\nsucceed(told)"
#: Like the task above, and reports whether the processes that a person left running have ended.
LOOKING = "import os\nanswer('up')\nif not resumed:\n    hear()\nsucceed(f'has ended: {os.path.exists(\"ended\")}')"
SERVER = "trap 'sleep 0.3; echo > ended; exit 0' TERM; echo > up; while :; do sleep 0.05; done"
Leave = Callable[[Any], Awaitable["subprocess.Popen[bytes]"]]
SPOKEN = "A person may have continued your work"


@pytest.fixture
async def person(reconciler: Reconciler, repository: Path) -> AsyncIterator[Lead]:
    async with lead_of(reconciler, repository, "a person", kind="cli") as found:
        yield found


@pytest.fixture
def leave() -> Iterator[Leave]:
    """Return a script that leaves a server running, as a person's program does."""
    servers: list[subprocess.Popen[bytes]] = []

    async def start(going: Any) -> "subprocess.Popen[bytes]":
        servers.append(serve(going["worktree"], going["environment"]))
        await until((Path(going["worktree"]) / "up").exists)
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
        server.wait()


def serve(where: str, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sh", "-c", SERVER], cwd=where, env=environment, start_new_session=True)


async def up(lead: Lead) -> str:
    """Return the id of an agent in the middle of its turn."""
    (agent,) = await lead.spawn(TASK, agent="talker")
    await lead.until(agent, last_event="up")
    return agent


async def test_a_running_agent_pauses_for_a_person_and_continues_its_conversation(
    reconciler: Reconciler, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "the key of the lead")
    monkeypatch.setenv("MCP_TOOL_TIMEOUT", "30000")
    monkeypatch.setenv("SOME_PASSWORD", "acceptEdits")  # this value is also an option of claude
    async with lead_of(reconciler, repository) as lead:
        agent = await up(lead)
        monkeypatch.delenv("SOME_API_KEY")
        async with lead_of(reconciler, repository, "a person", kind="cli") as person:
            going = await person.call("attach", id=agent)
            assert (going["state"], going["argv"][-2]) == ("paused", "--resume")
            assert (going["environment"]["SOME_API_KEY"], "-p" in going["argv"]) == ("the key of the lead", False)
            assert (bool(going["environment"]["FORKJOIN_TOKEN"]), "acceptEdits" in going["argv"]) == (True, True)
            assert going["environment"]["MCP_TOOL_TIMEOUT"] == "100000000"  # a person's answer may take minutes
            let_pass(reconciler, monkeypatch, 1000)
            await lead.run("true")
            assert await is_held(lead)
        (result,) = await lead.results(agent)
    assert (result["state"], result["output"][: len(SPOKEN)]) == ("succeeded", SPOKEN)


async def test_everything_that_a_person_started_has_ended_before_the_agent_continues(
    reconciler: Reconciler, talking: Lead, repository: Path, leave: Leave
) -> None:
    (agent,) = await talking.spawn(LOOKING, agent="talker")
    await talking.until(agent, last_event="up")
    async with lead_of(reconciler, repository, "a person", kind="cli") as person:
        left = await leave(await person.call("attach", id=agent))
    async with lead_of(reconciler, repository, "another", kind="cli") as other:
        with anyio.fail_after(GIVE_UP_S):
            await other.call("attach", id=agent)
        assert left.poll() == 0
    (result,) = await talking.results(agent)
    assert result["output"] == "has ended: True"
    assert "a1-person" not in await reconciler.services.executor.list_handles()


async def is_held(lead: Lead) -> bool:
    """Return whether an agent waits for a person to leave."""
    return "a1: a person is in its conversation" in (await lead.call("get_status"))["waiting"]


async def test_an_ended_agent_gets_another_attempt_if_the_person_changed_its_work(
    reconciler: Reconciler, talking: Lead, repository: Path
) -> None:
    (agent,) = await talking.run("succeed(told)", agent="talker")
    assert (await talking.listed(agent))["merge"] == "nothing"
    async with lead_of(reconciler, repository, "a person", kind="cli") as person:
        going = await person.call("attach", id=agent)
        assert going["state"] == "succeeded"
        (Path(going["worktree"]) / "new.txt").write_text("new\n")
    await talking.until(agent, merge="unmerged")
    (result,) = await talking.results(agent)
    assert (result["files_changed"], result["output"][: len(SPOKEN)]) == (1, SPOKEN)
    assert git(repository, "show", f"{result['branch']}:new.txt") == "new"


async def test_an_ended_agent_stays_ended_if_the_person_changed_nothing(
    reconciler: Reconciler, talking: Lead, repository: Path
) -> None:
    (agent,) = await talking.run("succeed(told)", agent="talker")
    (agent_now,) = await reconciler.store.agents.get_all([1])
    (Path(agent_now.worktree.path) / "report.xml").write_text("what verify leaves\n")
    async with lead_of(reconciler, repository, "a person", kind="cli") as person:
        await person.call("attach", id=agent)
    await first_answer(lambda: gone(reconciler))
    assert [agent.attempt for agent in await reconciler.store.agents.get_all([1])] == [1]


@pytest.mark.parametrize("changes", [False, True])
async def test_a_branch_that_a_person_left_checked_out_is_released_from_an_ended_agents_worktree(
    reconciler: Reconciler, talking: Lead, repository: Path, changes: bool
) -> None:
    (agent,) = await talking.run("succeed(told)", agent="talker")
    git(repository, "branch", "mine")
    async with lead_of(reconciler, repository, "a person", kind="cli") as person:
        worktree = Path((await person.call("attach", id=agent))["worktree"])
        git(worktree, "switch", "-q", "mine")
        if changes:
            (worktree / "new.txt").write_text("new\n")
    await first_answer(lambda: gone(reconciler))
    git(repository, "switch", "-q", "mine")
    if changes:
        await talking.results(agent)
    else:
        assert any("had left mine checked out" in event.text for event in await reconciler.store.events.page(1, 0, 100))


async def _never(*_: object) -> None:
    await anyio.sleep_forever()


async def gone(reconciler: Reconciler) -> bool:
    return not reconciler.services.attached


async def test_an_agent_that_is_stopped_while_a_person_is_attached_stays_stopped(
    reconciler: Reconciler, talking: Lead, repository: Path
) -> None:
    agent = await up(talking)
    async with lead_of(reconciler, repository, "a person", kind="cli") as person:
        going = await person.call("attach", id=agent)
        await talking.call("stop_agents", ids=[agent])
        (Path(going["worktree"]) / "new.txt").write_text("new\n")
    await first_answer(lambda: gone(reconciler))
    assert (await talking.listed(agent))["state"] == "stopped"
    (branch,) = git(repository, "branch", "--list", "forkjoin/*", "--format=%(refname:short)").splitlines()
    assert git(repository, "show", f"{branch}:new.txt") == "new"
    assert "+new" in await talking.call("read_diff", id=agent)
    answer = await talking.call("merge_worktree", ids=[agent], include_failed=True)
    assert [merged["id"] for merged in answer["merged"]] == [agent]


async def test_an_agent_that_waits_for_an_answer_pauses_for_a_person_too(
    reconciler: Reconciler, talking: Lead, person: Lead, repository: Path
) -> None:
    agent = await up(talking)
    async with anyio.create_task_group() as tasks, program_of(reconciler, agent) as program:
        tasks.start_soon(partial(program.refusal, "ask_lead", question="Which?"))
        await talking.until(agent, state="waiting")
        with anyio.fail_after(GIVE_UP_S):
            assert (await person.call("attach", id=agent))["state"] == "paused"
        tasks.cancel_scope.cancel()


async def test_attaching_is_refused_before_a_model_has_answered(talking: Lead, person: Lead) -> None:
    (agent,) = await talking.spawn("if not resumed:\n    hear()", agent="talker")
    await talking.until(agent, state="running")
    assert "no model has answered" in await person.refusal("attach", id=agent)
    await talking.call("stop_agents", ids=[agent])


async def test_nobody_can_attach_to_an_agent_that_is_being_removed(
    reconciler: Reconciler, talking: Lead, person: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    (agent,) = await talking.run("succeed('')", agent="talker")

    async def tear_down(*_: object) -> list[str]:
        await person.call("attach", id=agent)
        return []

    monkeypatch.setattr("forkjoin.agents.remove.tear_down", tear_down)
    assert "A person is in the conversation of a1" in await talking.refusal("remove_worktrees", ids=[agent])
    reconciler.services.attached.clear()
    until = reconciler.store.changes.until

    async def remove_meanwhile(*arguments: Any) -> Any:
        await reconciler.store.lifecycle.begin_removal(await reconciler.store.agents.get_all([1]))
        return await until(*arguments)

    monkeypatch.setattr(reconciler.store.changes, "until", remove_meanwhile)
    assert "was removed" in await person.refusal("attach", id=agent)
    assert await gone(reconciler)


async def test_an_attached_agent_is_not_merged_and_nobody_attaches_during_a_merge(
    reconciler: Reconciler, talking: Lead, person: Lead, tmp_path: Path
) -> None:
    (agent,) = await talking.run("open('one', 'w').close()\nsucceed('')", agent="talker")
    await person.call("attach", id=agent)
    answer = await talking.call("merge_worktree", ids=[agent])
    assert [agent["why"] for agent in answer["skipped"]] == ["a person is in its conversation"]
    reconciler.services.attached.clear()
    verify = f"until test -e {tmp_path}/go; do sleep 0.05; done"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(talking.call, "merge_worktree", ids=[agent], verify=verify))
        await talking.until(agent, merge="queued")
        assert "is being merged" in await person.refusal("attach", id=agent)
        (tmp_path / "go").touch()


async def test_an_agent_gets_messages_once_the_person_has_left(
    reconciler: Reconciler, talking: Lead, repository: Path
) -> None:
    agent = await up(talking)
    async with lead_of(reconciler, repository, "a person", kind="cli") as person:
        await person.call("attach", id=agent)
        answer = await talking.call("message_agent", id=agent, text="one thing more")
        assert answer["delivery"] == "next_turn"
    (result,) = await talking.results(agent)
    assert result["output"].endswith("one thing more")


@pytest.mark.parametrize("goes", ["on", "away"])
async def test_processes_of_a_person_end_even_if_no_daemon_saw_them_leave(
    talkers: None, home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch, leave: Leave, goes: str
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        if goes == "on":
            (agent,) = await lead.spawn(LOOKING, agent="talker")
            await lead.until(agent, last_event="up")
        else:
            (agent,) = await lead.run("answer('up')\nsucceed('')", agent="talker")
        with monkeypatch.context() as killed:
            async with lead_of(reconciler, repository, "a person", kind="cli") as person:
                left = await leave(await person.call("attach", id=agent))
                killed.setattr("forkjoin.reconciler.detach", _never)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        if goes == "on":
            assert (await lead.results(agent))[0]["output"] == "has ended: True"
        else:
            await until(lambda: left.poll() is not None)
            await first_answer(lambda: gone(reconciler))
            await lead.call("remove_worktrees", ids=[agent], discard_unmerged=True)
    assert left.wait(GIVE_UP_S) == 0


@pytest.mark.parametrize("is_queued", [False, True])
async def test_after_a_restart_the_agent_continues_once_the_persons_processes_have_ended(
    talkers: None, home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch, leave: Leave, is_queued: bool
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (agent,) = await lead.spawn(LOOKING, agent="talker")
        await lead.until(agent, last_event="up")
        if is_queued:
            await lead.call("stop_agents", ids=[agent])
        with monkeypatch.context() as killed:
            async with lead_of(reconciler, repository, "a person", kind="cli") as person:
                left = await leave(await person.call("attach", id=agent))
                if is_queued:
                    await lead.call("message_agent", id=agent, text="go on")
                killed.setattr("forkjoin.reconciler.detach", _never)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (result,) = await lead.results(agent)
    assert (result["output"], left.wait(GIVE_UP_S)) == ("has ended: True", 0)


async def test_after_a_restart_a_persons_work_on_an_agent_that_had_ended_is_committed(
    talkers: None, home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch, leave: Leave
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (agent,) = await lead.run("answer('up')\nsucceed('')", agent="talker")
        with monkeypatch.context() as killed:
            async with lead_of(reconciler, repository, "a person", kind="cli") as person:
                going = await person.call("attach", id=agent)
                (Path(going["worktree"]) / "new.txt").write_text("new\n")
                left = await leave(going)
                killed.setattr("forkjoin.reconciler.detach", _never)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.until(agent, merge="unmerged")
        (result,) = await lead.results(agent)
    assert left.wait(GIVE_UP_S) == 0
    assert git(repository, "show", f"{result['branch']}:new.txt") == "new"


async def test_attaching_is_refused_without_a_conversation_or_if_somebody_is_attached(
    reconciler: Reconciler, talking: Lead, person: Lead, repository: Path
) -> None:
    command, ended = *await talking.run("true"), *await talking.run("succeed('')", agent="talker")
    assert "is a command" in await person.refusal("attach", id=command)
    holder = await up(talking)
    (queued,) = await talking.spawn("succeed('')", agent="talker", after=[holder])
    assert "no model has answered" in await person.refusal("attach", id=queued)
    await person.call("attach", id=ended)
    async with lead_of(reconciler, repository, "another", kind="cli") as other:
        assert "A person is attached to a2" in await other.refusal("attach", id=ended)
    assert "A person is in the conversation of a2" in await talking.refusal("remove_worktrees", ids=[ended])
    await talking.call("remove_worktrees", ids=[command])
    assert "no tool" in await talking.refusal("attach", id=ended)
    await talking.call("stop_agents", ids=[holder])
