"""A landing's verify: ended with all its tree at its limit, run again when it was lost, and nothing left of it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import processes_of
from forkjoin.core.merge_job import MergeJobState
from forkjoin.core.paths import Home
from forkjoin.core.settings import Recipe
from forkjoin.git.worktrees.scratch_worktree import make_scratch
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.process.executor import AttemptSpec
from forkjoin.reconciler import Reconciler
from support.branches import commit
from support.harness import GIVE_UP_S, Lead, git, until
from support.merges import ENVIRONMENT, carry_to_its_end, open_daemon, record_landing, scratch_of


@pytest.fixture
async def reconciler(home: Home) -> AsyncIterator[Reconciler]:
    async with open_daemon(home) as found:
        yield found


async def test_one_that_hangs_is_ended_at_its_limit_with_all_its_tree(repository: Path, home: Home) -> None:
    home.config_file.write_text(
        home.config_file.read_text().replace("[limits]\n", "[limits]\nverify_minutes = 0.005\n")
    )
    stays = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &) ; while :; do sleep 1; done"
    hangs = f"test -e one || exit 0; {stays}"
    number = await record_landing(home, repository, {"one": "x\n"}, hangs)
    async with open_daemon(home) as reconciler:
        landed = await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)
    assert landed.rejected[0].why.startswith("verify: ended ")
    assert processes_of(home.attempts) == {}
    assert scratch_of(repository, home) == ["target-1"]


@pytest.mark.parametrize("times", [1, 9])
async def test_one_that_is_lost_is_run_again_but_not_for_ever(
    repository: Path, home: Home, reconciler: Reconciler, times: int
) -> None:
    log = home.state / "log"
    kills = f"echo run >> {log}; [ $(wc -l < {log}) -gt {times} ] || {{ kill -9 $PPID; sleep 1000; }}"
    kills = f"test ! -e one || {{ {kills}; }}"
    number = await record_landing_in(reconciler, repository, kills)
    landed = await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)
    if times == 1:
        assert [merged.id for merged in landed.merged] == ["a1"]
    else:
        assert landed.rejected[0].why.startswith("verify: lost, without an end record")
    assert processes_of(home.attempts) == {}
    assert scratch_of(repository, home) == ["target-1"]


async def record_landing_in(reconciler: Reconciler, repository: Path, verify: str | None) -> int:
    return await record_landing(reconciler.services.home, repository, {"one": "x\n"}, verify)


async def test_the_run_of_a_daemon_that_died_is_ended_where_the_target_has_moved_since(
    repository: Path, home: Home, reconciler: Reconciler
) -> None:
    number = await record_landing_in(reconciler, repository, "test ! -e disturbed")
    found = await reconciler.store.scratch_worktrees.take(await reconciler.store.merges.get(number), Recipe())
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
        landed = await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)
    assert [merged.id for merged in landed.merged] == ["a1"]
    assert processes_of(home.attempts) == {}
    assert scratch_of(repository, home) == ["target-1"]


async def test_without_the_environment_it_needs_a_move_is_settled_all_the_same(
    repository: Path, home: Home, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await record_landing_in(reconciler, repository, "true")
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


async def test_shared_configuration_that_a_verify_changes_is_told_with_the_merge(
    near_lead: Lead, repository: Path, home: Home
) -> None:
    (first,) = await near_lead.run("echo 'git config user.name Claude' > verify.sh")
    landed = await near_lead.call("merge_worktree", ids=[first], verify="sh verify.sh")
    assert [one["id"] for one in landed["merged"]] == [first]
    assert "changed while this merge was verified: config: user.name = Claude" in landed["note"]
    assert [file.name for file in home.shared_config.rglob("*.json")] == ["accepted.json"]
