"""What goes with a worktree and is nowhere else: nested repositories, worktrees and submodules are found and kept."""

import os
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.git import folder_archive
from forkjoin.git.unsaved.unsaved_work import archive_unsaved, find_unsaved_work
from forkjoin.git.worktrees import worktree
from forkjoin.git.worktrees.worktree_folder import git_folders
from support.branches import GIT_VERSION, Fork, blob, commit, make_fork, put_counting_git, run_bound
from support.harness import git
from support.small_disk import fill, small_disk

ALLOW = ("-c", "protocol.file.allow=always")


async def found(fork: Fork) -> list[str]:
    return [str(one) for one in await find_unsaved_work(fork.common_dir, fork.path, fork.base)]


def make_repository(path: Path, files: dict[str, str | None] | None = None) -> Path:
    path.mkdir(parents=True)
    git(path, "init", "-q")
    if files:
        commit(path, files)
    return path


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A repository from which others are cloned."""
    return make_repository(tmp_path / "library", {"lib.txt": "x\n"})


@pytest.fixture
async def with_submodule(repository: Path, library: Path) -> Fork:
    """An agent's worktree in which a submodule is ready."""
    git(repository, *ALLOW, "submodule", "add", "-q", str(library), "lib")
    git(repository, "commit", "-qm", "with a submodule")
    fork = await make_fork(repository)
    git(fork.path, *ALLOW, "submodule", "update", "-q", "--init")
    return fork


def _commits(path: Path) -> None:
    commit(path, {"a": "x"})


def _stages(path: Path) -> None:
    (path / "a").write_text("x")
    git(path, "add", "a")


def _writes(path: Path) -> None:
    (path / "a").write_text("x")


def _stashes(path: Path) -> None:
    commit(path, {"a": "x"})
    git(path, "branch", "-f", "pushed")
    git(path, "update-ref", "refs/remotes/origin/main", "HEAD")
    (path / "a").write_text("y")
    git(path, "stash", "-q")


WORK = {_commits: "1 commit", _stages: "1 uncommitted path", _writes: "1 uncommitted path", _stashes: "2 commits"}


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize(("work", "what"), WORK.items())
async def test_a_repository_made_in_the_worktree_is_unsaved(
    fork: Fork, work: Callable[[Path], None], what: str, ignored: bool
) -> None:
    if ignored:
        commit(fork.path, {".gitignore": "deep/\n"})
    work(make_repository(fork.path / "deep" / "own"))
    assert await found(fork) == [f"deep/own ({what})"]


async def test_an_empty_repository_holds_no_work(fork: Fork) -> None:
    make_repository(fork.path / "own")
    assert await found(fork) == []


async def test_a_worktree_without_repositories_takes_no_call_of_git(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fork.path / "d").mkdir()
    (fork.path / "d" / "new").touch()
    log = put_counting_git(tmp_path / "bin", monkeypatch, everything=True)
    assert await found(fork) == []
    assert log.read_text() == ""


@pytest.mark.parametrize("how", ["", "--depth=1", "--depth=1 --branch=off", "--branch=off", "--single-branch"])
async def test_a_clean_clone_is_elsewhere(fork: Fork, library: Path, how: str) -> None:
    git(library, "tag", "off", git(library, "commit-tree", "-p", "HEAD", "-m", "off", "HEAD^{tree}"))
    git(fork.path, "clone", "-q", *how.split(), f"file://{library}", "node_modules/lib")
    (fork.path / "node_modules" / "lib" / ".cargo-ok").touch()
    assert await found(fork) == []
    commit(fork.path / "node_modules" / "lib", {"a": "x"})
    assert await found(fork) == ["node_modules/lib (1 commit)"]
    git(fork.path / "node_modules" / "lib", "push", "-q", "origin", "HEAD:refs/heads/new")
    git(fork.path / "node_modules" / "lib", "update-ref", "refs/remotes/origin/new", "HEAD")
    assert await found(fork) == []


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
    assert await found(fork) == []
    commit(fork.path / "in", {"a": "x"})
    assert await found(fork) == ["in (1 commit)"]


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
    (one,) = await found(fork)
    assert "can't be read" in one


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
async def test_changes_that_git_was_told_not_to_see_are_found(fork: Fork, library: Path, flag: str) -> None:
    git(fork.path, "clone", "-q", str(library), "in")
    git(fork.path / "in", "update-index", flag, "lib.txt")
    assert await found(fork) == []
    (fork.path / "in" / "lib.txt").write_text("mine\n")
    assert await found(fork) == ["in (1 uncommitted path)"]


async def test_a_copy_of_a_worktree_within_is_looked_at_too(fork: Fork) -> None:
    git(fork.path, "worktree", "add", "-q", "--detach", "in")
    shutil.copytree(fork.path / "in", fork.path / "copy")
    (fork.path / "copy" / "x").write_text("mine\n")
    assert await found(fork) == ["copy (1 uncommitted path)"]


@pytest.mark.parametrize("copied", ["own", "clone"])
async def test_each_folder_with_a_copy_of_a_git_link_is_looked_at(fork: Fork, library: Path, copied: str) -> None:
    git(library, "clone", "-q", f"--separate-git-dir={fork.path}/folder", str(library), str(fork.path / "in"))
    for name in ("a", "b"):
        shutil.copytree(library, fork.path / name, ignore=shutil.ignore_patterns(".git"))
        shutil.copy((fork.path if copied == "own" else fork.path / "in") / ".git", fork.path / name)
        (fork.path / name / "new").write_text("mine\n")
    assert {one.partition(" ")[0] for one in await found(fork)} == {"a", "b"}


async def test_each_copy_of_a_repository_is_looked_at(fork: Fork) -> None:
    make_repository(fork.path / "a", {"a": "x"})
    shutil.copytree(fork.path / "a", fork.path / "b")
    assert sorted(await found(fork)) == ["a (1 commit)", "b (1 commit)"]


async def test_what_a_rebase_has_stashed_is_work(fork: Fork, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(library, {"b": "x"})
    git(fork.path, "clone", "-q", str(library), "in")
    (fork.path / "in" / "lib.txt").write_text("mine\n")
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", "sed -i s/^pick/edit/")
    git(fork.path / "in", "rebase", "-q", "-i", "--autostash", "HEAD~1", check=False)
    assert (fork.path / "in" / "lib.txt").read_text() == "x\n"
    assert await found(fork) == ["in (2 commits)"]


@pytest.mark.skipif(GIT_VERSION < (2, 45), reason="git knows no reftable")
async def test_commits_off_a_branch_are_work_in_a_repository_with_reftables(fork: Fork, library: Path) -> None:
    git(fork.path, "clone", "-q", "--ref-format=reftable", str(library), "in")
    git(fork.path / "in", "checkout", "-q", "--detach")
    assert await found(fork) == []
    commit(fork.path / "in", {"a": "x"})
    assert await found(fork) == ["in (1 commit)"]
    git(fork.path / "in", "checkout", "-q", "main")
    assert await found(fork) == ["in (1 commit)"]


async def test_a_tag_that_came_with_a_clone_is_elsewhere_and_one_made_there_is_not(fork: Fork, library: Path) -> None:
    git(library, "tag", "-am", "off", "off", git(library, "commit-tree", "-p", "HEAD", "-m", "off", "HEAD^{tree}"))
    clone = fork.path / "clone"
    git(fork.path, "clone", "-q", str(library), "clone")
    git(clone, "checkout", "-q", "off")
    assert await found(fork) == []
    commit(clone, {"a": "x"})
    git(clone, "tag", "-am", "own", "own")
    git(clone, "checkout", "-q", "main")
    assert await found(fork) == ["clone (1 commit)"]


async def test_a_commit_that_only_a_log_has_is_work_unless_it_was_amended(fork: Fork, library: Path) -> None:
    git(fork.path, "clone", "-q", str(library), "clone")
    clone = fork.path / "clone"
    git(clone, "checkout", "-q", "--detach")
    commit(clone, {"a": "x"})
    git(clone, "commit", "-q", "--amend", "-m", "amended")
    git(clone, "update-ref", "refs/remotes/origin/new", "HEAD")
    git(clone, "checkout", "-q", "main")
    assert await found(fork) == []
    git(clone, "update-ref", "-d", "refs/remotes/origin/new")
    assert await found(fork) == ["clone (1 commit)"]


async def test_a_commit_or_stash_that_only_a_log_has_is_work_whatever_its_message_is(fork: Fork, library: Path) -> None:
    git(library, "commit", "-q", "--allow-empty", "-m", "Do: fast-forward")
    git(fork.path, "clone", "-q", str(library), "clone")
    clone = fork.path / "clone"
    git(clone, "checkout", "-q", "--detach")
    git(clone, "commit", "-q", "--allow-empty", "-m", "Mend the fast-forward")
    git(clone, "checkout", "-q", "main")
    assert await found(fork) == ["clone (1 commit)"]
    git(clone, "update-ref", "refs/remotes/origin/new", "HEAD@{1}")
    for text in ("first", "second"):
        (clone / "lib.txt").write_text(text)
        git(clone, "stash", "-q")
    git(clone, "update-ref", "refs/remotes/origin/stash", "stash@{0}")
    (first_stash,) = await found(fork)
    assert "commit" in first_stash


async def test_a_bare_repository_and_one_in_another_are_found(fork: Fork, library: Path) -> None:
    git(fork.path, "clone", "-q", str(library), "outer")
    git(fork.path, "init", "-q", "--bare", "outer/x/bare.git")
    git(library, "push", "-q", str(fork.path / "outer" / "x" / "bare.git"), "main")
    (fork.path / "outer" / ".git" / "info" / "exclude").write_text("x/\n")
    assert await found(fork) == ["outer/x/bare.git (1 commit)"]


async def test_repositories_that_are_each_others_remotes_are_nowhere_else(fork: Fork) -> None:
    one = make_repository(fork.path / "one", {"a": "x"})
    git(fork.path, "clone", "-q", "one", "two")
    git(one, "remote", "add", "two", "../two")
    git(one, "fetch", "-q", "two")
    assert sorted(await found(fork)) == ["one (1 commit)", "two (1 commit)"]


async def test_a_clone_of_the_worktree_is_elsewhere(fork: Fork) -> None:
    git(fork.path, "clone", "-q", str(fork.path), "clone")
    assert await found(fork) == []


@pytest.mark.parametrize("bare", ["--bare", "--no-bare"])
async def test_the_commit_that_the_agent_began_at_is_elsewhere(fork: Fork, bare: str) -> None:
    git(fork.path, "init", "-q", bare, "remote")
    git(fork.path, "push", "-q", "remote", "HEAD:refs/heads/pushed")
    assert await found(fork) == []


@pytest.mark.parametrize("form", ["--object-format=sha256", "--ref-format=reftable"])
async def test_a_repository_of_another_format_is_read(fork: Fork, form: str) -> None:
    if "reftable" in form and GIT_VERSION < (2, 45):
        pytest.skip("this git has no reftable")
    git(fork.path, "init", "-q", form, "inner")
    assert await found(fork) == []
    commit(fork.path / "inner", {"a": "x"})
    (fork.path / "inner" / "b").write_text("y")
    assert await found(fork) == ["inner (1 commit and 1 uncommitted path)"]


async def test_a_folder_that_cannot_be_read_is_unsaved(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    (fork.path / "closed").mkdir()
    really = os.scandir

    def scan(path: str | Path) -> object:
        if str(path).endswith("/closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(os, "scandir", scan)
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


# -- worktrees


@pytest.mark.parametrize("work", ["commit", "file", "both", "nothing", "a commit on a branch"])
async def test_a_worktree_within_is_unsaved_by_its_head_and_files(fork: Fork, work: str) -> None:
    commit(fork.path, {".gitignore": ".claude/\n"})
    inner = fork.path / ".claude" / "worktrees" / "x"
    git(fork.path, "worktree", "add", "-q", *(["-b", "x"] if "branch" in work else ["--detach"]), str(inner))
    done = commit(inner, {"a": "x"}) if "commit" in work or work == "both" else fork.base
    if work in ("file", "both"):
        (inner / "b").write_text("y")
    said = {"commit": "1 commit", "file": "1 uncommitted path", "both": "1 commit and 1 uncommitted path"}.get(work)
    assert await found(fork) == ([f".claude/worktrees/x ({said})"] if said else [])
    if work == "both":
        unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
        kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
        assert git(fork.repository, "merge-base", "--is-ancestor", done, kept) == ""
    await worktree.remove(fork.common_dir, fork.path)
    assert list(git_folders(fork.common_dir)) == []


async def test_a_worktree_within_whose_files_are_gone_has_its_head_still(fork: Fork) -> None:
    git(fork.path, "worktree", "add", "-q", "--detach", "inner")
    commit(fork.path / "inner", {"a": "x"})
    worktree.take_away(fork.path / "inner")
    assert [one.rpartition(" (")[2] for one in await found(fork)] == ["1 commit)"]


async def test_files_of_a_worktree_that_git_knows_no_more_are_unsaved(fork: Fork) -> None:
    worktree.take_away(fork.folder)
    assert await found(fork) == [". (files of a worktree that git no longer knows)"]


async def test_a_git_folder_in_place_of_the_worktrees_own_link_is_unsaved(fork: Fork) -> None:
    (fork.path / ".git").unlink()
    git(fork.path, "init", "-q")
    assert await found(fork) == []
    commit(fork.path, {"a": "x"})
    assert await found(fork) == [".git (1 commit)"]


# -- submodules


async def test_a_submodule_as_it_came_is_elsewhere(with_submodule: Fork) -> None:
    assert await found(with_submodule) == []


@pytest.mark.parametrize(("work", "what"), WORK.items())
async def test_work_in_a_submodule_is_unsaved(with_submodule: Fork, work: Callable[[Path], None], what: str) -> None:
    work(with_submodule.path / "lib")
    assert await found(with_submodule) == [f"lib ({what})"]


async def test_commits_of_a_submodule_whose_folder_was_deleted_are_unsaved(with_submodule: Fork) -> None:
    fork = with_submodule
    commit(fork.path / "lib", {"a": "x"})
    worktree.take_away(fork.path / "lib")
    assert await found(fork) == ["modules/lib (1 commit)"]
    worktree.take_away(fork.path)
    assert await found(fork) == ["modules/lib (1 commit)"]


async def test_what_the_checkouts_own_submodule_has_is_elsewhere(with_submodule: Fork) -> None:
    fork = with_submodule
    done = commit(fork.path / "lib", {"a": "x"})
    git(fork.repository / "lib", *ALLOW, "fetch", "-q", str(fork.path / "lib"), f"{done}:refs/heads/theirs")
    assert await found(fork) == []


async def test_a_commit_that_the_base_names_is_not_the_agents(repository: Path, library: Path) -> None:
    git(repository, *ALLOW, "submodule", "add", "-q", str(library), "lib")
    git(repository / "lib", "checkout", "-q", "--detach")
    commit(repository / "lib", {"a": "x"})
    git(repository, "add", "lib")
    git(repository, "commit", "-qm", "at what is pushed nowhere")
    fork = await make_fork(repository)
    git(fork.path, *ALLOW, "clone", "-q", str(repository / ".git" / "modules" / "lib"), "lib")
    git(fork.path / "lib", "checkout", "-q", "--detach", git(repository / "lib", "rev-parse", "HEAD"))
    git(fork.path / "lib", "update-ref", "-d", "refs/remotes/origin/main")
    git(fork.path / "lib", "update-ref", "-d", "refs/remotes/origin/HEAD")
    assert await found(fork) == []


async def test_files_in_the_place_of_a_submodule_that_is_none_are_unsaved(repository: Path, library: Path) -> None:
    git(repository, *ALLOW, "submodule", "add", "-q", str(library), "lib")
    git(repository, "commit", "-qm", "with a submodule")
    fork = await make_fork(repository)
    assert await found(fork) == []
    (fork.path / "lib" / "a").write_text("x")
    assert git(fork.path, "status", "--porcelain") == ""
    assert await found(fork) == ["lib (files in the place of a submodule)"]


@pytest.mark.parametrize("kind", ["clone", "worktree"])
async def test_files_in_the_place_of_a_nested_repositorys_submodule_are_unsaved(
    fork: Fork, library: Path, tmp_path: Path, kind: str
) -> None:
    outer = make_repository(tmp_path / "outer")
    git(outer, *ALLOW, "submodule", "add", "-q", str(library), "lib")
    git(outer, "commit", "-qm", "with a submodule")
    git(fork.path, "clone", "-q", str(outer), "clone")
    git(fork.path / "clone", "worktree", "add", "-q", "--detach", "../worktree")
    assert await found(fork) == []
    (fork.path / kind / "lib" / "a").write_text("x")
    assert git(fork.path / kind, "status", "--porcelain") == ""
    assert await found(fork) == [f"{kind}/lib (files in the place of a submodule)"]
    git(fork.path / kind, *ALLOW, "clone", "-q", str(library), "new")
    (fork.path / kind / "lib" / "a").unlink()
    (fork.path / kind / "lib").rmdir()
    (fork.path / kind / "new").rename(fork.path / kind / "lib")
    assert await found(fork) == []


# -- refs of a worktree alone


REFS = ["refs/worktree/remotes/kept", "refs/bisect/bad", "refs/rewritten/onto"]


@pytest.fixture(params=["files", "reftable"])
async def any_fork(request: pytest.FixtureRequest, tmp_path: Path) -> Fork:
    """An agent's worktree in a repository with refs of either form."""
    if request.param == "reftable" and GIT_VERSION < (2, 45):
        pytest.skip("git knows no reftable")
    form = [] if request.param == "files" else ["--ref-format=reftable"]
    (tmp_path / "of").mkdir()
    git(tmp_path / "of", "init", "-q", *form, "repository")
    commit(tmp_path / "of" / "repository", {"a": "x"})
    return await make_fork(tmp_path / "of" / "repository")


@pytest.mark.parametrize("ref", REFS)
async def test_commits_that_only_a_ref_of_the_worktree_has_are_unsaved(any_fork: Fork, ref: str) -> None:
    fork = any_fork
    git(fork.path, "update-ref", ref, fork.base)
    assert await found(fork) == []
    made = git(fork.path, "commit-tree", "-p", "HEAD", "-m", "off", "HEAD^{tree}")
    git(fork.path, "update-ref", ref, made)
    assert await found(fork) == [f"{ref} (commits that no branch has)"]
    kept = await archive_unsaved(
        fork.common_dir, fork.path, await find_unsaved_work(fork.common_dir, fork.path, fork.base), "a1-left"
    )
    assert git(fork.repository, "merge-base", "--is-ancestor", made, kept) == ""
    git(fork.path, "branch", "-f", "saved", made)
    assert await found(fork) == []


async def test_a_ref_of_the_worktree_that_leads_nowhere_is_unsaved(fork: Fork) -> None:
    (fork.folder / "refs" / "worktree").mkdir(parents=True)
    (fork.folder / "refs" / "worktree" / "x").write_text(f"{'1' * 40}\n")
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    assert [one.name for one in unsaved] == ["refs"]
    assert await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")


@pytest.mark.skipif(GIT_VERSION < (2, 45), reason="git knows no reftable")
@pytest.mark.parametrize("owner", ["own", "clone"])
@pytest.mark.parametrize("held", ["HEAD", "the log of HEAD", "refs/worktree/x"])
async def test_commits_of_a_nested_worktree_alone_are_unsaved_with_reftables(
    tmp_path: Path, library: Path, owner: str, held: str
) -> None:
    git(tmp_path, "clone", "-q", "--ref-format=reftable", str(library), "repository")
    fork = await make_fork(tmp_path / "repository")
    git(fork.path, "clone", "-q", "--ref-format=reftable", str(library), "clone")
    of = fork.path if owner == "own" else fork.path / "clone"
    git(of, "worktree", "add", "-q", "--detach", str(fork.path / "in"))
    assert await found(fork) == []
    if held == "refs/worktree/x":
        made = git(fork.path / "in", "commit-tree", "-p", "HEAD", "-m", "off", "HEAD^{tree}")
        git(fork.path / "in", "update-ref", held, made)
    else:
        commit(fork.path / "in", {"a": "x"})
    if held == "the log of HEAD":
        git(fork.path / "in", "checkout", "-q", "--detach", "HEAD~")
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    assert [str(one) for one in unsaved] == ["in (1 commit)"]
    kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    with tarfile.open(fileobj=BytesIO(blob(fork.repository, kept, "files.tar"))) as tar:
        assert ("a1-left/clone/.git/objects" in tar.getnames()) == (owner == "clone")


@pytest.mark.parametrize("ref", REFS)
@pytest.mark.parametrize("owner", ["own", "clone"])
async def test_commits_that_only_a_ref_of_a_nested_worktree_has_are_unsaved(
    fork: Fork, library: Path, owner: str, ref: str
) -> None:
    git(fork.path, "clone", "-q", str(library), "clone")
    of = fork.path if owner == "own" else fork.path / "clone"
    git(of, "worktree", "add", "-q", "--detach", str(fork.path / "in"))
    git(fork.path / "in", "update-ref", ref, "HEAD")
    assert await found(fork) == []
    git(
        fork.path / "in",
        "update-ref",
        ref,
        git(fork.path / "in", "commit-tree", "-p", "HEAD", "-m", "off", "HEAD^{tree}"),
    )
    assert "in (1 commit)" in await found(fork)


# -- nothing is obeyed


async def test_no_setting_of_a_nested_repository_is_obeyed(fork: Fork, tmp_path: Path) -> None:
    inner = make_repository(fork.path / "inner", {"a": "x", ".gitattributes": "* filter=evil diff=evil\n"})
    (tmp_path / "evil").write_text(f"#!/bin/sh\ntouch {tmp_path}/run\ncat\n")
    (tmp_path / "evil").chmod(0o755)
    for key in (
        "core.fsmonitor",
        "filter.evil.clean",
        "diff.evil.textconv",
        "core.sshCommand",
        "core.alternateRefsCommand",
    ):
        git(inner, "config", key, str(tmp_path / "evil"))
    git(inner, "config", "core.worktree", str(tmp_path))
    for hook in ("post-index-change", "reference-transaction"):
        (inner / ".git" / "hooks" / hook).symlink_to(tmp_path / "evil")
    (inner / "a").write_text("y")
    assert await found(fork) == ["inner (1 commit and 1 uncommitted path)"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "where", [".git/HEAD", ".git/index", ".git/refs/heads/x", ".git/packed-refs", ".git/logs/HEAD", ".gitignore",
              ".git/objects/info/alternates", ".git/objects/pack/x.idx", ".git/config", ".git/shallow"]
)  # fmt: skip
async def test_a_pipe_in_a_nested_repository_holds_nobody_up(fork: Fork, where: str) -> None:
    pipe = make_repository(fork.path / "inner", {"a": "x"}) / where
    pipe.unlink(missing_ok=True)
    pipe.parent.mkdir(exist_ok=True)
    os.mkfifo(pipe)
    assert len(await found(fork)) == 1


async def test_a_repository_that_cannot_be_read_is_unsaved(fork: Fork) -> None:
    inner = make_repository(fork.path / "inner", {"a": "x"})
    for one in (inner / ".git" / "objects").rglob("*"):
        if one.is_file():
            one.unlink()
    (inner / ".git" / "refs" / "heads" / "main").write_text(f"{fork.base}\n")
    (said,) = await found(fork)
    assert said.startswith("inner (a repository that can't be read: ")


# -- keeping it


async def test_what_is_kept_can_be_put_back(fork: Fork, tmp_path: Path) -> None:
    inner = make_repository(fork.path / "inner", {"a": "x"})
    (inner / "loose").write_text("y")
    (inner / "link").symlink_to("a")
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    assert kept == "refs/forkjoin/kept/nested/a1-left"
    assert await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left") == kept
    with tarfile.open(fileobj=BytesIO(blob(fork.repository, kept, "files.tar"))) as tar:
        tar.extractall(tmp_path / "back", filter="tar")
    back = tmp_path / "back" / fork.path.name / "inner"
    assert git(back, "status", "--porcelain").splitlines() == ["?? link", "?? loose"]
    assert git(back, "rev-parse", "HEAD") == git(inner, "rev-parse", "HEAD")
    assert git(fork.repository, "fsck", "--strict", "--no-dangling") == ""


@pytest.mark.parametrize("where", ["within", "outside"])
async def test_of_a_git_folder_that_a_symlink_leads_to_what_goes_is_kept(
    fork: Fork, tmp_path: Path, where: str
) -> None:
    inner = make_repository(fork.path / "inner", {"a": "x"})
    (inner / "loose").write_text("y")
    folder = fork.path / "elsewhere" if where == "within" else tmp_path / "elsewhere"
    (inner / ".git").rename(folder)
    (inner / ".git").symlink_to(folder)
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    said = "1 commit and 1 uncommitted path" if where == "within" else "1 uncommitted path"
    assert [str(one) for one in unsaved] == [f"inner ({said})"]
    kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    with tarfile.open(fileobj=BytesIO(blob(fork.repository, kept, "files.tar"))) as tar:
        assert ("a1-left/elsewhere/HEAD" in tar.getnames()) == (where == "within")
        assert not any("git-folder" in name for name in tar.getnames())


async def test_a_submodules_git_folder_is_kept_with_its_files(with_submodule: Fork) -> None:
    fork = with_submodule
    commit(fork.path / "lib", {"a": "x"})
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    with tarfile.open(fileobj=BytesIO(blob(fork.repository, kept, "files.tar"))) as tar:
        assert {"a1-left/lib/a", "git-folder/worktrees/a1-left/modules/lib/HEAD"} <= set(tar.getnames())


async def test_another_repositorys_worktree_is_kept_under_a_path_that_tar_takes(fork: Fork, library: Path) -> None:
    git(library, "worktree", "add", "-q", "--detach", str(fork.path / "other"))
    (fork.path / "other" / "loose").write_text("y")
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    with tarfile.open(fileobj=BytesIO(blob(fork.repository, kept, "files.tar"))) as tar:
        names = tar.getnames()
    assert "a1-left/other/loose" in names
    assert f"elsewhere{library}/.git/worktrees/other/HEAD" in names
    assert not any(".." in Path(name).parts for name in names)


async def test_folders_that_are_too_large_together_are_all_named(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_archive, "_SIZE_LIMIT", 10_000)
    for name in ("one", "two"):
        (make_repository(fork.path / name) / "loose").write_bytes(b"x" * 4000)
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    with pytest.raises(CallerError) as caught:
        await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    assert f"{fork.path / 'one'}, {fork.path / 'two'}: more than" in str(caught.value)
