"""A snapshot commits a worktree's present files, and changes neither the worktree nor its repository."""

import os
import subprocess
from pathlib import Path

import anyio
import pytest
from forkjoin.git.objects import temporary_objects
from forkjoin.git.worktrees.worktree_snapshot import snapshot
from support.branches import GIT_VERSION, blob, commit, everything, make_fork, write
from support.harness import git


async def take(repository: Path, worktree: Path) -> str | None:
    with temporary_objects(str(repository / ".git"), repository.parent) as aside:
        return await snapshot(str(repository / ".git"), worktree, aside)


def objects(repository: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(repository / ".git" / "objects"))


async def test_a_snapshot_has_uncommitted_files_and_changes_nothing(repository: Path) -> None:
    fork = await make_fork(repository)
    write(fork.path, "new/file", "new\n")
    write(fork.path, "shared.txt", "edited\n")
    write(fork.path, "README.md", None)
    before, count, index = everything(repository), objects(repository), (fork.folder / "index").read_bytes()
    with temporary_objects(fork.common_dir, repository.parent) as aside:
        made = await snapshot(fork.common_dir, fork.path, aside)
        again = await snapshot(fork.common_dir, fork.path, aside)
        assert made
        assert made == again
        listing = listing_of(repository, made, aside)
    assert listing == [f"{made}^1 {fork.base}", "new/file", "shared.txt"]
    assert (everything(repository), objects(repository)) == (before, count)
    assert (fork.folder / "index").read_bytes() == index


def listing_of(repository: Path, commit: str, aside: dict[str, str]) -> list[str]:
    def ask(*arguments: str) -> str:
        argv = ["git", "-C", str(repository), *arguments]
        return subprocess.run(argv, env={**os.environ, **aside}, capture_output=True, check=True, text=True).stdout

    return [
        f"{commit}^1 {ask('rev-parse', f'{commit}^1').strip()}",
        *ask("ls-tree", "-r", "--name-only", commit).split(),
    ]


async def test_the_snapshot_of_a_clean_worktree_is_its_commit(repository: Path) -> None:
    fork = await make_fork(repository)
    made = commit(fork.path, {"new": "x\n"})
    assert await take(repository, fork.path) == made


async def test_a_removed_worktree_has_no_snapshot(repository: Path) -> None:
    fork = await make_fork(repository)
    git(repository, "worktree", "remove", "--force", str(fork.path))
    assert await take(repository, fork.path) is None
    assert await take(repository, repository.parent / "nowhere") is None


async def test_the_snapshot_omits_uncommitted_files_over_the_size_limit(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forkjoin.git.worktrees.worktree_snapshot._SIZE_LIMIT", 10)
    fork = await make_fork(repository)
    write(fork.path, "small", "x\n")
    assert await take(repository, fork.path) != fork.base
    write(fork.path, "large", "x" * 10)
    assert await take(repository, fork.path) == fork.base


async def test_a_pipe_in_a_worktree_prevents_a_snapshot_without_blocking(repository: Path) -> None:
    fork = await make_fork(repository)
    os.mkfifo(fork.path / ".gitignore")
    with anyio.fail_after(5):
        assert await take(repository, fork.path) is None


@pytest.mark.skipif(GIT_VERSION < (2, 43), reason="older versions of git always run filters")
async def test_a_snapshot_runs_no_filter(repository: Path) -> None:
    fork = await make_fork(repository)
    git(repository, "config", "--global", "filter.x.clean", f"tee -a {repository.parent}/shown")
    write(fork.path, ".gitattributes", "*.big filter=x\n")
    write(fork.path, "a.big", "big\n")
    assert await take(repository, fork.path) != fork.base
    assert not (repository.parent / "shown").exists()


@pytest.mark.parametrize("name", ['with "quotes"', "a:colon", "back\\slash"])
async def test_a_snapshot_works_in_a_repository_with_special_characters_in_its_path(
    repository: Path, name: str
) -> None:
    moved = repository.rename(repository.parent / name)
    fork = await make_fork(moved)
    write(fork.path, "new", "x\n")
    with temporary_objects(fork.common_dir, repository.parent) as aside:
        made = await snapshot(fork.common_dir, fork.path, aside)
        assert made
        assert listing_of(moved, made, aside)[1:] == ["README.md", "new", "shared.txt"]
    assert blob(moved, "HEAD", "README.md") == b"a repository\n"
