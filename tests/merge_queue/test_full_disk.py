"""A full disk while a merge moves a checkout: the checkout is moved completely or not at all (fault 17)."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core.error import GitError
from forkjoin.core.paths import Home
from forkjoin.merge_queue.run_merge import MergeRunner
from support.branches import commit, contents, write
from support.harness import git
from support.merges import carry_to_its_end, open_daemon, record_merge_job
from support.small_disk import small_disk


@pytest.fixture
def disk(tmp_path: Path, user: Path) -> Iterator[Path]:
    """Return the folder of a disk of eight megabytes."""
    with small_disk(tmp_path / "disk", 8) as folder:
        yield folder


async def test_a_merge_that_fills_the_disk_is_rolled_back_and_succeeds_later(disk: Path, home: Home) -> None:
    here = disk / "repository"
    git(disk, "init", "-q", str(here))
    commit(here, {"a": "a\n", "z": "z\n", "other": "other\n"})
    large = {f"large{number}": "x" * 400_000 for number in range(4)}
    number = await record_merge_job(home, here, {"a": "2\n", "z": None} | large, None)
    write(here, "other", "edited\n")
    before = contents(here)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(disk).free - 1_000_000))  # room for two of the four large files
    async with open_daemon(home) as reconciler:
        runner = MergeRunner(reconciler.services)
        for _ in range(2):
            with pytest.raises(GitError):
                await carry_to_its_end(runner, reconciler.store, number)
            assert contents(here) == before
            assert git(here, "status", "--porcelain") == " M other"
        filler.unlink()
        report = await carry_to_its_end(runner, reconciler.store, number)
    assert [merged.id for merged in report.merged] == ["a1"]
    assert git(here, "status", "--porcelain") == " M other"
    assert len((here / "large3").read_bytes()) == 400_000
    assert git(here, "fsck", "--no-dangling") == ""
