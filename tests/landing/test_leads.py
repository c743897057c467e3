"""Leads that merge at once, cancel, stop and remove, through real relays (fault 22)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from branches import contents, everything
from conftest import CONFIG
from forkjoin.paths import Home
from harness import GIVE_UP_S, INITIALIZE, INITIALIZED, Lead, RawRelay, forkjoin, git, open_lead, tool_call, until


@asynccontextmanager
async def second_home(folder: Path) -> AsyncGenerator[dict[str, str]]:
    """What leads to another forkjoin of the same user, until its daemon is stopped."""
    folder.mkdir(mode=0o700)
    (folder / "config.toml").write_text(CONFIG)
    variables = {"FORKJOIN_HOME": str(folder)}
    try:
        yield variables
    finally:
        forkjoin(folder, "daemon", "stop", "--agents", env=variables, check=False)


async def test_two_homes_merge_into_one_target_at_once_and_nothing_is_lost(
    repository: Path, home: Home, tmp_path: Path
) -> None:
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


async def test_a_landing_goes_on_though_its_call_is_cancelled_and_its_agents_are_told_to_stop_or_go(
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
        while removed["id"] == 3:  # a reply to what was cancelled may have been on its way
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
