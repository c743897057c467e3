"""Checkouts of a target: finding, locking and moving them."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from anyio import run_process
from forkjoin.core.error import CallerError
from forkjoin.git.merging.move_target import TargetMove, apply_move
from forkjoin.git.worktrees import checkout
from forkjoin.git.worktrees.checkout import TargetMovedError, check_free, find_checkout, lock_checkout
from support.branches import OWNER, commit, contents, everything, write
from support.harness import GIVE_UP_S, git
from support.target_moves import AFTER, Target, note_waits

# -- places where the target is checked out


async def test_a_target_in_another_worktree_is_moved_with_its_files(target: Target, tmp_path: Path) -> None:
    git(target.repository, "switch", "-qc", "side")
    git(target.repository, "worktree", "add", "-q", str(tmp_path / "wo\nrk"), "main")
    before = everything(target.repository)
    write(tmp_path / "wo\nrk", "other", "edited\n")
    assert await target.land() == []
    assert git(tmp_path / "wo\nrk", "status", "--porcelain") == " M other"
    assert contents(tmp_path / "wo\nrk") == AFTER | {"other": b"edited\n"}
    assert git(tmp_path / "wo\nrk", "log", "-1", "--walk-reflogs", "--format=%gs", "HEAD") == "forkjoin: merge a1"
    after = everything(target.repository)
    assert (after["HEAD"], after["index"], after["files"]) == (before["HEAD"], before["index"], before["files"])


@pytest.mark.parametrize("switch", [("-qc", "side"), ("-q", "--detach")])
async def test_only_the_ref_of_a_target_moves_if_it_is_checked_out_nowhere(
    target: Target, switch: tuple[str, ...]
) -> None:
    git(target.repository, "switch", *switch)
    write(target.repository, "shared.txt", "mine\n")
    before = everything(target.repository)
    assert await target.land() == []
    assert target.tip() == target.new
    after = everything(target.repository)
    assert (after["HEAD"], after["index"], after["files"]) == (before["HEAD"], before["index"], before["files"])


async def test_only_the_ref_moves_in_a_bare_repository(target: Target, tmp_path: Path) -> None:
    git(target.repository, "branch", "keep", target.new)
    git(target.repository, "clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    bare = TargetMove("refs/heads/main", target.old, target.new, None, "why")
    assert await find_checkout(str(tmp_path / "bare.git"), "refs/heads/main") is None
    async with lock_checkout(str(tmp_path / "bare.git"), bare.checkout, bare.ref, OWNER) as held:
        await apply_move(str(tmp_path / "bare.git"), bare, held)
    assert git(tmp_path / "bare.git", "rev-parse", "main") == target.new


async def test_a_worktree_with_a_deleted_folder_is_no_checkout(target: Target, tmp_path: Path) -> None:
    git(target.repository, "switch", "-q", "--detach")
    git(target.repository, "worktree", "add", "-q", str(tmp_path / "work"), "main")
    shutil.rmtree(tmp_path / "work")
    assert await target.land() == []
    assert target.tip() == target.new


async def test_a_move_is_refused_if_a_locked_worktree_is_unavailable(target: Target, tmp_path: Path) -> None:
    git(target.repository, "switch", "-q", "--detach")
    git(target.repository, "worktree", "add", "-q", str(tmp_path / "disk"), "main")
    git(target.repository, "worktree", "lock", str(tmp_path / "disk"))
    shutil.rmtree(tmp_path / "disk")
    with pytest.raises(CallerError, match=r"main is checked out in .*disk, where its files can't be reached"):
        await target.land()
    assert target.tip() == target.old


async def test_a_move_is_refused_if_two_worktrees_have_the_target(target: Target, tmp_path: Path) -> None:
    git(target.repository, "worktree", "add", "-q", "--force", str(tmp_path / "work"), "main")
    with pytest.raises(CallerError, match=r"main is checked out more than once: in .*repository, .*work"):
        await target.land()
    assert target.tip() == target.old


async def test_a_target_in_a_submodule_is_moved_with_its_files(target: Target, tmp_path: Path) -> None:
    git(target.repository, "branch", "keep", target.new)
    git(tmp_path, "init", "-q", "super")
    git(tmp_path / "super", "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(target.repository), "lib")
    inner = Target(tmp_path / "super" / "lib", target.old, target.new)
    common_dir = str(tmp_path / "super" / ".git" / "modules" / "lib")
    assert await find_checkout(common_dir, "refs/heads/main") == str(inner.repository)
    move = TargetMove("refs/heads/main", inner.old, inner.new, str(inner.repository), "why")
    async with lock_checkout(common_dir, move.checkout, move.ref, OWNER) as held:
        await apply_move(common_dir, move, held)
    assert inner.status() == []
    assert contents(inner.repository) == AFTER


async def test_a_separate_git_folder_needs_core_worktree(target: Target, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--separate-git-dir", str(tmp_path / "git"), str(target.repository), "apart")
    with pytest.raises(CallerError, match="Say where they are, with: git config core"):
        await find_checkout(str(tmp_path / "git"), "refs/heads/main")
    git(tmp_path / "apart", "config", "core.worktree", str(tmp_path / "apart"))
    assert await find_checkout(str(tmp_path / "git"), "refs/heads/main") == str(tmp_path / "apart")


async def test_a_checkout_that_was_switched_meanwhile_is_not_changed(target: Target) -> None:
    move = await target.find_move()
    git(target.repository, "switch", "-qc", "side")
    before = everything(target.repository)
    with pytest.raises(TargetMovedError):
        async with lock_checkout(target.common_dir, move.checkout, move.ref, OWNER):
            raise AssertionError("not reached")
    assert everything(target.repository) == before


async def test_a_pipe_in_the_rebase_state_of_another_worktree_does_not_block(target: Target, tmp_path: Path) -> None:
    git(target.repository, "worktree", "add", "-q", "--detach", str(tmp_path / "work"))
    folder = target.repository / ".git" / "worktrees" / "work" / "rebase-merge"
    folder.mkdir()
    os.mkfifo(folder / "head-name")
    with anyio.fail_after(GIVE_UP_S):
        assert await target.land() == []


# -- an operation in progress


def begin_merge(here: Path) -> None:
    git(here, "branch", "theirs", "HEAD^")
    git(here, "merge", "-q", "--no-commit", "--no-ff", "side")


def begin_cherry_pick(here: Path) -> None:
    git(here, "cherry-pick", "rival", check=False)


def begin_cherry_picks(here: Path) -> None:
    git(here, "cherry-pick", "rival", "side", check=False)
    git(here, "cherry-pick", "--quit", check=False)
    (here / ".git" / "sequencer").mkdir(exist_ok=True)


def begin_revert(here: Path) -> None:
    git(here, "revert", "--no-commit", "HEAD")
    (here / ".git" / "REVERT_HEAD").write_text(git(here, "rev-parse", "HEAD"))


def begin_am(here: Path) -> None:
    patch = git(here, "format-patch", "-1", "--stdout", "rival")
    subprocess.run(
        ["git", "-C", str(here), "am", "-q"], input=patch + "\n", text=True, check=False, capture_output=True
    )


def begin_rebase(here: Path) -> None:
    git(here, "rebase", "-q", "rival", check=False)


def begin_rebase_of_a_stack(here: Path) -> None:
    git(here, "switch", "-qc", "top")
    commit(here, {"top": "x"})
    git(here, "rebase", "-q", "--update-refs", "rival", check=False)


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (begin_merge, "a merge is in progress in"),
        (begin_cherry_pick, "a cherry-pick is in progress in"),
        (begin_cherry_picks, "a cherry-pick or revert is in progress in"),
        (begin_revert, "a revert is in progress in"),
        (begin_am, "a rebase or git am is in progress in"),
        (begin_rebase, "main is being rebased in"),
        (begin_rebase_of_a_stack, "main is being rebased in"),
    ],
)
async def test_an_operation_in_progress_is_named_and_nothing_changes(
    target: Target, begin: Callable[[Path], None], words: str
) -> None:
    here = target.repository
    for name, files in (("side", {"side": "x"}), ("rival", {"clash": "theirs"})):
        git(here, "switch", "-qc", name)
        commit(here, files)
        git(here, "switch", "-q", "main")
    old = commit(here, {"clash": "ours"})
    begin(here)
    before = everything(here)
    for attempt in (replace(target, old=old).land, lambda: check_free(target.common_dir, "refs/heads/main")):
        with pytest.raises(CallerError, match=words):
            await attempt()
        assert everything(here) == before


async def test_a_target_without_an_operation_in_progress_is_free(target: Target) -> None:
    await check_free(target.common_dir, "refs/heads/main")


async def test_waiting_for_another_git_command_has_a_limit(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "_LOCK_GIVE_UP_S", 0.05)
    (target.repository / ".git" / "index.lock").write_bytes(b"somebody else's")
    before = everything(target.repository)
    with pytest.raises(CallerError, match=r"Another git command is running in .*index.lock exists"):
        await target.land()
    assert everything(target.repository) == before


async def test_a_move_waits_for_another_git_command(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = note_waits(monkeypatch)
    lock = target.repository / ".git" / "index.lock"
    lock.touch()
    with anyio.fail_after(GIVE_UP_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(target.land)
            await waiting.wait()
            lock.unlink()
    assert target.tip() == target.new


async def test_nobody_else_can_change_the_index_of_a_locked_checkout(target: Target) -> None:
    move = await target.find_move()
    write(target.repository, "untracked", "x")
    async with lock_checkout(target.common_dir, move.checkout, move.ref, OWNER):
        refused = await run_process(["git", "-C", str(target.repository), "add", "."], check=False)
        assert b"index.lock" in refused.stderr
    git(target.repository, "add", ".")


async def test_the_lock_is_released_if_the_copy_of_the_index_cannot_be_deleted(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = checkout._delete_copy
    calls: list[Path] = []

    def refuse_the_second(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 2:
            raise PermissionError(errno.EACCES, "Permission denied")
        clear(folder)

    monkeypatch.setattr(checkout, "_delete_copy", refuse_the_second)
    assert await target.land() == []
    assert len(calls) == 2
    assert not (target.repository / ".git" / "index.lock").exists()
    assert target.tip() == target.new


async def test_a_worktree_that_is_being_added_is_ignored(target: Target) -> None:
    """Ignore a git folder without files, as `git worktree add` creates it at first."""
    (target.repository / ".git" / "worktrees" / "new").mkdir(parents=True)
    assert await find_checkout(target.common_dir, "refs/heads/main") == str(target.repository)


@pytest.mark.parametrize("name", ["HEAD", "gitdir", "commondir", "locked"])
async def test_a_pipe_in_the_git_folder_of_another_worktree_does_not_block(
    target: Target, tmp_path: Path, name: str
) -> None:
    git(target.repository, "worktree", "add", "-q", "--detach", str(tmp_path / "work"))
    (target.repository / ".git" / "worktrees" / "work" / name).unlink(missing_ok=True)
    os.mkfifo(target.repository / ".git" / "worktrees" / "work" / name)
    with anyio.fail_after(GIVE_UP_S):
        assert await target.land() == []
