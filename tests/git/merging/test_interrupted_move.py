"""An interrupted move is completed or undone, at whichever step it was interrupted."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from forkjoin.core.error import GitError
from forkjoin.git.worktrees import index_lock
from forkjoin.git.worktrees.checkout import lock_checkout
from forkjoin.git.worktrees.index_lock import try_lock
from support.branches import OWNER, contents, everything, put_git, write
from support.harness import GIVE_UP_S, git
from support.target_moves import AFTER, CHANGES, Target, note_waits

# -- a daemon that was killed during a move


def leave_lock(target: Target) -> None:
    (target.repository / ".git" / "index.lock").write_text(OWNER)


def nothing_moved(target: Target) -> None:
    leave_lock(target)


def some_files_moved(target: Target) -> None:
    leave_lock(target)
    write(target.repository, "shared.txt", CHANGES["shared.txt"])
    (target.repository / "old").unlink()
    (target.repository / "flat").unlink()
    write(target.repository, "flat/file", "deep\n")
    (target.repository / ".git" / "forkjoin-index.lock").write_bytes(b"torn")


def all_files_moved(target: Target) -> None:
    some_files_moved(target)
    write(target.repository, "new/file", "new\n")


def index_moved(target: Target) -> None:
    index = target.repository / ".git" / "index"
    git(target.repository, "read-tree", "-m", "-u", target.old, target.new)
    assert index.exists()
    leave_lock(target)


def all_moved_but_the_lock(target: Target) -> None:
    index_moved(target)
    git(target.repository, "update-ref", "refs/heads/main", target.new)


def lock_taken_away_by_a_person(target: Target) -> None:
    some_files_moved(target)
    (target.repository / ".git" / "index.lock").unlink()


@pytest.mark.parametrize(
    "killed",
    [
        *(nothing_moved, some_files_moved, all_files_moved, index_moved, all_moved_but_the_lock),
        lock_taken_away_by_a_person,
    ],
)
async def test_an_interrupted_move_is_completed(target: Target, killed: Callable[[Target], None]) -> None:
    write(target.repository, "other", "edited\n")
    write(target.repository, "staged", "x\n")
    git(target.repository, "add", "staged")
    killed(target)
    assert await target.resume() == []
    assert target.tip() == target.new
    assert contents(target.repository) == AFTER | {"other": b"edited\n", "staged": b"x\n"}
    assert target.status() == [" M other", "A  staged"]
    assert everything(target.repository)["locks"] == []


async def test_an_edited_file_stays_while_the_other_files_are_restored(target: Target) -> None:
    before = contents(target.repository)
    some_files_moved(target)
    write(target.repository, "shared.txt", "a person's\n")
    assert await target.resume() == ["shared.txt"]
    assert contents(target.repository) == before | {"shared.txt": b"a person's\n"}
    assert target.status() == [" M shared.txt"]
    assert target.tip() == target.old
    assert everything(target.repository)["locks"] == []


async def test_a_move_waits_for_a_git_that_outlived_its_daemon(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = note_waits(monkeypatch)
    leave_lock(target)
    outliving_git = os.open(target.repository / ".git" / "index.lock", os.O_RDWR)
    fcntl.flock(outliving_git, fcntl.LOCK_EX)
    with anyio.fail_after(GIVE_UP_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(target.resume)
            await waiting.wait()
            assert target.tip() == target.old
            os.close(outliving_git)
    assert target.tip() == target.new


async def test_a_lock_released_just_before_its_takeover_is_created_again(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_lock(target)
    lock = target.repository / ".git" / "index.lock"

    tries: list[int] = []

    def release_and_try(descriptor: int) -> bool:
        if not tries:
            lock.unlink()
        tries.append(descriptor)
        return try_lock(descriptor)

    monkeypatch.setattr(index_lock, "try_lock", release_and_try)
    async with lock_checkout(target.common_dir, str(target.repository), "refs/heads/main", OWNER):
        assert lock.read_text() == OWNER


#: A git for which the disk is full once the first file is written.
DISK_FULL = """
case " $* " in *" -u -n "*) ;; *" read-tree -m -u "*)
    if mkdir {0}/full; then
        printf 'one\\n2\\nthree\\n' > shared.txt
        rm old
        echo "error: unable to write file new/file: No space left on device" >&2
        exit 128
    fi
esac
"""


async def test_all_files_are_restored_if_the_disk_fills_up_during_a_move(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(target.repository, "other", "edited\n")
    before = everything(target.repository)
    with monkeypatch.context() as patch:
        put_git(tmp_path / "bin", patch, 'cd "$2"\n' + DISK_FULL.format(tmp_path))
        with pytest.raises(GitError, match="No space left on device"):
            await target.land()
    assert (tmp_path / "full").exists()
    assert target.status() == [" M other"]
    assert everything(target.repository) | {"index": None} == before | {"index": None}
