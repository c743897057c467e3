"""Nested agents: they stay within the grant, and end with their parent."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from forkjoin.core.paths import Home
from forkjoin.core.session import digest_of
from forkjoin.merge_queue.conflict_preview import ConflictingPair
from forkjoin.reconciler import Reconciler
from mcp_types import ElicitRequestParams, ElicitResult
from support.harness import (
    Lead,
    first_answer,
    git,
    kill_daemon,
    lead_of,
    limit,
    open_lead,
    program_of,
    until,
)
from support.nested_agents import WAITS, begin, calls

TESTS = Path(__file__).parents[1]


AUTHOR = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")


@pytest.fixture
def one_slot(home: Home) -> None:
    """Configure a single slot, and a program that calls tools."""
    limit(home, max_running=1)
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path[:0] = [{str(TESTS)!r}]; from support.fakes.parent import main; main()",
    ]
    text = home.config_file.read_text()
    home.config_file.write_text(f'{text}[agents.parent]\nkind = "command"\ncommand = {json.dumps(command)}\n')


async def running(lead: Lead, agent: str) -> bool:
    """Return whether this agent is running."""
    listed = (await lead.call("list_agents", state=["running"]))["agents"]
    return agent in [listed_agent["id"] for listed_agent in listed]


TREE = calls(
    ("sh", "echo ours > ours.txt; git add .; git commit -qm ours"),
    ("spawn_agent", {"task": "cat ours.txt > theirs.txt", "name": "child", "agent": "sh"}),
    ("wait_agents", {}),
    ("merge_worktree", {"ids": ["child"]}),
)


async def test_an_agent_in_the_only_slot_spawns_awaits_and_merges_a_nested_agent(
    one_slot: None, repository: Path, home: Home
) -> None:
    async with open_lead(repository) as lead:
        (parent,) = await lead.run(TREE, agent="parent", nesting={"agents": 1})
        result = await lead.call("get_result", id=parent)
        child = await lead.listed("child")
    assert (result["state"], result["warnings"]) == ("succeeded", [])
    subjects = {commit.partition(" ")[2] for commit in result["commits"]}
    assert subjects >= {"ours", "Uncommitted work of a2 (child)"}
    assert git(repository, "show", f"{result['branch']}:theirs.txt") == "ours"
    assert (child["state"], child["merge"], child["parent"]) == ("succeeded", "merged", parent)
    assert git(repository, "log", "--format=%s", "main") == "first"


async def test_nested_agents_continue_when_the_daemon_is_killed(one_slot: None, repository: Path, home: Home) -> None:
    go = home.state / "go"
    tree = TREE.replace("cat ours.txt", f"until test -e {go}; do sleep 0.05; done; cat ours.txt")
    async with open_lead(repository) as lead:
        (parent,) = await lead.spawn(tree, agent="parent", nesting={"agents": 1})
        await first_answer(lambda: running(lead, "a2"))
        kill_daemon(repository, home)
        go.touch()
        (result,) = await lead.results(parent)
        assert (await lead.listed("child"))["merge"] == "merged"
    assert result["state"] == "succeeded"
    assert git(repository, "show", f"{result['branch']}:theirs.txt") == "ours"


async def test_variables_of_the_settings_dont_reach_nested_agents(one_slot: None, repository: Path, home: Home) -> None:
    added = '[agents.parent.environment]\nANTHROPIC_BASE_URL = "https://another.example"\n'
    home.config_file.write_text(home.config_file.read_text() + added)
    spawn = {"task": "echo at $ANTHROPIC_BASE_URL", "name": "child", "agent": "sh"}
    async with open_lead(repository) as lead:
        await lead.run(calls(("spawn_agent", spawn), ("wait_agents", {})), agent="parent", nesting={"agents": 1})
        assert (await lead.call("get_result", id="child"))["output"].strip() == "at"


async def test_an_agent_stays_in_its_repository_whatever_happens_to_its_worktree(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    parent = await begin(near_lead, agents=5)
    worktree = Path((await in_process_reconciler.store.agents.get(1)).worktree.path)
    (worktree / ".git").unlink()
    git(worktree, "init", "-q")
    git(worktree, *AUTHOR, "commit", "-q", "--allow-empty", "-m", "another")
    async with program_of(in_process_reconciler, parent) as program:
        refused = await program.refusal("spawn_agent", task="true")
        assert f"is not a worktree of {repository}/.git any more. Nothing was changed." in refused


async def test_the_granted_number_of_nested_agents_holds_for_all_levels(
    in_process_reconciler: Reconciler, near_lead: Lead
) -> None:
    parent = await begin(near_lead, agents=2, depth=2)
    async with program_of(in_process_reconciler, parent) as program:
        (child,) = await program.spawn(WAITS, nesting={"agents": 50})
        await near_lead.until(child, state="running")
        async with program_of(in_process_reconciler, child) as below:
            (grandchild,) = await below.spawn("true")
            refused = await below.refusal("spawn_agent", task="true")
            assert "was granted 2 agents of its own" in refused
            assert "0 are left, and 1 were asked for. Nothing was spawned." in refused
            assert "granted depth 1, so its agents can have no nesting" in await below.refusal(
                "spawn_agent", task="true", nesting={"agents": 1}
            )
        assert "0 are left" in await program.refusal("spawn_agents", agents=[{"task": "true"}], dry_run=True)
        assert "so its agents can have at most nesting.depth 1" in await program.refusal(
            "spawn_agent", task="true", nesting={"agents": 1, "depth": 2}
        )
        listed = (await program.call("list_agents"))["agents"]
    assert [(listed_agent["id"], listed_agent["parent"]) for listed_agent in listed] == [
        (grandchild, child),
        (child, parent),
    ]
    assert len((await near_lead.call("list_agents"))["agents"]) == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"after": ["parent"]}, "not spawned by you"),
        ({"base": "other"}, "not spawned by you"),
        ({"exclusive": "database"}, "holds the key 'database' until its end"),
    ],
)
async def test_no_agent_is_spawned_that_would_wait_for_its_ancestor(
    in_process_reconciler: Reconciler, near_lead: Lead, given: dict[str, Any], words: str
) -> None:
    await near_lead.call("spawn_agent", task="true", name="other")
    await near_lead.results("other")
    await near_lead.call("spawn_agent", task=WAITS, name="parent", nesting={"agents": 5}, exclusive="database")
    await near_lead.until("parent", state="running")
    async with program_of(in_process_reconciler, "a2") as program:
        assert words in await program.refusal("spawn_agent", task="true", **given)
        assert (await program.call("list_agents"))["agents"] == []


@pytest.mark.parametrize(
    ("tool", "given", "words"),
    [
        ("stop_agents", {"ids": ["other"]}, "other is not one of your agents"),
        ("read_log", {"id": "a2"}, "a2 is not one of your agents"),
        ("merge_worktree", {"ids": ["child"], "into": "main"}, "only into your own branch"),
        ("merge_worktree", {"ids": ["child"], "on_conflict": "agent"}, "resolve conflicts with git merge"),
        ("set_budget", {"id": "child", "budget_usd": 1}, "is only for the lead"),
        ("get_status", {}, "is only for the lead"),
    ],
)
async def test_an_agent_can_act_on_its_own_nested_agents_only(
    in_process_reconciler: Reconciler, near_lead: Lead, tool: str, given: dict[str, Any], words: str
) -> None:
    await near_lead.call("spawn_agent", task="true", name="other")
    await near_lead.results("other")
    parent = await begin(near_lead, agents=5)
    async with program_of(in_process_reconciler, parent) as program:
        await program.call("spawn_agent", task="true", name="child")
        assert words in await program.refusal(tool, **given)


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("spawn_agent", {"task": "true"}),
        ("message_agent", {"id": "a2", "text": "more"}),
        ("merge_worktree", {"ids": ["a2"]}),
        ("remove_worktrees", {"ids": ["a2"], "discard_unmerged": True}),
        ("report_progress", {"text": "still there"}),
        ("ask_lead", {"question": "Whose?"}),
    ],
)
async def test_processes_that_an_ended_agent_left_cant_change_anything(
    in_process_reconciler: Reconciler, near_lead: Lead, tool: str, given: dict[str, Any]
) -> None:
    parent = await begin(near_lead, agents=5)
    async with program_of(in_process_reconciler, parent) as program:
        await program.run("echo theirs > theirs.txt")
        (Path((await in_process_reconciler.store.agents.get(1)).worktree.path) / "go").touch()
        await near_lead.results(parent)
        assert "has ended (succeeded). Nothing was changed." in await program.refusal(tool, **given)
        assert (await program.call("get_result", id="a2"))["merge"] == "unmerged"


async def test_an_agent_neither_sees_nor_answers_its_own_or_foreign_requests(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    parent = await begin(near_lead, agents=5)
    (stranger,) = await near_lead.spawn(WAITS)
    await near_lead.until(stranger, state="running")
    await in_process_reconciler.store.agents.add_token(1, digest_of("its token"))
    async with (
        program_of(in_process_reconciler, parent) as program,
        program_of(in_process_reconciler, stranger) as other,
        lead_of(in_process_reconciler, repository, kind="cli", token="its token") as shell,
        anyio.create_task_group() as tasks,
    ):
        for number, asker in enumerate((program, other), 1):
            tasks.start_soon(partial(asker.call, "ask_lead", question="Whose?"))
            await near_lead.until(f"a{number}", state="waiting")
        assert (await program.call("list_requests"))["requests"] == []
        assert "requests" not in await program.call("list_agents")
        for request in ("r1", "r2"):
            for its in (program, shell):
                refused = await its.refusal("answer_request", request_id=request, answer="Mine.")
                assert f"No request {request!r}" in refused
            await near_lead.call("answer_request", request_id=request, answer="Yours.")


async def test_nested_agents_ask_their_parent_and_not_a_person_at_its_program(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    put: list[str] = []

    async def accept(_: object, params: ElicitRequestParams) -> ElicitResult:
        put.append(params.message)
        return ElicitResult(action="accept", content={"answer": "The person's."})

    await begin(near_lead, agents=5)
    await in_process_reconciler.store.agents.add_token(1, digest_of("its token"))
    async with lead_of(
        in_process_reconciler, repository, token="its token", elicitation_callback=accept, mode="legacy"
    ) as program:
        (child,) = await program.spawn(WAITS)
        await near_lead.until(child, state="running")
        async with program_of(in_process_reconciler, child) as below, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(below.call, "ask_lead", question="Whose?"))
            await near_lead.until(child, state="waiting")
            (request,) = (await program.call("wait_agents", ids=[child]))["requests"]
            await program.call("answer_request", request_id=request["request_id"], answer="Mine.")
    assert put == []


async def test_an_agents_command_line_has_the_rights_of_its_tools(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    parent = await begin(near_lead, agents=5)
    (stranger,) = await near_lead.run("true")
    async with program_of(in_process_reconciler, parent, kind="cli") as shell:
        (child,) = await shell.run("echo theirs > theirs.txt")
        assert (await shell.call("merge_worktree", ids=[child]))["merged"]
        seen = {agent["id"] for agent in (await shell.call("list_agents"))["agents"]}
        assert seen == {parent, child}
        for tool in ("stop_agents", "remove_worktrees", "merge_worktree"):
            for other in (stranger, parent):
                assert "is not one of your agents" in await shell.refusal(tool, ids=[other])
        for tool, given in (("budget", {}), ("attach", {"id": child}), ("undo_merge", {}), ("get_status", {})):
            assert "is only for the lead" in await shell.refusal(tool, **given)
    assert (
        git(repository, "show", f"{(await in_process_reconciler.store.agents.get(1)).worktree.branch}:theirs.txt")
        == "theirs"
    )


async def test_an_agents_command_line_hides_conflicting_agents_and_other_candidates(
    in_process_reconciler: Reconciler, near_lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec: dict[str, Any] = {"task": WAITS, "name": "try", "candidates": 2}
    await near_lead.call("spawn_agents", agents=[spec])
    for number in (1, 2):
        await near_lead.until(f"a{number}", state="running")
        (Path((await in_process_reconciler.store.agents.get(number)).worktree.path) / "go").touch()
    first = await in_process_reconciler.store.agents.get(1)
    await near_lead.results("a1", "a2")
    monkeypatch.setattr(
        in_process_reconciler.conflict_preview, "pairs", {first.project: [ConflictingPair("a1", "a2", ("secret.txt",))]}
    )
    async with program_of(in_process_reconciler, "a1", kind="cli") as shell:
        assert [candidate["id"] for candidate in (await shell.call("get_result", id="a1"))["candidates"]] == ["a1"]
        assert "conflicts" not in await shell.listed("a1")
    assert (await near_lead.listed("a1"))["conflicts"] == ["a2: secret.txt"]


async def test_processes_left_by_an_earlier_attempt_are_refused(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    (agent,) = await near_lead.run("true")
    await near_lead.call("message_agent", id=agent, text=WAITS)
    await near_lead.until(agent, state="running")
    async with (
        program_of(in_process_reconciler, agent, attempt="a1-1") as left,
        program_of(in_process_reconciler, agent, kind="cli", attempt="a1-2") as now,
    ):
        refused = await left.refusal("report_progress", text="still there")
        assert refused == "The attempt a1-1 that this process belongs to has ended. Nothing was changed."
        assert await now.call("report_progress", text="here") == "Noted."
    (Path((await in_process_reconciler.store.agents.get(1)).worktree.path) / "go").touch()
    await near_lead.results(agent)


async def test_stopping_an_agent_stops_its_nested_agents(in_process_reconciler: Reconciler, near_lead: Lead) -> None:
    parent = await begin(near_lead, agents=5, depth=2)
    async with program_of(in_process_reconciler, parent) as program:
        (child,) = await program.spawn(WAITS, nesting={"agents": 1})
        await near_lead.until(child, state="running")
        async with program_of(in_process_reconciler, child) as below:
            (grandchild,) = await below.spawn(WAITS)
        await near_lead.call("stop_agents", ids=[parent])
        assert "has ended (stopped)" in await program.refusal("spawn_agent", task="true")
    states = [(await near_lead.listed(id_))["state"] for id_ in (parent, child, grandchild)]
    assert states == ["stopped"] * 3


async def test_nested_agents_that_outlive_their_parent_are_stopped_and_named(
    in_process_reconciler: Reconciler, near_lead: Lead
) -> None:
    parent = await begin(near_lead, agents=5)
    async with program_of(in_process_reconciler, parent) as program:
        (child,) = await program.spawn(f"echo half > half.txt; {WAITS}")
        await near_lead.until(child, state="running")
        worktree = Path((await in_process_reconciler.store.agents.get(1)).worktree.path)
        await until((Path((await in_process_reconciler.store.agents.get(2)).worktree.path) / "half.txt").exists)
        (worktree / "go").touch()
    (result, stopped) = await near_lead.results(parent, child)
    assert any("and were stopped" in warning and child in warning for warning in result["warnings"])
    assert (stopped["state"], stopped["files_changed"]) == ("stopped", 1)
