"""Removal of worktrees in any state, while other worktrees stay untouched."""

import os
import shutil
from pathlib import Path

import pytest
from forkjoin.core.error import GitError
from forkjoin.git.worktrees import worktree
from forkjoin.git.worktrees.delete_path import delete_path
from support.branches import commit, contents, everything, make_fork, run_bound
from support.harness import git


async def test_removing_a_worktree_leaves_the_repository_as_before(repository: Path) -> None:
    before = everything(repository)
    fork = await make_fork(repository)
    (fork.path / "loose").write_text("x")
    for _ in range(2):
        await worktree.remove(fork.common_dir, fork.path)
        await worktree.delete_branch(fork.common_dir, fork.branch, fork.base)
    assert everything(repository) == before
    assert not fork.path.exists()


async def test_a_worktree_whose_folder_is_gone_is_removed(repository: Path) -> None:
    before = everything(repository)
    fork = await make_fork(repository)
    shutil.rmtree(fork.path)
    await worktree.remove(fork.common_dir, fork.path)
    await worktree.delete_branch(fork.common_dir, fork.branch, fork.base)
    assert everything(repository) == before


async def test_a_gc_that_prunes_the_worktree_at_the_same_time_is_no_error(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(repository)
    fork = await make_fork(repository)
    folder = fork.folder

    def be_beaten(path: Path) -> None:
        delete_path(path)
        if path == folder:
            raise FileNotFoundError

    monkeypatch.setattr(worktree, "delete_path", be_beaten)
    await worktree.remove(fork.common_dir, fork.path)
    await worktree.delete_branch(fork.common_dir, fork.branch, fork.base)
    assert everything(repository) == before


async def test_a_pipe_in_the_place_of_a_worktree_is_removed(repository: Path) -> None:
    before = everything(repository)
    fork = await make_fork(repository)
    shutil.rmtree(fork.path)
    os.mkfifo(fork.path)
    await worktree.remove(fork.common_dir, fork.path)
    await worktree.delete_branch(fork.common_dir, fork.branch, fork.base)
    assert everything(repository) == before
    assert not os.path.lexists(fork.path)


async def test_a_locked_worktree_is_removed_and_can_be_made_again(repository: Path) -> None:
    fork = await make_fork(repository)
    git(repository, "worktree", "lock", str(fork.path))
    await worktree.remove(fork.common_dir, fork.path)
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert (await make_fork(repository)).branch == fork.branch


async def test_a_worktree_with_a_damaged_git_folder_is_removed(repository: Path) -> None:
    before = everything(repository)
    fork = await make_fork(repository)
    for name in ("HEAD", "commondir", "index"):
        (fork.folder / name).unlink()
    (fork.path / ".git").write_text("nonsense")
    await worktree.remove(fork.common_dir, fork.path)
    await worktree.delete_branch(fork.common_dir, fork.branch, fork.base)
    assert everything(repository) == before


async def test_a_users_worktree_on_an_absent_disk_stays_registered(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", "--detach", str(tmp_path / "disk"))
    commit(tmp_path / "disk", {"own": "x"})
    (tmp_path / "disk").rename(tmp_path / "away")
    fork = await make_fork(repository)
    await worktree.remove(fork.common_dir, fork.path)
    (tmp_path / "away").rename(tmp_path / "disk")
    assert git(tmp_path / "disk", "status", "--porcelain") == ""


async def test_a_symlink_in_a_worktree_or_in_its_place_is_never_followed(repository: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine\n")
    left, right = await make_fork(repository, "a1-left"), await make_fork(repository, "a2-right")
    (left.path / "link").symlink_to(outside)
    shutil.rmtree(right.path)
    right.path.symlink_to(outside)
    for fork in (left, right):
        await worktree.remove(fork.common_dir, fork.path)
        assert not os.path.lexists(fork.path)
    assert contents(outside) == {"precious": b"mine\n"}
    assert len(git(repository, "worktree", "list").splitlines()) == 1


async def test_read_only_folders_are_removed(repository: Path, tmp_path: Path) -> None:
    fork = await make_fork(repository)
    (fork.path / "a" / "b").mkdir(parents=True)
    (fork.path / "a" / "b" / "file").touch()
    (fork.path / "a" / "link").symlink_to(tmp_path)
    tmp_path.chmod(0o750)
    for folder, mode in (("a/b", 0o500), ("a", 0), (".", 0o500)):
        (fork.path / folder).chmod(mode)
    script = f"""
import anyio, pathlib
from forkjoin.git.worktrees import worktree
anyio.run(worktree.remove, {fork.common_dir!r}, pathlib.Path({str(fork.path)!r}))
"""
    run_bound(script)
    assert not fork.path.exists()
    assert tmp_path.stat().st_mode & 0o777 == 0o750


async def test_a_branch_that_moved_meanwhile_is_not_deleted(repository: Path) -> None:
    fork = await make_fork(repository)
    tip = commit(fork.path, {"new": "x"})
    with pytest.raises(GitError, match=fork.branch):
        await worktree.delete_branch(fork.common_dir, fork.branch, fork.base)
    await worktree.delete_branch(fork.common_dir, fork.branch, tip)
    assert git(repository, "branch", "--list", "forkjoin/*") == ""
