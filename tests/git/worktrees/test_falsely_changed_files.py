"""Unchanged files that git or setup wrote don't count as an agent's work."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from forkjoin.git.worktrees.autocommit import AutocommitResult, commit_uncommitted_work, is_clean_at
from forkjoin.git.worktrees.falsely_changed_files import fingerprint
from support.branches import Fork, commit, everything, files_of, make_fork, put_raw, touch, write
from support.harness import git


def with_line_ends(repository: Path) -> None:
    commit(repository, {".gitattributes": "*.dos text\n"})
    put_raw(repository, "a.dos", b"one\r\ntwo\r\n")


def with_mixed_line_ends(repository: Path) -> None:
    commit(repository, {".gitattributes": "*.dos text eol=crlf\n"})
    put_raw(repository, "a.dos", b"one\r\ntwo\n")


def with_an_id(repository: Path) -> None:
    commit(repository, {".gitattributes": "*.dos ident\n"})
    put_raw(repository, "a.dos", b"$Id: 1234 $\n")


def with_an_encoding(repository: Path) -> None:
    commit(repository, {".gitattributes": "*.dos working-tree-encoding=UTF-16LE text eol=crlf\n"})
    put_raw(repository, "a.dos", b"one\r\ntwo\n")


def with_a_filter(repository: Path) -> None:
    """Commit a file without its filter, like a file that should be a git-lfs pointer."""
    git(repository, "config", "--global", "filter.big.clean", "echo pointer; cat > /dev/null")
    git(repository, "config", "--global", "filter.big.smudge", "cat")
    commit(repository, {".gitattributes": "*.dos filter=big\n"})
    put_raw(repository, "a.dos", b"whole\n")


def with_autocrlf(repository: Path) -> None:
    put_raw(repository, "a.dos", b"one\r\ntwo\r\n")
    git(repository, "config", "core.autocrlf", "true")
    commit(repository, {".gitattributes": "*.dos text\n"})


KINDS = [with_line_ends, with_mixed_line_ends, with_an_id, with_an_encoding, with_a_filter, with_autocrlf]


async def commit_work(fork: Fork, set_up: bytes = b"") -> AutocommitResult:
    return await commit_uncommitted_work(fork.common_dir, fork.path, fork.branch, "loose", "a1-left", set_up=set_up)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_file_that_git_reports_modified_after_checkout_is_not_committed(
    repository: Path, kind: Callable[[Path], None]
) -> None:
    kind(repository)
    fork = await make_fork(repository)
    touch(fork.path)
    assert git(fork.path, "status", "--porcelain") == " M a.dos"
    left = await commit_work(fork)
    assert (left.tip, left.uncommitted, left.warnings) == (fork.base, 0, [])
    assert await is_clean_at(fork.common_dir, fork.path, fork.base)


@pytest.mark.parametrize("kind", [with_line_ends, with_a_filter])
async def test_only_real_changes_are_committed(repository: Path, kind: Callable[[Path], None]) -> None:
    kind(repository)
    fork = await make_fork(repository)
    touch(fork.path)
    write(fork.path, "README.md", "edited\n")
    write(fork.path, "new", "x\n")
    write(fork.path, "shared.txt", None)
    left = await commit_work(fork)
    assert (left.uncommitted, left.warnings) == (3, ["3 uncommitted paths were committed for the agent."])
    assert git(fork.path, "diff", "--name-status", fork.base, fork.branch).split() == [
        *("M", "README.md", "A", "new", "D", "shared.txt"),
    ]
    assert git(fork.path, "status", "--porcelain") == " M a.dos"
    assert (await commit_work(fork)).uncommitted == 0


async def test_an_edit_of_a_falsely_changed_file_is_committed(repository: Path) -> None:
    with_line_ends(repository)
    fork = await make_fork(repository)
    (fork.path / "a.dos").write_bytes(b"one\r\ntwo\r\nthree\r\n")
    assert (await commit_work(fork)).uncommitted == 1
    assert git(repository, "show", f"{fork.branch}:a.dos") == "one\ntwo\nthree"


async def test_a_new_mode_of_a_falsely_changed_file_is_committed(repository: Path) -> None:
    with_line_ends(repository)
    fork = await make_fork(repository)
    (fork.path / "a.dos").chmod(0o755)
    assert (await commit_work(fork)).uncommitted == 1
    assert "100755 a.dos" in files_of(repository, fork.branch)


async def test_a_falsely_changed_file_that_the_agent_staged_is_committed(repository: Path) -> None:
    with_line_ends(repository)
    fork = await make_fork(repository)
    git(fork.path, "add", "--renormalize", ".")
    assert (await commit_work(fork)).uncommitted == 1
    assert git(repository, "show", f"{fork.branch}:a.dos") == "one\ntwo"


async def test_a_new_attribute_commits_no_file_that_the_agent_did_not_touch(repository: Path) -> None:
    put_raw(repository, "a.dos", b"one\r\n")
    fork = await make_fork(repository)
    touch(fork.path)
    write(fork.path, ".gitattributes", "* text\n")
    assert (await commit_work(fork)).uncommitted == 1
    assert git(repository, "diff", "--name-only", fork.base, fork.branch) == ".gitattributes"


# -- files that setup wrote


def set_up(worktree: Path) -> None:
    write(worktree, "made.txt", "made\n")
    write(worktree, "deep/made.txt", "made\n")
    write(worktree, "README.md", "by setup\n")
    write(worktree, "shared.txt", None)
    (worktree / "link").symlink_to("made.txt")


async def test_files_that_setup_wrote_are_not_committed(repository: Path) -> None:
    fork = await make_fork(repository)
    set_up(fork.path)
    found = await fingerprint(fork.common_dir, fork.path)
    left = await commit_work(fork, found)
    assert (left.tip, left.uncommitted, left.warnings) == (fork.base, 0, [])
    assert await is_clean_at(fork.common_dir, fork.path, fork.base, set_up=found)
    assert not await is_clean_at(fork.common_dir, fork.path, fork.base)


async def test_changes_to_files_that_setup_wrote_are_committed(repository: Path) -> None:
    fork = await make_fork(repository)
    set_up(fork.path)
    found = await fingerprint(fork.common_dir, fork.path)
    write(fork.path, "deep/made.txt", "edited\n")
    (fork.path / "link").unlink()
    (fork.path / "link").symlink_to("README.md")
    (fork.path / "made.txt").chmod(0o755)
    write(fork.path, "shared.txt", "again\n")
    write(fork.path, "copy", "by setup\n")
    left = await commit_work(fork, found)
    assert left.uncommitted == 5
    changed = git(repository, "diff", "--name-only", fork.base, fork.branch).split()
    assert changed == ["copy", "deep/made.txt", "link", "made.txt", "shared.txt"]
    assert git(fork.path, "status", "--porcelain") == " M README.md"


async def test_staged_files_that_setup_wrote_are_committed(repository: Path) -> None:
    fork = await make_fork(repository)
    set_up(fork.path)
    found = await fingerprint(fork.common_dir, fork.path)
    git(fork.path, "add", "made.txt")
    git(fork.path, "rm", "-q", "--cached", "shared.txt")
    write(fork.path, "new", "x\n")
    assert (await commit_work(fork, found)).uncommitted == 3
    changed = git(repository, "diff", "--name-only", fork.base, fork.branch).split()
    assert changed == ["made.txt", "new", "shared.txt"]


async def test_a_pipe_in_place_of_a_setup_file_does_not_block(repository: Path) -> None:
    fork = await make_fork(repository)
    set_up(fork.path)
    found = await fingerprint(fork.common_dir, fork.path)
    (fork.path / "made.txt").unlink()
    os.mkfifo(fork.path / "made.txt")
    before = everything(repository)["refs"]
    assert (await commit_work(fork, found)).uncommitted == 0
    assert everything(repository)["refs"] == before
