"""Verify runs of a merge: they end at their time limit, and are repeated if they were lost."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import processes_of
from forkjoin.core.merge_job import MergeJobState
from forkjoin.core.paths import Home
from forkjoin.core.settings import RepositorySettings
from forkjoin.git.worktrees.scratch_worktree import make_scratch
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.reconciler import Reconciler
from support.branches import commit
from support.harness import GIVE_UP_S, Lead, git, until
from support.merges import ENVIRONMENT, carry_to_its_end, list_scratch_worktrees, open_daemon, record_merge_job


@pytest.fixture
async def reconciler(home: Home) -> AsyncIterator[Reconciler]:
    async with open_daemon(home) as found:
        yield found


async def test_a_verify_that_hangs_is_ended_with_its_process_tree(repository: Path, home: Home) -> None:
    home.config_file.write_text(
        home.config_file.read_text().replace("[limits]\n", "[limits]\nverify_minutes = 0.005\n")
    )
    stays = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &) ; while :; do sleep 1; done"
    hangs = f"test -e one || exit 0; {stays}"
    number = await record_merge_job(home, repository, {"one": "x\n"}, hangs)
    async with open_daemon(home) as reconciler:
        report = await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)
    assert report.rejected[0].why.startswith("verify: ended ")
    assert processes_of(home.attempts) == {}
    assert list_scratch_worktrees(repository, home) == ["target-1"]


@pytest.mark.parametrize("times", [1, 9])
async def test_a_lost_verify_is_repeated_a_few_times(
    repository: Path, home: Home, reconciler: Reconciler, times: int
) -> None:
    log = home.state / "log"
    kills = f"echo run >> {log}; [ $(wc -l < {log}) -gt {times} ] || {{ kill -9 $PPID; sleep 1000; }}"
    kills = f"test ! -e one || {{ {kills}; }}"
    number = await record_merge_job_in(reconciler, repository, kills)
    report = await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)
    if times == 1:
        assert [merged.id for merged in report.merged] == ["a1"]
    else:
        assert report.rejected[0].why.startswith("verify: lost, without an end record")
    assert processes_of(home.attempts) == {}
    assert list_scratch_worktrees(repository, home) == ["target-1"]


async def record_merge_job_in(reconciler: Reconciler, repository: Path, verify: str | None) -> int:
    return await record_merge_job(reconciler.services.home, repository, {"one": "x\n"}, verify)


async def test_the_verify_run_of_a_dead_daemon_is_ended_if_the_target_has_moved_since(
    repository: Path, home: Home, reconciler: Reconciler
) -> None:
    number = await record_merge_job_in(reconciler, repository, "test ! -e disturbed")
    found = await reconciler.store.scratch_worktrees.take(
        await reconciler.store.merges.get(number), RepositorySettings()
    )
    scratch, other = home.worktrees / f"target-{found.number}", git(repository, "rev-parse", "main")
    run = f"t{found.number}-{number}-{other[:16]}"
    await make_scratch(str(repository / ".git"), scratch, other, keep=False)
    await reconciler.store.scratch_worktrees.set_ready(found.number, run, other)
    disturbs = f"touch {home.state}/on; while :; do touch disturbed; done"
    await reconciler.services.executor.submit(
        AttemptSpec(f"{run}-verify", ("sh", "-c", disturbs), str(scratch), ENVIRONMENT)
    )
    await until((home.state / "on").exists)
    commit(repository, {"person": "x\n"})
    with anyio.fail_after(GIVE_UP_S):
        report = await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)
    assert [merged.id for merged in report.merged] == ["a1"]
    assert processes_of(home.attempts) == {}
    assert list_scratch_worktrees(repository, home) == ["target-1"]


async def test_an_interrupted_move_is_settled_though_the_environment_for_verify_is_missing(
    repository: Path, home: Home, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await record_merge_job_in(reconciler, repository, "true")
    runner = MergeRunner(reconciler.services)
    old = git(repository, "rev-parse", "main")
    record = reconciler.store.merges.set_state

    async def record_and_die(*arguments: Any, **named: Any) -> None:
        await record(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reconciler.store.merges, "set_state", record_and_die)
        with pytest.raises(KeyboardInterrupt):
            await runner.run(await reconciler.store.merges.get(number), ENVIRONMENT)
    git(repository, "read-tree", "-m", "-u", old, "forkjoin/of-an-agent")
    person = git(repository, "commit-tree", "-p", old, "-m", "person", f"{old}^{{tree}}")
    git(repository, "update-ref", "refs/heads/main", person)
    await runner.run(await reconciler.store.merges.get(number), None)
    assert (await reconciler.store.merges.get(number)).state is MergeJobState.QUEUED
    assert git(repository, "status", "--porcelain") == ""
    assert [merged.id for merged in (await carry_to_its_end(runner, reconciler.store, number)).merged] == ["a1"]


async def test_a_change_of_shared_configuration_by_verify_is_reported_with_the_merge(
    quick_lead: Lead, repository: Path, home: Home
) -> None:
    (first,) = await quick_lead.run("echo 'git config user.name Claude' > verify.sh")
    report = await quick_lead.call("merge_worktree", ids=[first], verify="sh verify.sh")
    assert [one["id"] for one in report["merged"]] == [first]
    assert "changed while this merge was verified: config: user.name = Claude" in report["note"]
    assert [file.name for file in home.shared_config.rglob("*.json")] == ["accepted.json"]
