"""Unsaved work in nested worktrees, and in refs that a worktree has for itself."""

import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from forkjoin.git.unsaved.unsaved_work import archive_unsaved, find_unsaved_work
from forkjoin.git.worktrees import worktree
from forkjoin.git.worktrees.delete_path import delete_path
from forkjoin.git.worktrees.worktree_folder import list_git_folders
from support.branches import GIT_VERSION, Fork, blob, commit, make_fork
from support.harness import git
from support.unsaved_work import describe_unsaved


@pytest.mark.parametrize("work", ["both", "nothing", "a commit on a branch"])
async def test_a_nested_worktree_is_unsaved_if_its_head_or_files_are(fork: Fork, work: str) -> None:
    commit(fork.path, {".gitignore": ".claude/\n"})
    inner = fork.path / ".claude" / "worktrees" / "x"
    git(fork.path, "worktree", "add", "-q", *(["-b", "x"] if "branch" in work else ["--detach"]), str(inner))
    done = commit(inner, {"a": "x"}) if work != "nothing" else fork.base
    if work == "both":
        (inner / "b").write_text("y")
    said = "1 commit and 1 uncommitted path" if work == "both" else None
    assert await describe_unsaved(fork) == ([f".claude/worktrees/x ({said})"] if said else [])
    if work == "both":
        unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
        kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
        assert git(fork.repository, "merge-base", "--is-ancestor", done, kept) == ""
    await worktree.remove(fork.common_dir, fork.path)
    assert list(list_git_folders(fork.common_dir)) == []


async def test_the_head_of_a_nested_worktree_is_unsaved_even_if_its_files_are_deleted(fork: Fork) -> None:
    git(fork.path, "worktree", "add", "-q", "--detach", "inner")
    commit(fork.path / "inner", {"a": "x"})
    delete_path(fork.path / "inner")
    assert [one.rpartition(" (")[2] for one in await describe_unsaved(fork)] == ["1 commit)"]


async def test_files_of_a_worktree_that_is_no_longer_registered_are_unsaved(fork: Fork) -> None:
    delete_path(fork.folder)
    assert await describe_unsaved(fork) == [". (files of a worktree that git no longer knows)"]


async def test_a_repository_that_replaced_the_worktrees_git_file_is_unsaved(fork: Fork) -> None:
    (fork.path / ".git").unlink()
    git(fork.path, "init", "-q")
    assert await describe_unsaved(fork) == []
    commit(fork.path, {"a": "x"})
    assert await describe_unsaved(fork) == [".git (1 commit)"]


REFS = ["refs/worktree/remotes/kept", "refs/bisect/bad", "refs/rewritten/onto"]


@pytest.fixture(params=["files", "reftable"])
async def any_fork(request: pytest.FixtureRequest, tmp_path: Path) -> Fork:
    """Return an agent's worktree in a repository with refs in files, or in a reftable."""
    if request.param == "reftable" and GIT_VERSION < (2, 45):
        pytest.skip("git knows no reftable")
    form = [] if request.param == "files" else ["--ref-format=reftable"]
    (tmp_path / "of").mkdir()
    git(tmp_path / "of", "init", "-q", *form, "repository")
    commit(tmp_path / "of" / "repository", {"a": "x"})
    return await make_fork(tmp_path / "of" / "repository")


async def test_commits_that_only_a_private_ref_has_are_unsaved(any_fork: Fork) -> None:
    fork = any_fork
    for ref in REFS:
        git(fork.path, "update-ref", ref, fork.base)
    assert await describe_unsaved(fork) == []
    made = {ref: git(fork.path, "commit-tree", "-p", "HEAD", "-m", ref, "HEAD^{tree}") for ref in REFS}
    for ref in REFS:
        git(fork.path, "update-ref", ref, made[ref])
    assert await describe_unsaved(fork) == [f"{ref} (commits that no branch has)" for ref in sorted(REFS)]
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    assert set(git(fork.repository, "rev-parse", f"{kept}^@").split()) == set(made.values())
    for ref in REFS:
        git(fork.path, "branch", f"saved/{ref}", made[ref])
    assert await describe_unsaved(fork) == []


async def test_a_private_ref_to_a_missing_commit_is_unsaved(fork: Fork) -> None:
    (fork.folder / "refs" / "worktree").mkdir(parents=True)
    (fork.folder / "refs" / "worktree" / "x").write_text(f"{'1' * 40}\n")
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    assert [one.name for one in unsaved] == ["refs"]
    assert await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")


@pytest.mark.skipif(GIT_VERSION < (2, 45), reason="git knows no reftable")
@pytest.mark.parametrize("owner", ["own", "clone"])
@pytest.mark.parametrize("held", ["HEAD", "the log of HEAD", "refs/worktree/x"])
async def test_commits_that_only_a_nested_worktree_has_are_unsaved_with_reftables(
    tmp_path: Path, library: Path, owner: str, held: str
) -> None:
    git(tmp_path, "clone", "-q", "--ref-format=reftable", str(library), "repository")
    fork = await make_fork(tmp_path / "repository")
    git(fork.path, "clone", "-q", "--ref-format=reftable", str(library), "clone")
    of = fork.path if owner == "own" else fork.path / "clone"
    git(of, "worktree", "add", "-q", "--detach", str(fork.path / "in"))
    assert await describe_unsaved(fork) == []
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


@pytest.mark.parametrize("owner", ["own", "clone"])
async def test_commits_that_only_a_private_ref_of_a_nested_worktree_has_are_unsaved(
    fork: Fork, library: Path, owner: str
) -> None:
    git(fork.path, "clone", "-q", str(library), "clone")
    git(
        fork.path if owner == "own" else fork.path / "clone", "worktree", "add", "-q", "--detach", str(fork.path / "in")
    )
    for ref in REFS:
        git(fork.path / "in", "update-ref", ref, "HEAD")
    assert await describe_unsaved(fork) == []
    for ref in REFS:
        made = git(fork.path / "in", "commit-tree", "-p", "HEAD", "-m", ref, "HEAD^{tree}")
        git(fork.path / "in", "update-ref", ref, made)
    assert "in (3 commits)" in await describe_unsaved(fork)
