"""Leads that merge concurrently, cancel, stop and remove, through real relays (fault 22)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from conftest import CONFIG
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.branches import contents, everything
from support.harness import (
    GIVE_UP_S,
    INITIALIZE,
    INITIALIZED,
    Lead,
    RawRelay,
    forkjoin,
    git,
    lead_of,
    open_lead,
    tool_call,
    until,
)


@asynccontextmanager
async def second_home(folder: Path) -> AsyncGenerator[dict[str, str]]:
    """Make a second home of the same user, and stop its daemon at the end.

    Yields the environment variables that select the home.
    """
    folder.mkdir(mode=0o700)
    (folder / "config.toml").write_text(CONFIG)
    variables = {"FORKJOIN_HOME": str(folder)}
    try:
        yield variables
    finally:
        forkjoin(folder, "daemon", "stop", "--agents", env=variables, check=False)


async def test_two_homes_merge_into_one_target_concurrently(repository: Path, home: Home, tmp_path: Path) -> None:
    async with (
        second_home(tmp_path / "second") as variables,
        open_lead(repository, "one") as one,
        open_lead(repository, "two", **variables) as two,
    ):
        leads = (one, two)
        for number, lead in enumerate(leads):
            await lead.run(*(f"echo {n} > file{number}-{n}" for n in range(4)))
        answers: list[dict[str, Any]] = []

        async def merge(lead: Lead, agent: str) -> None:
            answers.append(await lead.call("merge_worktree", ids=[agent]))

        for again in (False, True):
            async with anyio.create_task_group() as tasks:
                for agent in ("a1", "a2", "a3", "a4"):
                    for lead in leads:
                        tasks.start_soon(merge, lead, agent)
            assert sum(len(answer["merged"]) for answer in answers) == 8, answers
            skipped = [one["why"] for answer in answers for one in answer["skipped"]]
            assert skipped == (["merged before"] * 8 if again else [])
    assert len([name for name in contents(repository) if name.startswith("file")]) == 8
    assert git(repository, "rev-list", "--count", "--first-parent", "main") == "9"
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "fsck", "--no-dangling") == ""
    assert everything(repository)["locks"] == []


#: The actions of a person in the checkout, one during each run of verify.
PERSON = (
    "echo 1 > person && git add person && git commit -qm 1",
    "echo 2 > person && git commit -qa --amend -m 2",
    "git reset -q --hard HEAD~1",
    "echo 3 > person && git add person && git commit -qm 3 && echo mine > README.md",
    "git switch -qc side",
    "echo 4 > side && git add side && git commit -qm 4",
    "git switch -q main",
    "git commit -q --allow-empty -m 5",
    "git branch -m main trunk && git branch -m trunk main",
)


async def test_no_commit_is_lost_and_each_merge_is_verified_while_a_person_works_in_the_checkout(
    repository: Path, in_process_reconciler: Reconciler, tmp_path: Path
) -> None:
    acts, made, verified = tmp_path / "acts", tmp_path / "made", tmp_path / "verified"
    acts.mkdir()
    for number, act in enumerate(PERSON, 1):
        (acts / str(number)).write_text(f"cd {repository} && {act} && git rev-parse HEAD >> {made}")
    verify = f"git rev-parse HEAD >> {verified}; act={acts}/$(wc -l < {verified}); [ ! -e $act ] || sh -e $act"
    answers: list[dict[str, Any]] = []

    async def merge(lead: Lead, agent: str) -> None:
        answers.append(await lead.call("merge_worktree", ids=[agent], into="main", verify=verify))

    async with (
        lead_of(in_process_reconciler, repository, "one") as one,
        lead_of(in_process_reconciler, repository, "two") as two,
    ):
        agents = {
            lead: await lead.run(*(f"echo > {name}{n}" for n in range(3))) for lead, name in ((one, "x"), (two, "y"))
        }
        async with anyio.create_task_group() as tasks:
            for lead, ids in agents.items():
                for agent in ids:
                    tasks.start_soon(merge, lead, agent)
    merged = [one["commit"] for answer in answers for one in answer["merged"]]
    assert len(merged) == 6, answers
    assert set(merged) <= set(verified.read_text().split())
    tips = git(repository, "for-each-ref", "--format=%(objectname)", "refs/heads/forkjoin").split()
    assert len(tips) == 6
    assert {*merged, *tips} <= set(git(repository, "rev-list", "main").split())
    assert len(made.read_text().split()) == len(PERSON)
    assert set(made.read_text().split()) <= set(git(repository, "rev-list", "--all", "--reflog").split())
    assert git(repository, "status", "--porcelain") == " M README.md"
    assert (repository / "README.md").read_text() == "mine\n"
    assert git(repository, "fsck", "--no-dangling") == ""


async def test_a_merge_continues_though_its_call_is_cancelled_and_its_agent_is_stopped(
    repository: Path, home: Home
) -> None:
    on, go = home.state / "on", home.state / "go"
    verify = f"touch {on}; until [ -e {go} ]; do sleep 0.02; done"
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        relay.answer()
        relay.call(1, "spawn_agents", agents=[{"task": "echo > one"}])
        relay.call(2, "wait_agents", ids=["a1"], timeout_s=GIVE_UP_S)
        relay.send(tool_call(3, "merge_worktree", ids=["a1"], verify=verify))
        await until(on.exists)
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}}
        relay.send(cancelled)
        removed = relay.call(4, "remove_worktrees", ids=["a1"], discard_unmerged=True)
        while removed["id"] == 3:  # the cancelled call may have been answered already
            removed = relay.answer()
        assert "Being merged: a1" in removed["result"]["content"][0]["text"]
        stopped = relay.call(5, "stop_agents", ids=["a1"])
        assert stopped["result"]["structuredContent"]["agents"][0]["state"] == "succeeded"
        go.touch()
        again = relay.call(6, "merge_worktree", ids=["a1"])
        assert again["result"]["structuredContent"]["skipped"] == [{"id": "a1", "why": "merged before"}]
        assert relay.call(7, "get_result", id="a1")["result"]["structuredContent"]["merge"] == "merged"
    assert git(repository, "log", "--format=%s", "--first-parent", "main").splitlines() == [
        *("Merge a1 (echo-one)", "first")
    ]
    assert git(repository, "status", "--porcelain") == ""
