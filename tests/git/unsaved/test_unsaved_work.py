"""Unsaved work in repositories nested in a worktree: what counts as saved elsewhere, and what does not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.git.unsaved.unsaved_work import archive_unsaved, find_unsaved_work
from support.branches import GIT_VERSION, Fork, commit, make_fork, put_counting_git, run_bound
from support.harness import git
from support.small_disk import fill, small_disk
from support.unsaved_work import WORK, describe_unsaved, make_repository


async def test_work_in_a_repository_of_the_agent_is_unsaved(fork: Fork) -> None:
    for number, work in enumerate(WORK):
        work(make_repository(fork.path / f"own-{number}"))
    assert sorted(await describe_unsaved(fork)) == [
        f"own-{number} ({what})" for number, what in enumerate(WORK.values())
    ]


async def test_work_in_a_repository_in_an_ignored_folder_is_unsaved(fork: Fork) -> None:
    commit(fork.path, {".gitignore": "deep/\n"})
    make_repository(fork.path / "deep" / "own", {"a": "x"})
    assert await describe_unsaved(fork) == ["deep/own (1 commit)"]


async def test_an_empty_repository_holds_no_work(fork: Fork) -> None:
    make_repository(fork.path / "own")
    assert await describe_unsaved(fork) == []


async def test_a_worktree_without_repositories_takes_no_call_of_git(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fork.path / "d").mkdir()
    (fork.path / "d" / "new").touch()
    log = put_counting_git(tmp_path / "bin", monkeypatch, everything=True)
    assert await describe_unsaved(fork) == []
    assert log.read_text() == ""


@pytest.mark.parametrize("how", ["", "--depth=1 --branch=off", "--branch=off"])
async def test_a_clean_clone_is_elsewhere(fork: Fork, library: Path, how: str) -> None:
    git(library, "tag", "off", git(library, "commit-tree", "-p", "HEAD", "-m", "off", "HEAD^{tree}"))
    git(fork.path, "clone", "-q", *how.split(), f"file://{library}", "node_modules/lib")
    (fork.path / "node_modules" / "lib" / ".cargo-ok").touch()
    assert await describe_unsaved(fork) == []
    commit(fork.path / "node_modules" / "lib", {"a": "x"})
    assert await describe_unsaved(fork) == ["node_modules/lib (1 commit)"]
    git(fork.path / "node_modules" / "lib", "push", "-q", "origin", "HEAD:refs/heads/new")
    git(fork.path / "node_modules" / "lib", "update-ref", "refs/remotes/origin/new", "HEAD")
    assert await describe_unsaved(fork) == []


@pytest.mark.parametrize(
    "how", ["--shared {own}", "--reference {lent} file://{library}", "--filter=tree:0 file://{library}"]
)
async def test_a_clean_clone_that_has_not_all_its_objects_is_elsewhere(
    fork: Fork, library: Path, tmp_path: Path, how: str
) -> None:
    git(library, "config", "uploadpack.allowFilter", "true")
    git(library, "clone", "-q", "--shared", ".", str(tmp_path / "lent"))
    git(
        fork.path,
        "clone",
        "-q",
        *how.format(own=fork.common_dir, library=library, lent=tmp_path / "lent").split(),
        "in",
    )
    assert await describe_unsaved(fork) == []
    commit(fork.path / "in", {"a": "x"})
    assert await describe_unsaved(fork) == ["in (1 commit)"]


@pytest.mark.parametrize("lent", ["pipe", "chain", "odd"])
async def test_a_repository_that_borrows_objects_from_what_can_not_be_read_safely_is_not_read(
    fork: Fork, library: Path, tmp_path: Path, lent: str
) -> None:
    git(fork.path, "clone", "-q", "--shared", str(library), "in")
    alternates = fork.path / "in" / ".git" / "objects" / "info" / "alternates"
    place = tmp_path / lent / "objects"
    (place / "info").mkdir(parents=True)
    if lent == "pipe":
        os.mkfifo(place / "pack")
    if lent == "chain":
        os.mkfifo(place / "info" / "alternates")
    if lent == "odd":
        place = place.rename(place.parent / "other")
    alternates.write_text(f"{alternates.read_text()}{place}\n")
    (one,) = await describe_unsaved(fork)
    assert "can't be read" in one


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
async def test_changes_that_git_was_told_not_to_see_are_found(fork: Fork, library: Path, flag: str) -> None:
    git(fork.path, "clone", "-q", str(library), "in")
    git(fork.path / "in", "update-index", flag, "lib.txt")
    assert await describe_unsaved(fork) == []
    (fork.path / "in" / "lib.txt").write_text("mine\n")
    assert await describe_unsaved(fork) == ["in (1 uncommitted path)"]


async def test_a_copy_of_a_worktree_within_is_looked_at_too(fork: Fork) -> None:
    git(fork.path, "worktree", "add", "-q", "--detach", "in")
    shutil.copytree(fork.path / "in", fork.path / "copy")
    (fork.path / "copy" / "x").write_text("mine\n")
    assert await describe_unsaved(fork) == ["copy (1 uncommitted path)"]


@pytest.mark.parametrize("copied", ["own", "clone"])
async def test_each_folder_with_a_copy_of_a_git_link_is_looked_at(fork: Fork, library: Path, copied: str) -> None:
    git(library, "clone", "-q", f"--separate-git-dir={fork.path}/folder", str(library), str(fork.path / "in"))
    for name in ("a", "b"):
        shutil.copytree(library, fork.path / name, ignore=shutil.ignore_patterns(".git"))
        shutil.copy((fork.path if copied == "own" else fork.path / "in") / ".git", fork.path / name)
        (fork.path / name / "new").write_text("mine\n")
    assert {one.partition(" ")[0] for one in await describe_unsaved(fork)} == {"a", "b"}


async def test_each_copy_of_a_repository_is_looked_at(fork: Fork) -> None:
    make_repository(fork.path / "a", {"a": "x"})
    shutil.copytree(fork.path / "a", fork.path / "b")
    assert sorted(await describe_unsaved(fork)) == ["a (1 commit)", "b (1 commit)"]


async def test_what_a_rebase_has_stashed_is_work(fork: Fork, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(library, {"b": "x"})
    git(fork.path, "clone", "-q", str(library), "in")
    (fork.path / "in" / "lib.txt").write_text("mine\n")
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", "sed -i s/^pick/edit/")
    git(fork.path / "in", "rebase", "-q", "-i", "--autostash", "HEAD~1", check=False)
    assert (fork.path / "in" / "lib.txt").read_text() == "x\n"
    assert await describe_unsaved(fork) == ["in (2 commits)"]


@pytest.mark.skipif(GIT_VERSION < (2, 45), reason="git knows no reftable")
async def test_commits_off_a_branch_are_work_in_a_repository_with_reftables(fork: Fork, library: Path) -> None:
    git(fork.path, "clone", "-q", "--ref-format=reftable", str(library), "in")
    git(fork.path / "in", "checkout", "-q", "--detach")
    assert await describe_unsaved(fork) == []
    commit(fork.path / "in", {"a": "x"})
    assert await describe_unsaved(fork) == ["in (1 commit)"]
    git(fork.path / "in", "checkout", "-q", "main")
    assert await describe_unsaved(fork) == ["in (1 commit)"]


async def test_a_tag_that_came_with_a_clone_is_elsewhere_and_one_made_there_is_not(fork: Fork, library: Path) -> None:
    git(library, "tag", "-am", "off", "off", git(library, "commit-tree", "-p", "HEAD", "-m", "off", "HEAD^{tree}"))
    clone = fork.path / "clone"
    git(fork.path, "clone", "-q", str(library), "clone")
    git(clone, "checkout", "-q", "off")
    assert await describe_unsaved(fork) == []
    commit(clone, {"a": "x"})
    git(clone, "tag", "-am", "own", "own")
    git(clone, "checkout", "-q", "main")
    assert await describe_unsaved(fork) == ["clone (1 commit)"]


async def test_a_commit_that_only_a_log_has_is_work_unless_it_was_amended(fork: Fork, library: Path) -> None:
    git(fork.path, "clone", "-q", str(library), "clone")
    clone = fork.path / "clone"
    git(clone, "checkout", "-q", "--detach")
    commit(clone, {"a": "x"})
    git(clone, "commit", "-q", "--amend", "-m", "amended")
    git(clone, "update-ref", "refs/remotes/origin/new", "HEAD")
    git(clone, "checkout", "-q", "main")
    assert await describe_unsaved(fork) == []
    git(clone, "update-ref", "-d", "refs/remotes/origin/new")
    assert await describe_unsaved(fork) == ["clone (1 commit)"]


async def test_a_commit_or_stash_that_only_a_log_has_is_work_whatever_its_message_is(fork: Fork, library: Path) -> None:
    git(library, "commit", "-q", "--allow-empty", "-m", "Do: fast-forward")
    git(fork.path, "clone", "-q", str(library), "clone")
    clone = fork.path / "clone"
    git(clone, "checkout", "-q", "--detach")
    git(clone, "commit", "-q", "--allow-empty", "-m", "Mend the fast-forward")
    git(clone, "checkout", "-q", "main")
    assert await describe_unsaved(fork) == ["clone (1 commit)"]
    git(clone, "update-ref", "refs/remotes/origin/new", "HEAD@{1}")
    for text in ("first", "second"):
        (clone / "lib.txt").write_text(text)
        git(clone, "stash", "-q")
    git(clone, "update-ref", "refs/remotes/origin/stash", "stash@{0}")
    (first_stash,) = await describe_unsaved(fork)
    assert "commit" in first_stash


async def test_a_bare_repository_and_one_in_another_are_found(fork: Fork, library: Path) -> None:
    git(fork.path, "clone", "-q", str(library), "outer")
    git(fork.path, "init", "-q", "--bare", "outer/x/bare.git")
    git(library, "push", "-q", str(fork.path / "outer" / "x" / "bare.git"), "main")
    (fork.path / "outer" / ".git" / "info" / "exclude").write_text("x/\n")
    assert await describe_unsaved(fork) == ["outer/x/bare.git (1 commit)"]


async def test_repositories_that_are_each_others_remotes_are_nowhere_else(fork: Fork) -> None:
    one = make_repository(fork.path / "one", {"a": "x"})
    git(fork.path, "clone", "-q", "one", "two")
    git(one, "remote", "add", "two", "../two")
    git(one, "fetch", "-q", "two")
    assert sorted(await describe_unsaved(fork)) == ["one (1 commit)", "two (1 commit)"]


async def test_a_clone_of_the_worktree_is_elsewhere(fork: Fork) -> None:
    git(fork.path, "clone", "-q", str(fork.path), "clone")
    assert await describe_unsaved(fork) == []


@pytest.mark.parametrize("bare", ["--bare", "--no-bare"])
async def test_the_commit_that_the_agent_began_at_is_elsewhere(fork: Fork, bare: str) -> None:
    git(fork.path, "init", "-q", bare, "remote")
    git(fork.path, "push", "-q", "remote", "HEAD:refs/heads/pushed")
    assert await describe_unsaved(fork) == []


@pytest.mark.parametrize("form", ["--object-format=sha256", "--ref-format=reftable"])
async def test_a_repository_of_another_format_is_read(fork: Fork, form: str) -> None:
    if "reftable" in form and GIT_VERSION < (2, 45):
        pytest.skip("this git has no reftable")
    git(fork.path, "init", "-q", form, "inner")
    assert await describe_unsaved(fork) == []
    commit(fork.path / "inner", {"a": "x"})
    (fork.path / "inner" / "b").write_text("y")
    assert await describe_unsaved(fork) == ["inner (1 commit and 1 uncommitted path)"]


async def test_a_folder_that_cannot_be_read_is_unsaved(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    (fork.path / "closed").mkdir()
    for name in ("scandir", "listdir"):
        really = getattr(os, name)

        def read(path: str | Path, really: Callable[[str | Path], object] = really) -> object:
            if str(path).endswith("/closed"):
                raise PermissionError(13, "Permission denied", str(path))
            return really(path)

        monkeypatch.setattr(os, name, read)
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    assert [str(one) for one in unsaved] == ["closed (a folder that can't be read)"]
    with pytest.raises(CallerError, match="closed can't be archived: Permission denied"):
        await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")


async def test_a_full_disk_is_told_of_and_keeps_nothing(tmp_path: Path, user: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        git(disk, "init", "-q", "repository")
        commit(disk / "repository", {"a": "x"})
        fork = await make_fork(disk / "repository")
        commit(make_repository(fork.path / "inner"), {"a": "x"})
        unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
        fill(disk)
        with pytest.raises(CallerError, match=f"the disk of {fork.common_dir} is full; free some space"):
            await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
        assert git(fork.path, "for-each-ref", "refs/forkjoin") == ""


_FIND = """
import anyio, pathlib
from forkjoin.git.unsaved.unsaved_work import find_unsaved_work
print(*anyio.run(find_unsaved_work, {0!r}, pathlib.Path({1!r}), {2!r}))
"""


@pytest.mark.parametrize(
    ("closed", "mode", "said"),
    [
        ("worktrees/a1-left/build/listed", 0o600, "build/listed (a folder that can't be read)"),
        ("worktrees/a1-left/build/inner/.git", 0, "build/inner/.git (a folder that can't be read)"),
        ("elsewhere/.git/worktrees/inner", 0, "build/inner (a repository that can't be read: "),
        ("elsewhere", 0, "build/inner/.git (a folder that can't be read)"),
    ],
)
async def test_what_can_t_be_looked_at_is_not_taken_for_gone(
    repository: Path, tmp_path: Path, closed: str, mode: int, said: str
) -> None:
    commit(repository, {".gitignore": "build/\n"})
    fork = await make_fork(repository)
    (fork.path / "build" / "listed").mkdir(parents=True)
    (fork.path / "build" / "listed" / "file").touch()
    elsewhere = make_repository(tmp_path / "elsewhere", {"a": "x"})
    git(elsewhere, "worktree", "add", "-q", str(fork.path / "build" / "inner"))
    (fork.path / "build" / "inner" / "loose").touch()
    path = tmp_path / closed
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        assert said in run_bound(_FIND.format(fork.common_dir, str(fork.path), fork.base))
    finally:
        path.chmod(before)
