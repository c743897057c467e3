"""A user's files that are in the way of a move are named, and nothing is changed."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from forkjoin.core.error import GitRefusedError
from forkjoin.git.merging import move_target
from support.branches import commit, contents, everything, put_raw, touch, write
from support.harness import git
from support.target_moves import AFTER, Target


def edit(here: Path) -> None:
    write(here, "shared.txt", "mine\n")


def stage(here: Path) -> None:
    edit(here)
    git(here, "add", ".")


def stage_and_put_back(here: Path) -> None:
    stage(here)
    write(here, "shared.txt", "one\ntwo\nthree\n")


def edit_a_deleted_file(here: Path) -> None:
    write(here, "old", "mine\n")


def delete(here: Path) -> None:
    (here / "shared.txt").unlink()


def stage_a_deletion(here: Path) -> None:
    git(here, "rm", "-q", "shared.txt")


def add_untracked(here: Path) -> None:
    write(here, "new/file", "mine\n")


def add_the_same_untracked(here: Path) -> None:
    write(here, "new/file", "new\n")


def add_a_file_for_a_folder(here: Path) -> None:
    write(here, "new", "mine\n")


def add_a_folder_for_a_file(here: Path) -> None:
    write(here, "new/file/deep", "mine\n")


def ignore(here: Path) -> None:
    (here / ".git" / "info" / "exclude").write_text("new\n")


def add_ignored(here: Path) -> None:
    ignore(here)
    write(here, "new/file", "mine\n")


def add_an_ignored_file_for_a_folder(here: Path) -> None:
    ignore(here)
    write(here, "new", "mine\n")


def add_an_ignored_link_for_a_folder(here: Path) -> None:
    ignore(here)
    (here / "new").symlink_to("..")


def add_an_ignored_folder_for_a_file(here: Path) -> None:
    ignore(here)
    write(here, "new/file/deep", "mine\n")


def add_a_repository_for_a_file(here: Path) -> None:
    ignore(here)
    git(here, "init", "-q", "new/file")
    commit(here / "new" / "file", {"deep": "mine"})


def add_an_ignored_folder_for_a_file_that_becomes_one(here: Path) -> None:
    (here / "flat").unlink()
    ignore(here)
    write(here, "flat", "mine\n")


@pytest.mark.parametrize(
    ("act", "path"),
    [
        (edit, "shared.txt"),
        (stage, "shared.txt"),
        (stage_and_put_back, "shared.txt"),
        (edit_a_deleted_file, "old"),
        (delete, "shared.txt"),
        (stage_a_deletion, "shared.txt"),
        (add_untracked, "new/file"),
        (add_the_same_untracked, "new/file"),
        (add_a_file_for_a_folder, "new"),
        (add_a_folder_for_a_file, "new/file/deep"),
        (add_ignored, "new/file"),
        (add_an_ignored_file_for_a_folder, "new"),
        (add_an_ignored_link_for_a_folder, "new"),
        (add_an_ignored_folder_for_a_file, "new/file/deep"),
        (add_a_repository_for_a_file, "new/file/"),
        (add_an_ignored_folder_for_a_file_that_becomes_one, "flat"),
    ],
)
async def test_a_file_in_the_way_is_named_and_nothing_changes(
    target: Target, act: Callable[[Path], None], path: str
) -> None:
    act(target.repository)
    git(target.repository, "status")
    before = everything(target.repository)
    assert path in await target.land()
    assert everything(target.repository) == before


async def test_exactly_the_files_in_the_way_are_named(target: Target) -> None:
    here = target.repository
    for name in ("shared.txt", "old", "other", "new/file", "new/other", "untracked"):
        write(here, name, "mine\n")
    assert await target.land() == ["new/file", "old", "shared.txt"]


async def test_files_in_the_way_with_special_names_are_escaped(target: Target) -> None:
    here = target.repository
    name = os.fsdecode(b"a'b\n\xff")
    new = commit(here, {name: "theirs"})
    git(here, "reset", "-q", "--hard", target.old)
    write(here, name, "mine")
    assert await replace(target, new=new).land() == ["a'b\\n\\xff"]


async def test_the_target_moves_once_the_file_in_the_way_is_restored(target: Target) -> None:
    edit(target.repository)
    assert await target.land() != []
    git(target.repository, "checkout", "-q", "shared.txt")
    assert await target.land() == []
    assert contents(target.repository) == AFTER


# -- files that git reports as modified although nobody has changed them


def make_dos_target(repository: Path) -> Target:
    """Return a target with three falsely changed files.

    The move changes one of them and deletes another.
    """
    commit(repository, {".gitattributes": "*.dos text\n"})
    for name in ("edited.dos", "gone.dos", "stays.dos"):
        put_raw(repository, name, b"one\r\n")
    old = git(repository, "rev-parse", "HEAD")
    git(repository, "rm", "-q", "-f", "gone.dos")
    new = commit(repository, {"edited.dos": "one\ntwo\n", "new": "x\n"})
    git(repository, "reset", "-q", "--hard", old)
    touch(repository)
    assert [line[3:] for line in Target(repository, old, new).status()] == ["edited.dos", "gone.dos", "stays.dos"]
    return Target(repository, old, new)


async def test_a_falsely_changed_file_is_not_in_the_way(repository: Path) -> None:
    target = make_dos_target(repository)
    write(repository, "README.md", "mine\n")
    assert await target.land() == []
    assert target.tip() == target.new
    assert target.status() == [" M README.md", " M stays.dos"]
    found = contents(repository)
    assert (found["edited.dos"], found["stays.dos"], found["README.md"]) == (b"one\ntwo\n", b"one\r\n", b"mine\n")
    assert "gone.dos" not in found


async def test_a_move_that_only_changes_line_ends_succeeds(repository: Path) -> None:
    target = make_dos_target(repository)
    git(repository, "add", "--renormalize", "edited.dos")
    git(repository, "commit", "-qm", "normalised")
    new = git(repository, "rev-parse", "HEAD")
    git(repository, "reset", "-q", "--hard", target.old)
    touch(repository)
    assert await replace(target, new=new).land() == []
    assert target.status() == [" M gone.dos", " M stays.dos"]


@pytest.mark.parametrize("stage", [False, True])
async def test_an_edited_falsely_changed_file_is_in_the_way(repository: Path, stage: bool) -> None:
    target = make_dos_target(repository)
    (repository / "edited.dos").write_bytes(b"mine\r\n")
    if stage:
        git(repository, "add", "edited.dos")
    git(repository, "status")
    before = everything(repository)
    assert await target.land() == ["edited.dos"]
    assert everything(repository) == before


async def test_falsely_changed_files_are_restored_if_the_ref_cannot_be_moved(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_dos_target(repository)
    before = contents(repository)

    async def refuse(*_: object, **__: object) -> None:
        raise GitRefusedError(["update-ref"], 1, "no")

    monkeypatch.setattr(move_target, "update_refs", refuse)
    with pytest.raises(GitRefusedError):
        await target.land()
    assert contents(repository) == before
    assert (target.tip(), len(target.status())) == (target.old, 3)
