"""Candidates: several agents on one task. A judge scores them, and their name means the best one."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from forkjoin.agents.apply_retention import apply_retention
from forkjoin.agents.candidates import MAX_AGENTS_PER_CALL
from forkjoin.core.paths import Home
from support.dependent_agents import fork, outcomes
from support.harness import GIVE_UP_S, Lead, forkjoin, git, lead_of, open_lead_in_memory, open_reconciler_in_memory
from support.merges import ids_of
from support.records import damage

#: The candidate's number, 1 to n.
NUMBER = "n=${FORKJOIN_NAME##*-}"


async def contest(lead: Lead, task: str, judge: str | None = None, **spec: Any) -> None:
    """Run candidates for this task, `fix-1` and so on, until they have ended."""
    said = {"candidates": 3, **({"judge": judge} if judge else {}), **spec}
    await lead.call("spawn_agent", task=f"{NUMBER}; {task}", name="fix", **said)
    assert not (await lead.call("wait_agents", ids=["fix"], timeout_s=GIVE_UP_S))["timed_out"]


async def won(lead: Lead) -> list[str]:
    """Return the candidates, the best first, with a star at the winner."""
    rows = (await lead.call("get_result", id="fix"))["candidates"]
    return [f"{row['id']}{'*' if row.get('won') else ''}" for row in rows]


async def test_the_candidate_with_the_highest_score_that_passes_verify_wins(near: Lead) -> None:
    await contest(near, "echo $n > n", "echo noise >&2; cat n n", verify="! grep 3 n", paths=["n"])
    assert await won(near) == ["a2*", "a1", "a3"]
    result = await near.call("get_result", id="fix")
    assert (result["id"], result["name"], result["score"]) == ("a2", "fix-2", 2)
    first = result["candidates"][0]
    assert (first.pop("verify"), first.pop("lines"), first.pop("won")) == ("passed", 1, True)
    assert first.keys() == {"id", "state", "score", "duration_s"}, "fields that are equal for all are left out"


async def test_a_candidate_without_a_score_comes_last_and_its_result_says_why(near: Lead) -> None:
    await contest(near, "echo $n > n", "grep -c 3 n; test $(cat n) != 2 || { echo torn >&2; echo nan; exit 4; }")
    assert await won(near) == ["a3*", "a1", "a2"], "grep exits 1 where it counts 0"
    (warning,) = [warning for warning in (await near.call("get_result", id="a2"))["warnings"] if "judge" in warning]
    assert warning == "Its judge printed no number as its last line (exit 4): torn"


async def test_without_a_judge_the_smallest_diff_wins_then_the_first(near: Lead) -> None:
    await contest(near, "seq $(( n % 2 + 1 )) > n", candidates=[{}, {"agent": "sh"}, {"model": "m"}])
    assert await won(near) == ["a2*", "a1", "a3"]
    rows = (await near.call("get_result", id="fix-3"))["candidates"]
    assert [row.get("model") for row in rows] == [None, None, "m"]
    assert all("agent" not in row and "score" not in row for row in rows)


async def test_a_long_recorded_model_name_is_cut_in_a_result(near: Lead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forkjoin.agents.spawn._MODEL_LENGTH", 100_000)
    await contest(near, "echo $n > n", candidates=[{"model": "m" * 100_000}, {"model": "n"}])
    with anyio.fail_after(GIVE_UP_S):
        result = await near.call("get_result", id="fix", detail="full")
    assert [row["model"] for row in result["candidates"]] == ["m" * 100, "n"]


async def test_the_name_of_candidates_means_all_of_them_until_all_have_ended(near: Lead, home: Home) -> None:
    task = f"{NUMBER}; test $n = 1 || until test -e {home.state}/go; do sleep 0.02; done"
    await near.call("spawn_agent", task=task, name="fix", candidates=2)
    await near.until("a1", state="succeeded")
    for tool, more in (("get_result", {}), ("read_diff", {}), ("set_budget", {"budget_usd": 1.0})):
        refused = await near.refusal(tool, id="fix", **more)
        assert refused.startswith(
            "The best candidate of fix is not known until a2 (fix-2) have ended. Call wait_agents"
        )
    assert "is not known until" in await near.refusal("merge_worktree", ids=["fix"])
    assert [row.get("won") for row in (await near.call("get_result", id="a1"))["candidates"]] == [None, None]
    assert [agent["id"] for agent in (await near.call("list_agents", ids=["fix"]))["agents"]] == ["a1", "a2"]
    stopped = await near.call("stop_agents", ids=["fix"])
    assert [agent["state"] for agent in stopped["agents"]] == ["succeeded", "stopped"]


async def test_a_candidates_name_that_is_taken_is_refused_and_a_derived_name_is_changed(near: Lead) -> None:
    await near.call("spawn_agent", task="sleep 1000", name="fix-2")
    refused = await near.refusal("spawn_agent", task="true", name="fix", candidates=2)
    assert "The name 'fix-2' is taken by a1" in refused
    both = [{"task": "true", "name": "x", "candidates": 2}, {"task": "true", "name": "x-1"}]
    assert "'x-1' is used twice" in await near.refusal("spawn_agents", agents=both)
    answer = await near.call("spawn_agents", agents=[{"task": "Fix", "candidates": 2}, {"task": "Fix"}], dry_run=True)
    assert answer["waves"] == [["fix-3-1", "fix-3-2", "fix"]]
    await near.call("spawn_agent", task="sleep 1000", name="group", candidates=2)
    assert "The name 'group' is taken by a2" in await near.refusal("spawn_agent", task="true", name="group")
    await near.call("stop_agents", ids=["fix-2", "group"])


async def test_invalid_candidates_are_refused_with_a_reason(near: Lead) -> None:
    assert "judge chooses among candidates" in await near.refusal("spawn_agent", task="true", judge="echo 1")
    wrong: list[object] = [1, 11, 10**12, [{}], [{"tool": "x"}, {}], "many"]
    for candidates in wrong:
        assert "candidates" in await near.refusal("spawn_agent", task="true", candidates=candidates)
    differing = [{"agent": "sh"}, {"agent": "none"}]
    assert "No agent program 'none'" in await near.refusal("spawn_agent", task="true", candidates=differing)
    for said in ({"model": "m" * 201}, {"candidates": [{"model": "m" * 201}, {}]}):
        assert "so it isn't a model's name" in await near.refusal("spawn_agent", task="true", **said)
    agents = [{"task": "true", "candidates": 10}] * (MAX_AGENTS_PER_CALL // 10 + 1)
    assert f"at most {MAX_AGENTS_PER_CALL}" in await near.refusal("spawn_agents", agents=agents)
    assert (await near.call("list_agents"))["agents"] == []


async def test_a_dry_run_lists_candidates_in_waves_without_overlaps_among_them(near: Lead) -> None:
    agents = [{"name": "fix", "task": "x", "paths": ["a"], "candidates": 2}, {"name": "y", "task": "x", "base": "fix"}]
    answer = await near.call("spawn_agents", agents=agents, dry_run=True)
    assert answer["waves"] == [["fix-1", "fix-2"], ["y"]]
    assert "overlaps" not in answer


@pytest.mark.parametrize("how", ["after", "base"])
@pytest.mark.parametrize("is_older", [False, True])
async def test_a_dependent_agent_waits_for_all_candidates_and_starts_from_the_best(
    near: Lead, how: str, is_older: bool
) -> None:
    fix = {"name": "fix", "task": f"{NUMBER}; echo $n > n; test $n != 3", "candidates": 3, "judge": "cat n"}
    following = {"name": "next", "task": "cat n; git rev-list --count HEAD", how: ["fix"] if how == "after" else "fix"}
    ids = await fork(near, fix) if is_older else []
    ids += await fork(near, *([] if is_older else [fix]), following)
    ended = await outcomes(near, ids)
    assert ended["fix-3"].startswith("failed: exit 1"), "one success is enough"
    assert ended["next"] == "succeeded: 2"
    assert (await near.call("get_result", id="next"))["output"] == "2\n2\n"


async def test_a_candidates_own_name_means_this_candidate_alone(near: Lead) -> None:
    await contest(near, "echo $n > n; test $n != 3", "cat n")
    ids = await fork(
        near, {"name": "x", "task": "cat n", "base": "fix-1"}, {"name": "y", "task": "cat n", "after": ["a1"]}
    )
    assert await outcomes(near, ids) == {"x": "succeeded: 1", "y": "succeeded: 1"}
    assert "agents that depend on it are skipped" in await near.refusal("spawn_agent", task="true", after=["fix-3"])


async def test_depending_on_all_candidates_and_on_a_single_candidate_includes_both(near: Lead) -> None:
    await contest(near, "echo > f$n; test $n != 3", "ls f? | grep -c 2")
    ids = await fork(near, {"name": "both", "task": "ls -x f?", "after": ["fix", "fix-1"]})
    ids += await fork(near, {"name": "twice", "task": "ls -x f?", "after": ["fix", "fix-2"]})
    assert await outcomes(near, ids) == {"both": "succeeded: f1 f2", "twice": "succeeded: f2"}
    assert "a3 (fix-3) failed: agents that depend on it" in await near.refusal(
        "spawn_agent", task="true", after=["fix", "fix-3"]
    )


async def test_discarded_work_is_a_base_only_by_its_kept_ref(near: Lead, repository: Path) -> None:
    await contest(near, "echo $n > n", "cat n")
    await near.call("remove_worktrees", ids=["fix-3"], discard_unmerged=True)
    assert await won(near) == ["a2*", "a1", "a3"]
    ids = await fork(near, {"name": "next", "task": "cat n", "after": ["fix"]})
    assert await outcomes(near, ids) == {"next": "succeeded: 2"}
    ref = "refs/forkjoin/kept/a3-fix-3"
    for how in ({"after": ["a3"]}, {"base": "fix-3"}):
        refused = await near.refusal("spawn_agent", task="true", **how)
        assert refused.startswith(f"a3 (fix-3) was removed, and its unmerged work with it. Its work is kept as {ref}")
    (kept,) = await fork(near, {"name": "kept", "task": "cat n", "base": ref})
    assert await outcomes(near, [kept]) == {"kept": "succeeded: 3"}
    await near.call("remove_worktrees", ids=["fix"], discard_unmerged=True)
    assert "kept as refs/forkjoin/kept/a1-" in await near.refusal("spawn_agent", task="true", after=["fix"])


async def test_work_that_a_person_merged_by_hand_can_be_depended_on_after_removal(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    git(repository, "merge", "-q", (await near.listed(first))["branch"])
    await near.call("remove_worktrees", ids=[first])
    ids = await fork(near, {"name": "next", "task": "cat x.txt", "after": [first]})
    assert await outcomes(near, ids) == {"next": "succeeded: x"}


async def test_dependents_are_skipped_if_no_candidate_succeeded(near: Lead) -> None:
    fix = {"name": "fix", "task": f"{NUMBER}; seq $(( 3 - n )) > n; exit 1", "candidates": 2}
    runs = {"name": "runs", "task": "cat n", "base": "fix", "on_failed_dependency": "run"}
    ended = await outcomes(near, await fork(near, fix, {"name": "next", "task": "true", "after": ["fix"]}, runs))
    assert ended["next"] == "failed: skipped: a1 failed, a2 failed"
    assert ended["runs"] == "succeeded: 1"
    assert await won(near) == ["a2", "a1"]
    assert "+1" in await near.call("read_diff", id="fix")
    assert "did not succeed" in (await near.call("merge_worktree", ids=["fix"]))["skipped"][0]["why"]
    assert "a1 (fix-1) failed, a2 (fix-2) failed: agents that depend on it" in await near.refusal(
        "spawn_agent", task="x", after=["fix"]
    )


async def test_merging_candidates_by_their_common_name_merges_the_best_only(near: Lead, repository: Path) -> None:
    await contest(near, "echo > f$n", "ls | grep -c 'f[23]'")
    answer = await near.call("merge_worktree", ids=["fix-3", "fix-1", "fix-2"])
    assert ids_of(answer, "merged") == ["a2"]
    why = "it lost to a2 (fix-2); to merge it all the same, name it without the other candidates"
    assert answer["skipped"] == [{"id": "a3", "why": why}, {"id": "a1", "why": why}]
    assert ids_of(await near.call("merge_worktree", ids=["fix-3"]), "merged") == ["a3"]
    assert "Unmerged work: a1 (fix-1)" in await near.refusal("remove_worktrees", ids=["fix"])
    gone = await near.call("remove_worktrees", ids=["fix"], discard_unmerged=True)
    assert [agent["id"] for agent in gone["removed"]] == ["a1", "a2", "a3"]
    assert (
        git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/") == "refs/forkjoin/kept/a1-fix-1"
    )


async def test_after_a_restart_a_judge_is_not_run_again_and_its_files_are_not_work(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = home.state / "judged"

    async def fall(*_: object) -> None:
        raise OSError(28, "No space left on device")  # a transient error, so the step is retried

    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        with monkeypatch.context() as fault:
            fault.setattr("forkjoin.agents.finish._make_result", fall)
            judge = f"touch litter; echo run >> {log}; echo 7"
            await lead.call("spawn_agent", task="echo > work", name="fix", candidates=2, judge=judge)
            await lead.until("a1", state="finishing")
            while not log.exists() or len(log.read_text().split()) < 2:
                await lead.listed("a1")
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.call("wait_agents", ids=["fix"], timeout_s=GIVE_UP_S)
        rows = (await lead.call("get_result", id="fix"))["candidates"]
        assert [(row["score"], row["lines"]) for row in rows] == [(7, 1), (7, 1)]
        assert (await lead.call("get_result", id="fix"))["files_changed"] == 1
    assert log.read_text().split() == ["run", "run"]


async def test_stopping_a_candidate_ends_its_judge(near: Lead, home: Home) -> None:
    judge = f"touch {home.state}/judging; sleep 1000"
    await near.call("spawn_agent", task="echo > x", name="fix", candidates=2, judge=judge)
    while not (home.state / "judging").exists():
        await near.listed("a1")
    stopped = await near.call("stop_agents", ids=["fix"])
    assert {agent["state"] for agent in stopped["agents"]} == {"stopped"}


async def test_candidates_for_one_task_do_not_conflict_with_each_other(near: Lead) -> None:
    await contest(near, "echo $n > n")
    await near.run("echo 4 > n")
    conflicts = (await near.call("check_conflicts"))["conflicts"]
    assert sorted(conflict["between"] for conflict in conflicts) == [["a4", "a1"], ["a4", "a2"], ["a4", "a3"]]
    assert len((await near.call("check_conflicts", ids=["fix", "a4"]))["conflicts"]) == 1


async def test_retention_keeps_the_winner_known_until_all_candidates_are_removed_together(
    repository: Path, home: Home
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await contest(lead, "echo $n > n; test $n != 1", "cat n")
        await lead.call("merge_worktree", ids=["fix"])
        for n in range(40):
            await apply_retention(reconciler.services, date(2030, 1, 1) + timedelta(days=n), [])
        assert await won(lead) == ["a3*", "a2", "a1"]
        await lead.call("remove_worktrees", ids=["fix-1", "fix-2"], discard_unmerged=True)
        for n in range(30):
            await apply_retention(reconciler.services, date(2030, 3, 1) + timedelta(days=n), [])
            assert await won(lead) == ["a3*", "a2", "a1"]
        await apply_retention(reconciler.services, date(2030, 4, 1), [])
        assert (await lead.call("list_agents", all=True))["agents"] == [], "they go together"


async def test_restored_agents_are_still_candidates_and_dependents(repository: Path, home: Home) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        await contest(lead, "echo $n > n", "cat n", candidates=2)
        await outcomes(lead, await fork(lead, {"name": "next", "task": "echo > next", "base": "fix"}))
    damage(home.records, "random")
    async with open_lead_in_memory(home, repository) as lead:
        await lead.call("wait_agents", ids=["fix", "next"], timeout_s=GIVE_UP_S)
        assert await won(lead) == ["a2*", "a1"]
        skipped = (await lead.call("merge_worktree", ids=["next"]))["skipped"]
        assert "it has the work of a2 (fix-2), which is not in main" in skipped[0]["why"]


def test_the_command_line_spawns_judges_and_compares_candidates(repository: Path, home: Home) -> None:
    said = ("--name", "fix", "--candidates", "2", "--judge", "cat n")
    spawned = forkjoin(repository, "spawn", f"{NUMBER}; echo $n > n", *said).stdout
    assert [line.split()[1] for line in spawned.splitlines()] == ["fix-1", "fix-2"]
    assert len(forkjoin(repository, "wait", "fix").stdout.splitlines()) == 2
    lines = forkjoin(repository, "result", "fix").stdout.splitlines()
    table = [line.split() for line in lines[lines.index(next(line for line in lines if "score" in line)) :]]
    assert table[0] == ["id", "state", "score", "lines", "time", "won"]
    assert [row[:4] for row in table if row and row[0].startswith("a")] == [
        ["a2", "succeeded", "2", "1"],
        ["a1", "succeeded", "1", "1"],
    ]
