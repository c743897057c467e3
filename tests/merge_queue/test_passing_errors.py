"""Errors during a merge: the merge is retried if the error may pass, else the error is reported (faults 6, 17)."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from forkjoin.core.error import GitError, RecordsError
from forkjoin.core.merge_job import MergeJobState
from forkjoin.core.model import Merge
from forkjoin.core.paths import Home
from forkjoin.git import safe_options
from forkjoin.merge_queue import run_merge
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.reconciler import Reconciler
from support.branches import REAL_GIT, everything, put_counting_git, put_git
from support.harness import git, until
from support.merges import carry_to_its_end, open_daemon, record_merge_job


@pytest.fixture
async def number(repository: Path, home: Home) -> int:
    """Return the number of a queued merge job."""
    return await record_merge_job(home, repository, {"shared.txt": "2\n", "one": "1\n", "README.md": None}, None)


@pytest.fixture
async def reconciler(home: Home, number: int) -> AsyncIterator[Reconciler]:
    async with open_daemon(home) as found:
        yield found


FULL = "No space left on device"
LOCKED = "fatal: cannot lock ref 'refs/heads/main': Unable to create '/r/.git/refs/heads/main.lock': File exists."
PASSING = [
    ("merge-tree", f"error: unable to write file: {FULL}"),
    ("fast-import", "fatal: unable to create temporary file: Too many open files"),
    ("for-each-ref", "fatal: Out of memory, malloc failed"),
    ("read-tree -m -u {old}", f"error: unable to write file one: {FULL}"),
    ("update-ref", LOCKED),
]


@pytest.mark.parametrize(("call", "words"), PASSING)
async def test_a_merge_is_retried_after_an_error_that_may_pass(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reconciler: Reconciler,
    number: int,
    call: str,
    words: str,
) -> None:
    runner = MergeRunner(reconciler.services)
    before = everything(repository)
    call = call.format(old=git(repository, "rev-parse", "main"))
    with monkeypatch.context() as patch:
        put_git(tmp_path / "bin", patch, f'case " $* " in *" {call} "*) echo "{words}" >&2; exit 128; esac')
        for _ in range(3):
            with pytest.raises(GitError):
                await carry_to_its_end(runner, reconciler.store, number)
            assert (await reconciler.store.agents.get(1)).merge is Merge.QUEUED
    assert everything(repository) | {"index": None} == before | {"index": None}
    report = await carry_to_its_end(runner, reconciler.store, number)
    assert [merged.id for merged in report.merged] == ["a1"]
    assert git(repository, "status", "--porcelain") == ""
    assert (repository / "one").read_text() == "1\n"


async def test_an_error_that_stays_is_reported_after_the_retries(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reconciler: Reconciler, number: int
) -> None:
    monkeypatch.setattr(run_merge, "_RETRIES", 2)
    runner = MergeRunner(reconciler.services)
    put_git(tmp_path / "bin", monkeypatch, f'case "$*" in *update-ref*) echo "{LOCKED}" >&2; exit 128; esac')
    for _ in range(2):
        with pytest.raises(GitError):
            await carry_to_its_end(runner, reconciler.store, number)
    report = await carry_to_its_end(runner, reconciler.store, number)
    assert report.error
    assert "main.lock': File exists." in report.error
    assert "Nothing was merged into main" in report.error
    assert (await reconciler.store.agents.get(1)).merge is Merge.UNMERGED
    assert git(repository, "status", "--porcelain") == ""


async def test_a_lock_that_stays_is_reported_after_two_retries(
    repository: Path, monkeypatch: pytest.MonkeyPatch, reconciler: Reconciler, number: int
) -> None:
    monkeypatch.setattr(safe_options, "OPTIONS", (*safe_options.OPTIONS, "-c", "core.filesRefLockTimeout=50"))
    lock = repository / ".git" / "refs" / "heads" / "main.lock"
    lock.touch()
    runner = MergeRunner(reconciler.services)
    for _ in range(2):
        with pytest.raises(GitError):
            await carry_to_its_end(runner, reconciler.store, number)
    report = await carry_to_its_end(runner, reconciler.store, number)
    assert report.error
    assert (
        f"Unable to create '{lock}': File exists. Remove the lock file if no git process uses the repository. Nothing"
        in report.error
    )


async def test_a_partly_moved_checkout_is_retried_while_the_disk_is_full(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reconciler: Reconciler, number: int
) -> None:
    monkeypatch.setattr(run_merge, "_RETRIES", 0)
    monkeypatch.setattr(run_merge, "_RETRIES_PARTLY_MOVED", 0)
    runner = MergeRunner(reconciler.services)
    full = f'echo "fatal: {FULL}" >&2; exit 128'
    moves = f'case " $* " in *" -u -n "*) ;; *" read-tree -m -u "*) {REAL_GIT} "$@"; {full};; '
    with monkeypatch.context() as patch:
        put_git(tmp_path / "bin", patch, f'{moves} *" checkout-index "*) {full}; esac')
        for _ in range(3):
            with pytest.raises(Exception, match=FULL):
                await carry_to_its_end(runner, reconciler.store, number)
            assert (await reconciler.store.merges.get(number)).state is MergeJobState.MOVING
    report = await carry_to_its_end(runner, reconciler.store, number)
    assert [merged.id for merged in report.merged] == ["a1"]
    assert git(repository, "status", "--porcelain") == ""


async def test_a_merge_is_retried_while_records_can_not_be_written(
    repository: Path, monkeypatch: pytest.MonkeyPatch, reconciler: Reconciler, number: int
) -> None:
    monkeypatch.setattr(run_merge, "_RETRIES", 0)
    runner = MergeRunner(reconciler.services)
    done = reconciler.store.merges.set_state

    async def refuse(*_: object, **__: object) -> None:
        raise RecordsError("database or disk is full")

    for _ in range(3):
        monkeypatch.setattr(reconciler.store.merges, "set_state", refuse)
        with pytest.raises(RecordsError):
            await carry_to_its_end(runner, reconciler.store, number)
        assert git(repository, "status", "--porcelain") == ""
    monkeypatch.setattr(reconciler.store.merges, "set_state", done)
    assert [merged.id for merged in (await carry_to_its_end(runner, reconciler.store, number)).merged] == ["a1"]


async def test_a_merge_waits_for_a_lock_on_a_ref(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reconciler: Reconciler, number: int
) -> None:
    calls = put_counting_git(tmp_path / "bin", monkeypatch)
    lock = repository / ".git" / "refs" / "heads" / "main.lock"
    lock.touch()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(carry_to_its_end, MergeRunner(reconciler.services), reconciler.store, number)
        await until(lambda: " update-ref " in calls.read_text())
        lock.unlink()
    assert git(repository, "show", "main:one") == "1"
    [call] = [call for call in calls.read_text().splitlines() if " update-ref " in call]
    assert "core.filesRefLockTimeout=10000" in call
