"""A target is moved completely or not at all, and keeps the user's changes in the checkout."""

import os
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from forkjoin.git.merging.move_target import apply_move
from forkjoin.git.worktrees.checkout import TargetMovedError, lock_checkout
from support.branches import OWNER, REAL_GIT, commit, contents, everything, put_git, put_hooks, write
from support.harness import GIVE_UP_S, git, until
from support.target_moves import AFTER, CHANGES, Target

# -- moving a checkout


async def test_a_checked_out_target_is_moved_with_its_files(target: Target) -> None:
    assert await target.land() == []
    assert target.tip() == target.new
    assert contents(target.repository) == AFTER
    assert target.status() == []
    assert git(target.repository, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert not (target.repository / ".git" / "index.lock").exists()
    assert not (target.repository / ".git" / "forkjoin-index").exists()


async def test_the_reflogs_of_branch_and_head_have_the_reason(target: Target) -> None:
    await target.land()
    for ref in ("main", "HEAD"):
        assert git(target.repository, "log", "-1", "--walk-reflogs", "--format=%H %gs", ref) == (
            f"{target.new} forkjoin: merge a1"
        )


async def test_a_move_keeps_all_kinds_of_changes_in_other_files(target: Target) -> None:
    here = target.repository
    new_files = {
        "staged": "staged\n",
        "twice": "staged\n",
        "untracked": "x\n",
        "new/untracked": "x\n",
        "a.log": "x\n",
    }
    for name, text in new_files.items():
        write(here, name, text)
    git(here, "add", "staged", "twice")
    write(here, "twice", "and edited\n")
    write(here, "meant", "x\n")
    git(here, "add", "--intent-to-add", "meant")
    write(here, "other", "edited\n")
    (here / "README.md").unlink()
    own = {name: text.encode() for name, text in new_files.items()}
    own |= {"twice": b"and edited\n", "meant": b"x\n", "other": b"edited\n"}
    before = (git(here, "diff"), git(here, "diff", "--cached"), target.status())
    assert await target.land() == []
    assert (git(here, "diff"), git(here, "diff", "--cached"), target.status()) == before
    assert contents(here) == {name: text for name, text in (AFTER | own).items() if name != "README.md"}
    assert target.tip() == target.new


async def test_a_move_keeps_the_stash(target: Target) -> None:
    write(target.repository, "shared.txt", "stashed\n")
    git(target.repository, "stash", "push", "-q")
    before = git(target.repository, "stash", "list", "--format=%H %gd %gs")
    await target.land()
    assert git(target.repository, "stash", "list", "--format=%H %gd %gs") == before


async def test_a_touched_file_is_not_in_the_way(target: Target) -> None:
    os.utime(target.repository / "shared.txt", (1, 1))
    assert await target.land() == []
    assert target.status() == []


async def test_a_file_staged_with_the_new_content_is_not_in_the_way(target: Target) -> None:
    write(target.repository, "shared.txt", CHANGES["shared.txt"])
    write(target.repository, "new/file", CHANGES["new/file"])
    git(target.repository, "add", ".")
    assert await target.land() == []
    assert target.status() == []


async def test_no_hook_runs(target: Target, tmp_path: Path) -> None:
    put_hooks(target.repository / ".git" / "hooks", tmp_path / "told")
    await target.land()
    assert not (tmp_path / "told").exists()


@pytest.mark.parametrize(
    "setting",
    [
        "core.splitIndex=true",
        "index.version=4",
        "core.untrackedCache=true",
        "feature.manyFiles=true",
        "index.skipHash=true",
    ],
)
async def test_all_index_formats_are_supported(target: Target, setting: str) -> None:
    git(target.repository, "config", *setting.split("="))
    git(target.repository, "update-index", "--force-write-index")
    write(target.repository, "other", "edited\n")
    assert await target.land() == []
    assert target.status() == [" M other"]
    git(target.repository, "fsck")


async def test_a_sparse_checkout_stays_sparse(target: Target) -> None:
    git(target.repository, "sparse-checkout", "set", "--cone", "--sparse-index", "elsewhere")
    assert await target.land() == []
    assert target.status() == []
    assert not (target.repository / "new").exists()


async def test_a_move_changes_a_submodules_commit_but_not_its_files(target: Target, tmp_path: Path) -> None:
    here = target.repository
    git(here, "clone", "-q", ".", str(tmp_path / "library"))
    later = commit(tmp_path / "library", {"later": "x"})
    git(here, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    git(here / "lib", "checkout", "-q", "HEAD^")
    git(here, "add", "lib")
    git(here, "commit", "-qm", "with a submodule")
    git(here, "config", "submodule.recurse", "true")
    old = target.tip()
    git(here, "update-index", "--cacheinfo", f"160000,{later},lib")
    new = git(here, "commit-tree", "-p", old, "-m", "moved", git(here, "write-tree"))
    git(here, "update-index", "--cacheinfo", f"160000,{git(here / 'lib', 'rev-parse', 'HEAD')},lib")
    before = contents(here / "lib")
    assert await replace(target, old=old, new=new).land() == []
    assert contents(here / "lib") == before
    assert git(here, "ls-tree", "HEAD", "lib").split()[2] == later


# -- lost races


async def test_files_are_restored_if_somebody_else_moves_the_ref(target: Target) -> None:
    here = target.repository
    write(here, "other", "edited\n")
    write(here, "staged", "x\n")
    git(here, "add", "staged")
    theirs = git(here, "commit-tree", "-p", target.old, "-m", "theirs", f"{target.old}^{{tree}}")
    before = everything(here)
    move = await target.find_move()
    with pytest.raises(TargetMovedError):
        async with lock_checkout(target.common_dir, move.checkout, move.ref, OWNER) as held:
            git(here, "update-ref", "refs/heads/main", theirs)
            await apply_move(target.common_dir, move, held)
    assert target.tip() == theirs
    assert everything(here)["files"] == before["files"]
    assert target.status() == [" M other", "A  staged"]


async def test_a_ref_that_somebody_else_moved_is_not_moved(target: Target) -> None:
    move = await target.find_move()
    theirs = commit(target.repository, {"theirs": "x"})
    before = everything(target.repository)
    with pytest.raises(TargetMovedError):
        async with lock_checkout(target.common_dir, move.checkout, move.ref, OWNER) as held:
            await apply_move(target.common_dir, move, held)
    assert everything(target.repository) == before
    assert target.tip() == theirs


async def test_a_moved_ref_without_a_checkout_is_not_moved(target: Target) -> None:
    theirs = commit(target.repository, {"theirs": "x"})
    git(target.repository, "switch", "-q", "--detach")
    with pytest.raises(TargetMovedError):
        await target.land()
    assert target.tip() == theirs


@pytest.mark.parametrize("switch", ["main", "--detach"])
async def test_a_ref_moved_at_the_last_moment_is_not_overwritten(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    here = target.repository
    git(here, "switch", "-q", switch)
    theirs = git(here, "commit-tree", "-p", target.old, "-m", "theirs", f"{target.old}^{{tree}}")
    before = everything(here)["files"]
    first = f"{REAL_GIT} -C {here} update-ref refs/heads/main {theirs}"
    with monkeypatch.context() as patch:
        put_git(tmp_path / "bin", patch, f'case "$*" in *update-ref*) {first};; esac')
        with pytest.raises(TargetMovedError):
            await target.land()
    assert target.tip() == theirs
    assert everything(here)["files"] == before


async def test_repeating_a_completed_move_changes_nothing(target: Target) -> None:
    await target.land()
    write(target.repository, "shared.txt", "edited since\n")
    before = everything(target.repository)
    await target.resume()
    assert everything(target.repository) == before
    later = commit(target.repository, {"since": "x", "new/file": "edited since\n"})
    await target.resume()
    assert target.tip() == later


async def test_only_one_of_two_concurrent_moves_succeeds(target: Target, tmp_path: Path) -> None:
    other = git(
        *(target.repository, "commit-tree", "-p", target.old, "-m", "other", f"{target.new}^{{tree}}"),
    )
    outcomes: list[str] = []

    async def land(new: str) -> None:
        try:
            assert await replace(target, new=new).land() == []
            outcomes.append("landed")
        except TargetMovedError:
            outcomes.append("moved")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(land, target.new)
        tasks.start_soon(land, other)
    assert sorted(outcomes) == ["landed", "moved"]
    assert target.status() == []
    assert contents(target.repository) == AFTER


#: A git that waits for a file before it moves the checkout's files.
WAITS = 'case "$* " in *" read-tree -m -u {1} "*) touch {0}/on; until [ -e {0}/go ]; do sleep 0.01; done; esac'


async def test_a_move_cancelled_midway_is_completed(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, WAITS.format(tmp_path, target.old))
    with anyio.fail_after(GIVE_UP_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(target.land)
            await until((tmp_path / "on").exists)
            tasks.cancel_scope.cancel()
            (tmp_path / "go").touch()
    assert target.tip() == target.new
    assert target.status() == []
    assert everything(target.repository)["locks"] == []


async def test_every_git_that_changes_the_checkout_holds_its_lock(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    lock = target.repository / ".git" / "index.lock"
    holds = f'for held in /proc/$$/fd/*; do if [ $held -ef {lock} ]; then echo "$*" >> {log}; fi; done'
    put_git(tmp_path / "bin", monkeypatch, holds)
    assert await target.land() == []
    calls = log.read_text()
    assert f"read-tree -m -u {target.old}" in calls
    assert "update-ref" in calls
