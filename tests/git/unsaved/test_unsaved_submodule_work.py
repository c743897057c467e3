"""Unsaved work in submodules of a worktree."""

from collections.abc import Callable
from pathlib import Path

import pytest
from forkjoin.git.worktrees.delete_path import delete_path
from support.branches import Fork, commit, make_fork
from support.harness import git
from support.unsaved_work import ALLOW, WORK, describe_unsaved, make_repository


async def test_a_submodule_as_it_came_is_elsewhere(with_submodule: Fork) -> None:
    assert await describe_unsaved(with_submodule) == []


@pytest.mark.parametrize(("work", "what"), WORK.items())
async def test_work_in_a_submodule_is_unsaved(with_submodule: Fork, work: Callable[[Path], None], what: str) -> None:
    work(with_submodule.path / "lib")
    assert await describe_unsaved(with_submodule) == [f"lib ({what})"]


async def test_commits_of_a_submodule_whose_folder_was_deleted_are_unsaved(with_submodule: Fork) -> None:
    fork = with_submodule
    commit(fork.path / "lib", {"a": "x"})
    delete_path(fork.path / "lib")
    assert await describe_unsaved(fork) == ["modules/lib (1 commit)"]
    delete_path(fork.path)
    assert await describe_unsaved(fork) == ["modules/lib (1 commit)"]


async def test_what_the_checkouts_own_submodule_has_is_elsewhere(with_submodule: Fork) -> None:
    fork = with_submodule
    done = commit(fork.path / "lib", {"a": "x"})
    git(fork.repository / "lib", *ALLOW, "fetch", "-q", str(fork.path / "lib"), f"{done}:refs/heads/theirs")
    assert await describe_unsaved(fork) == []


async def test_a_commit_that_the_base_names_is_not_the_agents(repository: Path, library: Path) -> None:
    git(repository, *ALLOW, "submodule", "add", "-q", str(library), "lib")
    git(repository / "lib", "checkout", "-q", "--detach")
    commit(repository / "lib", {"a": "x"})
    git(repository, "add", "lib")
    git(repository, "commit", "-qm", "a commit that is pushed nowhere")
    fork = await make_fork(repository)
    git(fork.path, *ALLOW, "clone", "-q", str(repository / ".git" / "modules" / "lib"), "lib")
    git(fork.path / "lib", "checkout", "-q", "--detach", git(repository / "lib", "rev-parse", "HEAD"))
    git(fork.path / "lib", "update-ref", "-d", "refs/remotes/origin/main")
    git(fork.path / "lib", "update-ref", "-d", "refs/remotes/origin/HEAD")
    assert await describe_unsaved(fork) == []


async def test_files_in_the_place_of_a_submodule_that_is_none_are_unsaved(repository: Path, library: Path) -> None:
    git(repository, *ALLOW, "submodule", "add", "-q", str(library), "lib")
    git(repository, "commit", "-qm", "with a submodule")
    fork = await make_fork(repository)
    assert await describe_unsaved(fork) == []
    (fork.path / "lib" / "a").write_text("x")
    assert git(fork.path, "status", "--porcelain") == ""
    assert await describe_unsaved(fork) == ["lib (files in the place of a submodule)"]


@pytest.mark.parametrize("kind", ["clone", "worktree"])
async def test_files_in_the_place_of_a_nested_repositorys_submodule_are_unsaved(
    fork: Fork, library: Path, tmp_path: Path, kind: str
) -> None:
    outer = make_repository(tmp_path / "outer")
    git(outer, *ALLOW, "submodule", "add", "-q", str(library), "lib")
    git(outer, "commit", "-qm", "with a submodule")
    git(fork.path, "clone", "-q", str(outer), "clone")
    git(fork.path / "clone", "worktree", "add", "-q", "--detach", "../worktree")
    assert await describe_unsaved(fork) == []
    (fork.path / kind / "lib" / "a").write_text("x")
    assert git(fork.path / kind, "status", "--porcelain") == ""
    assert await describe_unsaved(fork) == [f"{kind}/lib (files in the place of a submodule)"]
    git(fork.path / kind, *ALLOW, "clone", "-q", str(library), "new")
    (fork.path / kind / "lib" / "a").unlink()
    (fork.path / kind / "lib").rmdir()
    (fork.path / kind / "new").rename(fork.path / kind / "lib")
    assert await describe_unsaved(fork) == []
