"""The conflict preview: conflicts are reported before a merge, also those of running agents."""

from pathlib import Path

import anyio
import pytest
from forkjoin.core.paths import Home
from forkjoin.merge_queue import conflict_preview
from support.branches import commit, everything, put_counting_git
from support.harness import Lead, first_answer, git, lead_of, open_reconciler_in_memory, until


async def test_conflicts_between_agents_and_with_the_target_are_listed_by_file(
    quick_lead: Lead, repository: Path
) -> None:
    ids = await quick_lead.run(
        "echo 1 > shared.txt; echo 1 > new", "echo 2 > shared.txt; echo 2 > new", "echo > three", "true"
    )
    commit(repository, {"three": "a person's\n"})
    before = everything(repository)
    found = await quick_lead.call("check_conflicts", ids=ids)
    assert found == {
        "conflicts": [
            {"between": [ids[0], ids[1]], "files": ["new", "shared.txt"]},
            {"between": [ids[2], "main"], "files": ["three"]},
        ],
        "target": "main",
    }
    assert everything(repository) == before


async def test_uncommitted_work_of_running_agents_is_compared(quick_lead: Lead, repository: Path, home: Home) -> None:
    done = await quick_lead.run("echo 1 > shared.txt")
    running = await quick_lead.spawn(f"echo 2 > shared.txt; touch {home.state}/on; sleep 1000")
    await until((home.state / "on").exists)
    before = git(repository, "for-each-ref")
    found = await quick_lead.call("check_conflicts")
    assert found["conflicts"] == [{"between": [*running, *done], "files": ["shared.txt"]}]
    assert git(repository, "for-each-ref") == before
    await quick_lead.call("stop_agents", ids=running)


async def test_a_second_comparison_merges_only_changed_commits(
    quick_lead: Lead, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await quick_lead.run("echo 1 > one", "echo 2 > one", "echo 3 > three")
    calls = put_counting_git(tmp_path / "bin", monkeypatch)
    first = await quick_lead.call("check_conflicts", ids=ids)
    assert calls.read_text().count("merge-tree") == 1
    assert await quick_lead.call("check_conflicts", ids=ids) == first
    assert calls.read_text().count("merge-tree") == 1
    commit(repository, {"three": "x\n"})
    assert len((await quick_lead.call("check_conflicts", ids=ids))["conflicts"]) == 2
    assert calls.read_text().count("merge-tree") == 2


async def test_unrelated_histories_are_reported_next_to_other_conflicts(quick_lead: Lead, repository: Path) -> None:
    alone = (
        "git checkout -q --orphan alone; echo > alone; git add .; git commit -qm alone; git branch -qf $FORKJOIN_BRANCH"
    )
    ids = await quick_lead.run(f"{alone}; git switch -q $FORKJOIN_BRANCH", "echo 1 > new", "echo 2 > new")
    found = (await quick_lead.call("check_conflicts", ids=ids))["conflicts"]
    assert {"between": [ids[1], ids[2]], "files": ["new"]} in found
    assert {"between": [ids[0], "main"], "files": ["(they have no common history)"]} in found


async def test_the_preview_goes_on_after_an_error(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conflict_preview, "_LEAST_PAUSE_S", 0.01)
    tried: list[int] = []

    async def fail() -> None:
        tried.append(1)
        raise RuntimeError("can't start new thread")

    async with open_reconciler_in_memory(home) as reconciler, anyio.create_task_group() as tasks:
        monkeypatch.setattr(reconciler.conflict_preview, "_compare_all", fail)
        tasks.start_soon(reconciler.conflict_preview.watch)
        await until(lambda: len(tried) > 1)
        tasks.cancel_scope.cancel()


async def test_too_many_agents_to_compare_are_refused(quick_lead: Lead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflict_preview, "MOST_COMPARED", 1)
    ids = await quick_lead.run("echo > one", "echo > two")
    assert "name fewer in `ids`" in await quick_lead.refusal("check_conflicts", ids=ids)


async def test_all_conflicts_are_reported_even_if_they_exceed_the_cache(
    quick_lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conflict_preview, "_CACHED_PAIRS", 1)
    ids = await quick_lead.run(*(f"echo {n} > new" for n in range(3)))
    assert len((await quick_lead.call("check_conflicts", ids=ids))["conflicts"]) == 3


async def test_a_lead_sees_conflicts_of_running_agents(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conflict_preview, "_LEAST_PAUSE_S", 0.05)
    async with (
        open_reconciler_in_memory(home) as reconciler,
        lead_of(reconciler, repository) as lead,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(reconciler.conflict_preview.watch)
        ids = await lead.spawn(*(f"echo {n} > shared.txt; sleep 1000" for n in (1, 2)), priority=1)

        async def listed_conflicts() -> list[str]:
            found: list[str] = (await lead.listed(ids[0])).get("conflicts", [])
            return found

        assert await first_answer(listed_conflicts) == [f"{ids[1]}: shared.txt"]
        assert (await lead.call("get_status"))["conflicts"] == [f"{ids[1]} and {ids[0]}: shared.txt"]
        await lead.call("stop_agents", ids=ids)

        async def is_over() -> bool:
            return not (await lead.call("get_status"))["conflicts"]

        await first_answer(is_over)
        tasks.cancel_scope.cancel()
