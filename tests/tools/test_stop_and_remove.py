"""stop_agents and remove_worktrees."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.process.process_table import identify
from support.harness import GIVE_UP_S, Lead, forkjoin, git, limit, open_lead, open_lead_in_memory, until

FOREVER = "sleep 1000"


async def test_a_stopped_agents_work_is_committed_and_kept(any_lead: Lead, repository: Path) -> None:
    (first,) = await any_lead.spawn(f"echo half > half.txt; echo ready; {FOREVER}")
    await any_lead.until(first, last_event="ready")
    answer = await any_lead.call("stop_agents", ids=[first])
    assert [agent["state"] for agent in answer["agents"]] == ["stopped"]
    result = await any_lead.call("get_result", id=first)
    assert (result["state"], result["files_changed"]) == ("stopped", 1)
    assert "error" not in result
    assert git(repository, "show", f"{result['branch']}:half.txt") == "half"


async def test_a_queued_agent_that_is_stopped_never_starts(repository: Path, home: Home) -> None:
    limit(home, max_running=1)
    async with open_lead(repository) as lead:
        first, second = await lead.spawn(FOREVER, f"touch {home.state}/started")
        answer = await lead.call("stop_agents", ids=[second])
        assert answer["agents"][0]["state"] == "stopped"
        await lead.call("stop_agents", ids=[first])
        assert (await lead.call("get_result", id=second))["summary"] == "Stopped before it started."
        assert (await lead.call("remove_worktrees", ids=[second]))["removed"][0]["id"] == second
    assert not (home.state / "started").exists()
    assert git(repository, "for-each-ref", f"refs/heads/forkjoin/{second}-*") == ""


async def test_stopping_ends_grandchildren_in_sessions_of_their_own(any_lead: Lead, home: Home) -> None:
    pids = home.state / "pids"
    grandchild = f"trap '' HUP INT TERM; echo $$ >> {pids}; {FOREVER}"
    task = f'(setsid sh -c "{grandchild}" &) ; echo $$ >> {pids}; echo up; {FOREVER}'.replace("$$", "\\$\\$", 1)
    (first,) = await any_lead.spawn(task)
    await any_lead.until(first, last_event="up")
    await until(lambda: len(pids.read_text().split()) == 2)
    await any_lead.call("stop_agents", ids=[first])
    assert [pid for pid in pids.read_text().split() if identify(int(pid))] == []


async def test_stopping_again_is_no_error_and_changes_nothing(near_lead: Lead) -> None:
    (first,) = await near_lead.run("true")
    for _ in range(2):
        answer = await near_lead.call("stop_agents", ids=[first])
        assert answer["agents"][0]["state"] == "succeeded"


async def test_an_agent_that_outlives_its_time_is_ended_and_keeps_its_work(near_lead: Lead) -> None:
    (first,) = await near_lead.run(f"echo kept > kept.txt; {FOREVER}", timeout_minutes=0.01)
    result = await near_lead.call("get_result", id=first)
    assert (result["state"], result["files_changed"]) == ("timed_out", 1)
    assert "time limit" in result["error"]


async def test_discarded_work_stays_reachable(near_lead: Lead, repository: Path) -> None:
    (first,) = await near_lead.run("echo work > work.txt")
    answer = await near_lead.call("remove_worktrees", ids=[first], discard_unmerged=True)
    kept = answer["removed"][0]["kept_as"]
    assert git(repository, "show", f"{kept}:work.txt") == "work"
    assert git(repository, "for-each-ref", "refs/heads/forkjoin") == ""
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    again = await near_lead.call("remove_worktrees", ids=[first], discard_unmerged=True)
    assert again == answer


async def test_a_removed_agents_name_is_free_again(near_lead: Lead) -> None:
    for wanted in ("a1", "a2"):
        answer = await near_lead.call("spawn_agent", task="true", name="again")
        assert answer["id"] == wanted
        await near_lead.call("wait_agents", ids=[wanted], timeout_s=GIVE_UP_S)
        await near_lead.call("remove_worktrees", ids=["again"])


async def test_a_removed_agents_result_and_diff_can_still_be_read(near_lead: Lead) -> None:
    (first,) = await near_lead.run("echo work > work.txt; echo said")
    await near_lead.call("remove_worktrees", ids=[first], discard_unmerged=True)
    assert (await near_lead.call("get_result", id=first))["summary"] == "said"
    assert "+work" in await near_lead.call("read_diff", id=first)
    assert "said" in await near_lead.call("read_log", id=first)


def test_a_person_stops_and_removes(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", FOREVER, "--name", "endless")
    assert forkjoin(repository, "stop", "endless").stdout.split() == ["a1", "endless", "stopped"]
    assert "removed" in forkjoin(repository, "rm", "endless").stdout


async def test_removing_an_agent_keeps_what_a_person_did_in_its_worktree_after_its_end(
    near_lead: Lead, repository: Path, home: Home
) -> None:
    (first,) = await near_lead.run("echo work > work.txt")
    await near_lead.call("merge_worktree", ids=[first])
    (worktree,) = home.worktrees.glob(f"*/{first}-*")
    (worktree / "work.txt").write_text("a person's\n")
    kept = (await near_lead.call("remove_worktrees", ids=[first]))["removed"][0]["kept_as"]
    assert git(repository, "show", f"{kept}:work.txt") == "a person's"


async def test_an_agent_that_changed_nothing_is_removed_also_after_a_merge_that_skipped_it(near_lead: Lead) -> None:
    (first,) = await near_lead.run("true")
    landed = await near_lead.call("merge_worktree", ids=[first])
    assert landed["skipped"][0]["why"].startswith("nothing")
    assert (await near_lead.call("remove_worktrees", ids=[first]))["removed"] == [{"id": first, "name": "true"}]


async def test_a_result_with_too_many_agents_has_the_first_ones_and_the_number_of_others(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forkjoin_tools.stop_and_remove._ROWS_BYTES", 100)
    async with open_lead_in_memory(home, repository) as lead:
        ids = await lead.run(*["true"] * 5)
        stopped = await lead.call("stop_agents", ids=ids)
        assert (len(stopped["agents"]), stopped["more"]) == (2, 3)
        removed = await lead.call("remove_worktrees", ids=ids)
        assert (len(removed["removed"]), removed["more"]) == (3, 2)
        assert (await lead.call("list_agents"))["agents"] == []
