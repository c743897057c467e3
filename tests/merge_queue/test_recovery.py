"""Recovery from an interrupted move: the move is rolled back, and the user's changes since then are kept.

Faults 2, 6, 19 and 20: the checkout is in the state before or after the move, never between.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from forkjoin.core.error import BrokenPromiseError
from forkjoin.git.merging.move_target import TargetMove
from forkjoin.git.worktrees.checkout import TargetMovedError
from forkjoin.merge_queue.recovery import settle_interrupted_move
from support.branches import OWNER, commit, contents, everything, put_git, write
from support.harness import git
from support.target_moves import CHANGES, Target, make_target


@pytest.fixture
def target(repository: Path) -> Target:
    """Return a target that is about to move, with a user's changes in other files."""
    made = make_target(repository)
    write(repository, "other", "edited\n")
    write(repository, "mine", "staged\n")
    git(repository, "add", "mine")
    write(repository, "notes", "untracked\n")
    return made


OWN = [" M other", "A  mine", "?? notes"]

# -- how far the interrupted move got


def some_files_moved(target: Target) -> None:
    leave_lock(target)
    write(target.repository, "shared.txt", CHANGES["shared.txt"])
    write(target.repository, "new/file", CHANGES["new/file"])
    (target.repository / "flat").unlink()


def all_files_moved(target: Target) -> None:
    index = target.repository / ".git" / "index"
    before = index.read_bytes()
    index_moved(target)
    index.write_bytes(before)


def index_moved(target: Target) -> None:
    git(target.repository, "read-tree", "-m", "-u", target.old, target.new)
    leave_lock(target)


def leave_lock(target: Target) -> None:
    (target.repository / ".git" / "index.lock").write_text(OWNER)


MOVED = [some_files_moved, all_files_moved, index_moved]

# -- what a person did after the interruption and after removing the lock. Each returns the git status to keep


def does_nothing(_: Target) -> list[str]:
    return OWN


def commits_what_is_staged(target: Target) -> list[str]:
    git(target.repository, "commit", "-qm", "person")
    return [" M other", "?? notes"]


def commits_everything(target: Target) -> list[str]:
    git(target.repository, "add", "--all")
    git(target.repository, "commit", "-qm", "person")
    return []


def switches(target: Target) -> list[str]:
    git(target.repository, "switch", "-qc", "side")
    return OWN


def detaches(target: Target) -> list[str]:
    git(target.repository, "switch", "-q", "--detach")
    return OWN


def resets(target: Target) -> list[str]:
    git(target.repository, "reset", "-q", "--hard", target.old)
    return ["?? notes"]


def edits(target: Target) -> list[str]:
    write(target.repository, "shared.txt", "one\n2\nthree\nand mine\n")
    return [" M other", " M shared.txt", "A  mine", "?? notes"]


def moves_the_branch(target: Target) -> list[str]:
    theirs = git(target.repository, "commit-tree", "-p", target.old, "-m", "theirs", f"{target.old}^{{tree}}")
    git(target.repository, "update-ref", "refs/heads/main", theirs)
    return OWN


def begins_a_merge(target: Target) -> list[str]:
    (target.repository / ".git" / "MERGE_HEAD").write_text(f"{target.new}\n")
    return OWN


PERSON = [
    *(does_nothing, commits_what_is_staged, commits_everything, switches, detaches, resets, edits),
    *(moves_the_branch, begins_a_merge),
]


@pytest.mark.parametrize("person", PERSON)
@pytest.mark.parametrize("moved", MOVED)
async def test_an_interrupted_move_is_rolled_back_and_a_persons_later_changes_are_kept(
    target: Target, moved: Callable[[Target], None], person: Callable[[Target], list[str]]
) -> None:
    moved(target)
    if person is not does_nothing:
        (target.repository / ".git" / "index.lock").unlink()
    own = person(target)
    head, tip = git(target.repository, "rev-parse", "HEAD"), target.tip()
    for _ in range(2):  # a daemon that dies in a rollback is followed by a daemon that repeats it
        assert not await target.settle_interrupted_move()
        assert sorted(target.status()) == sorted(own)
        assert (git(target.repository, "rev-parse", "HEAD"), target.tip()) == (head, tip)
        assert everything(target.repository)["locks"] == []
    folder = target.repository / ".git"
    assert [path.name for path in folder.iterdir() if path.name.startswith("forkjoin-")] == []


@pytest.mark.parametrize("moved", MOVED)
async def test_files_and_index_are_rolled_back_though_head_is_a_branch_without_commits(
    target: Target, moved: Callable[[Target], None]
) -> None:
    before = contents(target.repository)
    moved(target)
    git(target.repository, "symbolic-ref", "HEAD", "refs/heads/alone")
    assert not await target.settle_interrupted_move()
    git(target.repository, "symbolic-ref", "HEAD", "refs/heads/main")
    assert contents(target.repository) == before
    assert sorted(target.status()) == sorted(OWN)


async def test_a_rollback_keeps_a_persons_changes_to_other_files_byte_for_byte(target: Target) -> None:
    before = contents(target.repository)
    diffs = [git(target.repository, "diff", *cached) for cached in ((), ("--cached",))]
    index_moved(target)
    assert not await target.settle_interrupted_move()
    assert contents(target.repository) == before
    assert [git(target.repository, "diff", *cached) for cached in ((), ("--cached",))] == diffs


@pytest.mark.parametrize("left", [None, "", "one\n2"])
async def test_a_partly_written_file_is_rolled_back(target: Target, left: str | None) -> None:
    some_files_moved(target)
    write(target.repository, "shared.txt", left)
    assert not await target.settle_interrupted_move()
    assert (target.repository / "shared.txt").read_text() == "one\ntwo\nthree\n"
    assert sorted(target.status()) == sorted(OWN)


async def test_a_rollback_does_not_replace_what_a_person_put_in_place_of_a_file(target: Target) -> None:
    some_files_moved(target)
    here = target.repository
    (here / "shared.txt").unlink()
    (here / "shared.txt").symlink_to("/nowhere")
    write(here, "flat/own", "mine\n")
    (here / "new" / "file").unlink()
    (here / "new").rmdir()
    (here / "new").symlink_to(here.parent)
    assert not await target.settle_interrupted_move()
    assert (here / "shared.txt").readlink() == Path("/nowhere")
    assert (here / "flat/own").read_text() == "mine\n"
    assert (here / "new").is_symlink()


async def test_a_rollback_works_with_filters_and_line_ending_conversion(repository: Path) -> None:
    git(repository, "config", "--global", "filter.rot.clean", "tr a-z n-za-m")
    git(repository, "config", "--global", "filter.rot.smudge", "tr a-z n-za-m")
    commit(repository, {".gitattributes": "*.txt text eol=crlf\nnew/* filter=rot\n"})
    git(repository, "rm", "-q", "--cached", "shared.txt")
    git(repository, "reset", "-q", "--hard")
    target = make_target(repository)
    before = contents(repository)
    all_files_moved(target)
    assert (repository / "shared.txt").read_bytes() == b"one\r\n2\r\nthree\r\n"
    assert (repository / "new/file").read_text() == "new\n"
    assert not await target.settle_interrupted_move()
    assert contents(repository) == before
    assert target.status() == []


async def test_a_sparse_checkout_stays_sparse_in_a_rollback(target: Target) -> None:
    here = target.repository
    git(here, "sparse-checkout", "set", "--no-cone", "/other", "/mine", "/shared.txt")
    write(here, "shared.txt", CHANGES["shared.txt"])
    assert not await target.settle_interrupted_move()
    assert not (here / "old").exists()
    assert (here / "shared.txt").read_text() == "one\ntwo\nthree\n"
    assert sorted(target.status()) == sorted(OWN)


# -- where the checkout is now


async def linked(target: Target, where: Path) -> tuple[Target, TargetMove]:
    """Return the same move, half done in a linked worktree."""
    git(target.repository, "switch", "-qc", "side")
    git(target.repository, "worktree", "add", "-q", str(where), "main")
    inner = replace(target, repository=where)
    write(where, "shared.txt", CHANGES["shared.txt"])
    (where / "flat").unlink()
    folder = target.repository / ".git" / "worktrees" / where.name
    (folder / "index.lock").write_text(OWNER)
    return inner, TargetMove("refs/heads/main", target.old, target.new, str(where), "why", str(folder))


async def test_a_worktree_that_was_moved_to_another_folder_is_rolled_back(target: Target, tmp_path: Path) -> None:
    inner, move = await linked(target, tmp_path / "work")
    git(target.repository, "worktree", "move", str(tmp_path / "work"), str(tmp_path / "elsewhere"))
    assert not await settle_interrupted_move(target.common_dir, move, OWNER)
    moved = replace(inner, repository=tmp_path / "elsewhere")
    assert moved.status() == []
    assert everything(target.repository)["locks"] == []


@pytest.mark.parametrize("kind", ["removed", "deleted", "another"])
async def test_a_worktree_that_is_gone_needs_no_rollback(target: Target, tmp_path: Path, kind: str) -> None:
    _, move = await linked(target, tmp_path / "work")
    if kind == "deleted":
        shutil.rmtree(tmp_path / "work")
    else:
        git(target.repository, "worktree", "remove", "--force", "--force", str(tmp_path / "work"))
    if kind == "another":
        (tmp_path / "work").mkdir()
        write(tmp_path / "work", "shared.txt", CHANGES["shared.txt"])
    before = everything(target.repository)["files"], target.status()
    assert not await settle_interrupted_move(target.common_dir, move, OWNER)
    assert (everything(target.repository)["files"], target.status()) == before
    assert not (target.repository / ".git" / "index.lock").exists()
    if kind == "another":
        assert (tmp_path / "work" / "shared.txt").read_text() == CHANGES["shared.txt"]


# -- the target had moved


def commits_on_top(target: Target) -> None:
    git(target.repository, "commit", "-qm", "since")


@pytest.mark.parametrize("person", [does_nothing, commits_on_top, switches, detaches, begins_a_merge])
async def test_a_move_that_reached_the_target_counts_as_done(
    target: Target, person: Callable[[Target], object]
) -> None:
    assert await target.land() == []
    person(target)
    leave_lock(target)
    before = everything(target.repository)
    assert await target.settle_interrupted_move()
    assert everything(target.repository) == before | {"locks": []}


async def test_a_failing_git_does_not_decide_whether_the_target_moved(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await target.land()
    commit(target.repository, {"since": "x"})
    before = contents(target.repository)
    with monkeypatch.context() as patch:
        put_git(tmp_path / "bin", patch, 'case "$*" in *merge-base*) kill -9 $$; esac')
        with pytest.raises(BrokenPromiseError, match="A merge into main was interrupted"):
            await target.settle_interrupted_move()
    assert contents(target.repository) == before
    assert await target.settle_interrupted_move()


# -- a rollback that fails


async def test_files_that_can_not_be_rolled_back_now_are_named_and_rolled_back_later(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_files_moved(target)
    with monkeypatch.context() as patch:
        full = 'case "$*" in *checkout-index*) echo "fatal: No space left on device" >&2; exit 128; esac'
        put_git(tmp_path / "bin", patch, full)
        with pytest.raises(BrokenPromiseError, match=r"No space left on device\. They are among .*shared\.txt"):
            await target.settle_interrupted_move()
    assert not await target.settle_interrupted_move()
    assert sorted(target.status()) == sorted(OWN)


async def test_a_move_stops_if_a_person_removes_its_index_lock(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_there = f"env -u GIT_INDEX_FILE git -C {target.repository}"
    person = f"rm {target.repository}/.git/index.lock; {git_there} add notes"
    wrapper = f'case "$* " in *" -u -n "*) ;; *" read-tree -m -u {target.old} "*) {person};; esac'
    with monkeypatch.context() as patch:
        put_git(tmp_path / "bin", patch, wrapper)
        with pytest.raises(TargetMovedError):
            await target.land()
    assert target.tip() == target.old
    assert sorted(target.status()) == [" M other", "A  mine", "A  notes"]
