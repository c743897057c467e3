"""Damage by an agent to its branch, index or worktree loses no work and affects no other agent."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from forkjoin.git.worktrees.autocommit import AutocommitResult
from support.autocommits import leave, leave_twice
from support.branches import Fork, blob, commit, everything, files_of, make_fork
from support.harness import git

# -- where HEAD is


async def test_the_tip_of_an_agents_branch_is_its_last_commit(fork: Fork) -> None:
    tip = commit(fork.path, {"done": "x"})
    assert await leave_twice(fork) == AutocommitResult(tip, 0, [])


async def test_uncommitted_work_goes_on_top_of_the_agents_own_commits(fork: Fork) -> None:
    tip = commit(fork.path, {"done": "x"})
    (fork.path / "loose").write_text("y")
    left = await leave_twice(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == tip
    assert git(fork.path, "status", "--porcelain", "--branch") == f"## {fork.branch}"


async def test_work_on_a_detached_head_is_brought_to_the_branch(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach")
    done = commit(fork.path, {"done": "x"})
    (fork.path / "loose").write_text("y")
    left = await leave_twice(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == done
    assert "The agent worked off its branch; the branch was moved to its last commit." in left.warnings


async def test_work_on_another_branch_is_committed_to_the_agents_branch_only(fork: Fork) -> None:
    git(fork.repository, "branch", "develop")
    git(fork.path, "switch", "-q", "develop")
    (fork.path / "loose").write_text("y")
    left = await leave_twice(fork)
    assert blob(fork.repository, fork.branch, "loose") == b"y"
    assert git(fork.repository, "rev-parse", "develop") == fork.base
    assert left.uncommitted == 1


async def test_work_that_the_branch_cannot_take_is_kept_under_a_ref(fork: Fork) -> None:
    mine = commit(fork.path, {"mine": "x"})
    git(fork.path, "switch", "-qc", "other", fork.base)
    (fork.path / "loose").write_text("y")
    left = await leave_twice(fork)
    assert left.tip == mine
    assert left.warnings[-1] == (
        "The agent's HEAD had left its branch; its commit is kept as refs/forkjoin/kept/a1-left, and is not merged."
    )
    assert blob(fork.repository, "refs/forkjoin/kept/a1-left", "loose") == b"y"


async def test_work_that_was_kept_of_an_earlier_attempt_stays_kept(fork: Fork) -> None:
    commit(fork.path, {"mine": "x"})
    for name in ("first", "second"):
        git(fork.path, "switch", "-q", "--detach", fork.base)
        (fork.path / name).write_text("y")
        await leave(fork)
    assert blob(fork.repository, "refs/forkjoin/kept/a1-left", "first") == b"y"
    assert blob(fork.repository, "refs/forkjoin/kept/a1-left-2", "second") == b"y"


async def test_a_branch_that_a_person_has_checked_out_is_not_moved(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach")
    git(fork.repository, "switch", "-q", fork.branch)
    commit(fork.path, {"done": "x"})
    left = await leave_twice(fork)
    assert left.tip == fork.base
    assert git(fork.repository, "status", "--porcelain") == ""
    assert blob(fork.repository, "refs/forkjoin/kept/a1-left", "done") == b"x"


async def test_checking_out_an_older_commit_does_not_move_the_branch(fork: Fork) -> None:
    tip = commit(fork.path, {"done": "x"})
    git(fork.path, "switch", "-q", "--detach", fork.base)
    assert await leave_twice(fork) == AutocommitResult(tip, 0, [])


async def test_a_reset_branch_stays_at_the_commit_that_it_was_reset_to(fork: Fork) -> None:
    commit(fork.path, {"done": "x"})
    git(fork.path, "reset", "-q", "--soft", fork.base)
    left = await leave_twice(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == fork.base
    assert left.uncommitted == 1


async def test_a_deleted_branch_is_created_again_with_its_commits(fork: Fork) -> None:
    done = commit(fork.path, {"done": "x"})
    git(fork.repository, "update-ref", "-d", f"refs/heads/{fork.branch}")
    left = await leave_twice(fork)
    assert left == AutocommitResult(
        done, 0, ["The agent's branch was gone; it was created again at the agent's last commit."]
    )


async def test_uncommitted_work_on_a_deleted_branch_goes_on_top_of_its_commits(fork: Fork) -> None:
    done = commit(fork.path, {"done": "x"})
    git(fork.repository, "update-ref", "-d", f"refs/heads/{fork.branch}")
    (fork.path / "loose").write_text("y")
    left = await leave_twice(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == done
    assert git(fork.path, "status", "--porcelain", "--branch") == f"## {fork.branch}"


async def test_commits_of_a_branch_that_cannot_be_created_again_are_kept(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach")
    done = commit(fork.path, {"done": "x"})
    git(fork.path, "branch", "-qD", fork.branch)
    git(fork.repository, "branch", f"{fork.branch}/below", fork.base)
    left = await leave(fork)
    assert left == AutocommitResult(None, 0, [left.warnings[-1]])
    assert left.warnings[-1] == (
        "The agent's HEAD had left its branch; its commit is kept as refs/forkjoin/kept/a1-left, and is not merged."
    )
    assert git(fork.repository, "rev-parse", "refs/forkjoin/kept/a1-left") == done
    assert await leave(fork) == left


async def test_a_branch_deleted_from_a_detached_head_is_created_again(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach")
    done = commit(fork.path, {"done": "x"})
    git(fork.path, "branch", "-qD", fork.branch)
    assert (await leave_twice(fork)).tip == done


# -- operations that were under way


async def test_a_merge_with_conflicts_is_committed_with_a_warning(fork: Fork) -> None:
    commit(fork.repository, {"shared.txt": "theirs\n"})
    done = commit(fork.path, {"shared.txt": "mine\n"})
    git(fork.path, "merge", "main", check=False)
    left = await leave_twice(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^@") == done
    assert b"<<<<<<<" in blob(fork.repository, str(left.tip), "shared.txt")
    assert "They were in the middle of a merge, with conflicts in: shared.txt." in left.warnings


async def test_the_files_of_a_rebase_with_conflicts_are_kept_under_a_ref(fork: Fork) -> None:
    commit(fork.repository, {"shared.txt": "theirs\n"})
    done = commit(fork.path, {"shared.txt": "mine\n"})
    git(fork.path, "rebase", "main", check=False)
    left = await leave_twice(fork)
    assert left.tip == done
    assert b"<<<<<<<" in blob(fork.repository, "refs/forkjoin/kept/a1-left", "shared.txt")


async def test_locks_of_a_killed_git_are_removed(fork: Fork) -> None:
    for lock in (fork.folder / "index.lock", fork.folder / "HEAD.lock", _ref_lock(fork)):
        lock.write_bytes(b"")
    (fork.path / "loose").write_text("y")
    assert (await leave_twice(fork)).uncommitted == 1


async def test_folders_in_place_of_locks_are_removed(fork: Fork) -> None:
    for lock in (fork.folder / "index.lock", fork.folder / "HEAD.lock", _ref_lock(fork)):
        (lock / "deep").mkdir(parents=True)
    (fork.path / "loose").write_text("y")
    assert (await leave_twice(fork)).uncommitted == 1


def _ref_lock(fork: Fork) -> Path:
    return fork.repository / ".git" / "refs" / "heads" / f"{fork.branch}.lock"


@pytest.mark.parametrize("damage", [b"garbage", b"", None])
async def test_a_damaged_index_loses_no_file(fork: Fork, damage: bytes | None) -> None:
    commit(fork.path, {".gitignore": "ignored\n", "ignored": "but committed\n"})
    (fork.path / "loose").write_text("y")
    if damage is None:
        (fork.folder / "index").unlink()
    else:
        (fork.folder / "index").write_bytes(damage)
    await leave_twice(fork)
    assert files_of(fork.repository, fork.branch) == [
        *("100644 .gitignore", "100644 README.md", "100644 ignored", "100644 loose", "100644 shared.txt")
    ]


# -- a worktree that is none any more


def delete_git(fork: Fork) -> None:
    (fork.path / ".git").unlink()


def start_a_repository(fork: Fork) -> None:
    (fork.path / ".git").unlink()
    git(fork.path, "init", "-q")
    git(fork.path, "add", ".")
    git(fork.path, "commit", "-qm", "in another repository")


def point_git_at_the_users_checkout(fork: Fork) -> None:
    (fork.path / ".git").write_text(f"gitdir: {fork.common_dir}\n")


def link_git_to_the_users(fork: Fork) -> None:
    (fork.path / ".git").unlink()
    (fork.path / ".git").symlink_to(fork.common_dir)


def put_a_pipe_for_git(fork: Fork) -> None:
    (fork.path / ".git").unlink()
    os.mkfifo(fork.path / ".git")


@pytest.mark.parametrize(
    "meddle",
    [
        *(delete_git, start_a_repository, point_git_at_the_users_checkout, link_git_to_the_users),
        put_a_pipe_for_git,
    ],
)
async def test_files_are_committed_if_the_worktrees_git_link_is_damaged(
    fork: Fork, meddle: Callable[[Fork], None]
) -> None:
    done = commit(fork.path, {"done": "x"})
    (fork.path / "loose").write_text("y")
    meddle(fork)
    before = everything(fork.repository)
    left = await leave(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == done
    assert blob(fork.repository, fork.branch, "loose") == b"y"
    assert ".git" in left.warnings[0]
    after = everything(fork.repository)
    for same in ("HEAD", "index", "files", "stash", "worktrees"):
        assert after[same] == before[same]
    assert (await leave(fork)).tip == left.tip


async def test_a_deleted_git_link_is_restored(fork: Fork) -> None:
    delete_git(fork)
    await leave(fork)
    assert git(fork.path, "status", "--porcelain", "--branch") == f"## {fork.branch}"


async def test_a_repository_around_the_worktrees_is_not_touched(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    fork = await make_fork(repository)
    shutil.rmtree(fork.folder)
    (fork.path / ".git").unlink()
    (fork.path / "loose").write_text("y")
    left = await leave(fork)
    assert left == AutocommitResult(
        fork.base, 0, ["git no longer knows the agent's worktree: only the commits on its branch are left."]
    )
    assert not (tmp_path / ".git" / "index").exists()


@pytest.mark.parametrize("instead", ["nothing", "a file", "a symlink"])
async def test_the_commits_of_a_worktree_whose_folder_is_gone_stay(fork: Fork, tmp_path: Path, instead: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").touch()
    git(fork.path, "switch", "-q", "--detach")
    done = commit(fork.path, {"done": "x"})
    shutil.rmtree(fork.path)
    if instead == "a file":
        fork.path.touch()
    if instead == "a symlink":
        fork.path.symlink_to(tmp_path / "outside")
    left = await leave_twice(fork)
    assert left.tip == done
    assert left.warnings[0] == "The agent removed its worktree: only its commits are left."
    assert files_of(fork.repository, done) == ["100644 README.md", "100644 done", "100644 shared.txt"]


async def test_a_symlink_that_leads_out_of_the_worktree_is_committed_as_a_symlink(fork: Fork, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").touch()
    (fork.path / "link").symlink_to(tmp_path / "outside")
    await leave_twice(fork)
    assert "120000 link" in files_of(fork.repository, fork.branch)
