"""Removal of scratch worktrees: torn down once with their own recipe, and never while a merge job uses them."""

import time
from collections.abc import AsyncIterator
from datetime import date
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from anyio.abc import TaskGroup
from conftest import processes_of
from forkjoin.agents.apply_retention import apply_retention
from forkjoin.core.paths import Home
from forkjoin.core.session import Call
from forkjoin.core.settings import RepositorySettings
from forkjoin.git.worktrees import worktree
from forkjoin.git.worktrees.scratch_worktree import make_scratch
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.merge_queue.scratch_cleanup import remove_unused_scratches
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.reconciler import Reconciler
from forkjoin.store.port_blocks import first_port
from forkjoin.store.rows import NewMergeJob
from forkjoin.store.scratch_worktrees import ScratchWorktree
from support.harness import Lead, git, lead_of, open_reconciler_in_memory, until
from support.merges import (
    ENVIRONMENT,
    carry_to_its_end,
    list_scratch_worktrees,
    open_daemon,
    record_merge_job,
    retire_and_remove_scratches,
)
from support.repository_configs import want


@pytest.fixture
async def reconciler(home: Home) -> AsyncIterator[Reconciler]:
    async with open_daemon(home) as found:
        yield found


def _record_teardown(home: Home, then: str = "") -> str:
    """Return a teardown command that records its folder and its variables."""
    return f'echo "$PWD $FORKJOIN_SLUG $FORKJOIN_PORT_BASE $FORKJOIN_TARGET $MINE" >> {home.state}/torn; {then}'


def read_teardowns(home: Home) -> list[str]:
    file = home.state / "torn"
    return file.read_text().splitlines() if file.exists() else []


def open_session(reconciler: Reconciler, **environment: str) -> None:
    """Let a session with this environment be open in the project."""
    reconciler.services.environments.set_current(
        1, "another", reconciler.services.environments.add(ENVIRONMENT | environment)
    )


async def run_merge_job(
    reconciler: Reconciler, repository: Path, recipe: RepositorySettings, target: str = "main"
) -> int:
    """Record and run a merge job with this recipe. Return its number."""
    if not (await reconciler.store.restored_agents.known_numbers())[1]:
        await record_merge_job(reconciler.services.home, repository, {"one": "x\n"}, None)
        await reconciler.store.merges.finish(
            await reconciler.store.merges.get(1), {}, (), lambda _: '{"target": "main", "commit": null}'
        )
    new = NewMergeJob(1, "lead", (1,), f"refs/heads/{target}", "true", False, "", str(repository), recipe)
    number = (await reconciler.store.merges.add(new, Call("", ""))).number
    assert (await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)).error is None
    return number


async def test_the_teardown_runs_once_and_delays_no_merge(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path, home: Home
) -> None:
    want(repository, home, f"teardown = '{_record_teardown(home, 'exit 1')}'\n")
    ids = await quick_lead.run("touch one", "touch two")
    for one in ids:
        await quick_lead.call("merge_worktree", ids=[one], verify="true")
    await remove_unused_scratches(in_process_reconciler.services)
    assert (read_teardowns(home), list_scratch_worktrees(repository, home)) == ([], ["target-1"])
    for _ in range(2):
        await retire_and_remove_scratches(in_process_reconciler)
    (line,) = read_teardowns(home)
    name = in_process_reconciler.services.home_name
    assert line == f"{home.worktrees}/target-1 fj-{name}-t1 {first_port(home.state) + 20} main "
    assert (list_scratch_worktrees(repository, home), await in_process_reconciler.store.scratch_worktrees.all()) == (
        [],
        [],
    )


async def test_a_target_keeps_its_last_two_worktrees_and_tears_down_each_with_its_own_recipe(
    repository: Path, home: Home, reconciler: Reconciler
) -> None:
    open_session(reconciler, MINE="another's")
    first, second, third = (
        RepositorySettings(teardown=_record_teardown(home)),
        RepositorySettings(teardown="exit 1"),
        RepositorySettings(teardown="exit 2"),
    )
    for recipe in (first, second, first, second, third):
        await run_merge_job(reconciler, repository, recipe)
        git(repository, "reset", "-q", "--hard", "main~1")
    found = [(one.number, one.retired) for one in await reconciler.store.scratch_worktrees.all()]
    assert found == [(1, True), (2, False), (3, False)]
    assert read_teardowns(home) == [], "a merge ran the teardown"
    await remove_unused_scratches(reconciler.services)
    name = reconciler.services.home_name
    assert read_teardowns(home) == [
        f"{home.worktrees}/target-1 fj-{name}-t1 {first_port(home.state) + 10} main another's"
    ]
    assert list_scratch_worktrees(repository, home) == ["target-2", "target-3"]


async def test_a_scratch_worktree_is_removed_if_its_target_is_deleted(
    repository: Path, home: Home, reconciler: Reconciler
) -> None:
    git(repository, "branch", "side")
    for target in ("main", "side"):
        await run_merge_job(reconciler, repository, RepositorySettings(), target)
    git(repository, "branch", "-qD", "side")
    await remove_unused_scratches(reconciler.services)
    assert [one.target for one in await reconciler.store.scratch_worktrees.all()] == ["refs/heads/main"]
    assert list_scratch_worktrees(repository, home) == ["target-1"]


@pytest.mark.parametrize("file", ["HEAD", "config"])
async def test_a_scratch_worktree_stays_if_its_repository_is_unreadable(
    repository: Path, home: Home, reconciler: Reconciler, file: str
) -> None:
    await run_merge_job(reconciler, repository, RepositorySettings())
    content = (repository / ".git" / file).read_text()
    (repository / ".git" / file).write_text("[garbage")
    await remove_unused_scratches(reconciler.services)
    (repository / ".git" / file).write_text(content)
    assert [one.retired for one in await reconciler.store.scratch_worktrees.all()] == [False]


async def test_a_scratch_worktree_is_removed_after_a_day_unless_a_job_may_use_it(
    repository: Path, home: Home, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await run_merge_job(reconciler, repository, RepositorySettings())
    await remove_unused_scratches(reconciler.services)
    assert list_scratch_worktrees(repository, home) == ["target-1"]
    later = SimpleNamespace(time=lambda: time.time() + 24 * 3600 + 1)
    monkeypatch.setattr("forkjoin.merge_queue.scratch_cleanup.time", later)
    again = NewMergeJob(1, "lead", (1,), "refs/heads/main", "true", False, "")
    waits = await reconciler.store.merges.add(again, Call("", ""))
    await remove_unused_scratches(reconciler.services)
    assert list_scratch_worktrees(repository, home) == ["target-1"]
    answer = (await reconciler.store.merges.get(number)).answer or ""
    await reconciler.store.merges.finish(waits, {}, (), lambda _: answer)
    await remove_unused_scratches(reconciler.services)
    assert list_scratch_worktrees(repository, home) == []


async def test_the_teardown_waits_for_a_session_that_lends_its_environment(
    repository: Path, home: Home, reconciler: Reconciler
) -> None:
    await run_merge_job(reconciler, repository, RepositorySettings(teardown=_record_teardown(home)))
    await retire_and_remove_scratches(reconciler)
    assert (read_teardowns(home), list_scratch_worktrees(repository, home)) == ([], ["target-1"])
    open_session(reconciler)
    await retire_and_remove_scratches(reconciler)
    assert (len(read_teardowns(home)), list_scratch_worktrees(repository, home)) == (1, [])


async def test_a_cleanup_runs_soon_after_the_daemons_start(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_daemon(home) as reconciler:
        await run_merge_job(reconciler, repository, RepositorySettings(teardown=_record_teardown(home)))
        await reconciler.store.scratch_worktrees.retire(1)
    monkeypatch.setattr("forkjoin.reconciler._FIRST_CLEANUP_S", 0.5)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.call("get_status")
        await until(lambda: not list(home.worktrees.glob("target-*")))
    assert len(read_teardowns(home)) == 1


@pytest.mark.parametrize("step", ["the teardown", "the worktree", "the record"])
async def test_an_interrupted_removal_is_finished_by_the_next_daemon_with_one_teardown(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    waits = f"until test -e {home.state}/go; do sleep 0.02; done"
    async with open_daemon(home) as reconciler:
        await run_merge_job(reconciler, repository, RepositorySettings(teardown=_record_teardown(home, waits)))
        open_session(reconciler)
        with monkeypatch.context() as patch:
            async with anyio.create_task_group() as tasks:
                if step != "the teardown":
                    (home.state / "go").touch()
                    owner, name = (
                        (worktree, "remove")
                        if step == "the worktree"
                        else (reconciler.store.scratch_worktrees, "delete")
                    )
                    patch.setattr(owner, name, partial(_die, tasks))
                tasks.start_soon(retire_and_remove_scratches, reconciler)
                await until(lambda: read_teardowns(home))
                if step == "the teardown":
                    tasks.cancel_scope.cancel()
    (home.state / "go").touch()
    async with open_daemon(home) as reconciler:
        open_session(reconciler)
        await remove_unused_scratches(reconciler.services)
        assert await reconciler.store.scratch_worktrees.all() == []
    assert len(read_teardowns(home)) == 1
    assert list_scratch_worktrees(repository, home) == []


async def _die(tasks: TaskGroup, *_: object) -> None:
    tasks.cancel_scope.cancel()
    await anyio.sleep_forever()


async def test_a_worktree_that_can_not_be_removed_delays_no_other_removal(
    repository: Path, home: Home, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository, "branch", "side")
    for target in ("main", "side"):
        await run_merge_job(reconciler, repository, RepositorySettings(), target)
    remove = worktree.remove

    async def refuse(common_dir: str, path: Path) -> None:
        if path.name == "target-1":
            raise PermissionError(13, "Permission denied")
        await remove(common_dir, path)

    monkeypatch.setattr(worktree, "remove", refuse)
    await retire_and_remove_scratches(reconciler)
    assert list_scratch_worktrees(repository, home) == ["target-1"]


async def test_only_scratch_worktrees_without_a_record_are_removed(
    repository: Path, home: Home, reconciler: Reconciler
) -> None:
    await run_merge_job(reconciler, repository, RepositorySettings())
    await make_scratch(str(repository / ".git"), home.worktrees / "target-8", "main", keep=False)
    runs = AttemptSpec("t8-3-main-verify", ("sleep", "1000"), str(home.worktrees), ENVIRONMENT)
    await reconciler.services.executor.submit(runs)
    precious = home.worktrees / "target-8-of-a-person" / "precious"
    precious.parent.mkdir()
    precious.touch()
    git(repository, "worktree", "add", "-q", "--detach", str(home.worktrees / "target-9"))
    await remove_unused_scratches(reconciler.services)
    left = sorted(path.name for path in home.worktrees.iterdir())
    assert left == ["target-1", "target-8-of-a-person", "target-9"]
    assert precious.exists()
    assert processes_of(home.attempts) == {}
    assert [folder.name for folder in home.attempts.iterdir()] == []


async def test_runs_of_scratch_worktrees_without_a_record_are_forgotten(
    repository: Path, home: Home, reconciler: Reconciler
) -> None:
    await run_merge_job(reconciler, repository, RepositorySettings())
    for handle in ("t1-9-main-verify", "t2-9-main-verify"):
        (home.attempts / handle).mkdir()
    await apply_retention(reconciler.services, date(2040, 1, 1), [])
    assert [folder.name for folder in home.attempts.iterdir()] == ["t1-9-main-verify"]


async def test_a_merge_that_begins_during_a_cleanup_keeps_its_scratch_worktree(
    repository: Path, home: Home, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_merge_job(reconciler, repository, RepositorySettings())
    await retire_and_remove_scratches(reconciler)
    scratches, path = reconciler.store.scratch_worktrees.all, home.worktrees / "target-1"
    begins = iter((False, True))  # True at the last listing of the cleanup

    async def list_and_begin_a_merge() -> list[ScratchWorktree]:
        found = await scratches()
        if next(begins):
            await reconciler.store.scratch_worktrees.take(await reconciler.store.merges.get(1), RepositorySettings())
            await make_scratch(str(repository / ".git"), path, "main", keep=False)
        return found

    monkeypatch.setattr(reconciler.store.scratch_worktrees, "all", list_and_begin_a_merge)
    await remove_unused_scratches(reconciler.services)
    assert list_scratch_worktrees(repository, home) == ["target-1"]


async def test_the_number_of_a_scratch_worktree_is_not_reused(repository: Path, reconciler: Reconciler) -> None:
    await run_merge_job(reconciler, repository, RepositorySettings())
    await retire_and_remove_scratches(reconciler)
    assert (
        await reconciler.store.scratch_worktrees.take(await reconciler.store.merges.get(1), RepositorySettings())
    ).number == 2


async def test_removing_a_symlink_in_place_of_a_scratch_worktree_keeps_a_persons_worktree(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path, home: Home
) -> None:
    (repository / ".git/info/exclude").write_text(".wt/\n")
    git(repository, "worktree", "add", "-q", "--detach", ".wt/experiment")
    git(repository / ".wt/experiment", "commit", "-q", "--allow-empty", "-m", "on no branch")
    (first,) = await quick_lead.run("touch one")
    link = f'W=$PWD; cd /; rm -rf "$W"; ln -s {repository} "$W"'
    await quick_lead.call("merge_worktree", ids=[first], verify=link)
    git(repository, "switch", "-q", "-c", "other")
    git(repository, "branch", "-qD", "main")
    await retire_and_remove_scratches(in_process_reconciler)
    assert list_scratch_worktrees(repository, home) == []
    assert git(repository / ".wt/experiment", "log", "-1", "--format=%s") == "on no branch"
