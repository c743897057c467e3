"""Diffs of a branch: their sizes and their text."""

import os
from pathlib import Path

import pytest
from forkjoin.core.error import GitError
from forkjoin.git import diff
from forkjoin.git.diff import DiffStat
from forkjoin.git.worktrees.worktree_diff import read_worktree_diff
from support.branches import commit, make_fork
from support.harness import git


@pytest.fixture
def base(repository: Path) -> str:
    return git(repository, "rev-parse", "HEAD")


async def test_files_and_lines_are_counted(repository: Path, base: str) -> None:
    tip = commit(repository, {"shared.txt": "one\n2\nthree\nfour\n", "new": "x\n", "README.md": None})
    assert await diff.measure_diff(str(repository / ".git"), base, tip) == DiffStat(3, 3, 2)


async def test_a_commit_has_no_diff_to_itself(repository: Path, base: str) -> None:
    assert await diff.measure_diff(str(repository / ".git"), base, base) == DiffStat(0, 0, 0)


async def test_a_moved_file_counts_as_one_deleted_and_one_added(repository: Path, base: str) -> None:
    git(repository, "mv", "shared.txt", "moved.txt")
    git(repository, "commit", "-qm", "moved")
    assert await diff.measure_diff(str(repository / ".git"), base, "HEAD") == DiffStat(2, 3, 3)


async def test_a_binary_file_counts_without_lines(repository: Path, base: str) -> None:
    (repository / "binary").write_bytes(bytes(range(256)))
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "binary")
    assert await diff.measure_diff(str(repository / ".git"), base, "HEAD") == DiffStat(1, 0, 0)


@pytest.mark.parametrize("name", [b"a\nb", b"a\tb", b"\xff", b'"', b"-x"])
async def test_a_file_of_any_name_counts_as_one(repository: Path, base: str, name: bytes) -> None:
    (repository / os.fsdecode(name)).write_text("x\ny\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "odd")
    assert await diff.measure_diff(str(repository / ".git"), base, "HEAD") == DiffStat(1, 2, 0)


async def test_the_users_settings_do_not_change_the_diff_text(repository: Path, base: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_text(f"#!/bin/sh\ntouch {tmp_path / 'told'}\n")
    (tmp_path / "run").chmod(0o755)
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "diff.external", str(tmp_path / "run"))
    git(repository, "config", "diff.x.textconv", str(tmp_path / "run"))
    (repository / ".git" / "info" / "attributes").write_text("* diff=x\n")
    tip = commit(repository, {"new": "x\n"})
    text = await diff.read_diff(str(repository / ".git"), base, tip, None, stat=False)
    assert text.startswith(b"diff --git a/new b/new\n")
    assert text.endswith(b"+x\n")
    assert not (tmp_path / "told").exists()


async def test_a_diff_can_be_limited_to_one_path(repository: Path, base: str) -> None:
    tip = commit(repository, {"new": "x\n", "*": "y\n", "folder/a": "z\n"})
    for path, count in (("*", 1), ("folder", 1), ("none", 0)):
        text = await diff.read_diff(str(repository / ".git"), base, tip, path, stat=False)
        assert text.count(b"diff --git") == count


async def test_a_path_outside_the_repository_has_no_diff(repository: Path, base: str) -> None:
    (repository.parent / "outside").write_text("x\n")
    fork = await make_fork(repository)
    assert await read_worktree_diff(fork.common_dir, fork.path, base, "../../outside", stat=False) == b""


async def test_a_missing_commit_is_an_error(repository: Path, base: str) -> None:
    with pytest.raises(GitError, match="0000"):
        await diff.read_diff(str(repository), base, "0" * 40, None, stat=False)


async def test_stat_names_files_and_sizes(repository: Path, base: str) -> None:
    tip = commit(repository, {"new": "x\n"})
    text = await diff.read_diff(str(repository / ".git"), base, tip, None, stat=True)
    assert text.splitlines()[0].split() == [b"new", b"|", b"1", b"+"]


async def test_a_worktree_is_read_without_touching_its_index(repository: Path, base: str) -> None:
    fork = await make_fork(repository)
    (fork.path / "shared.txt").write_text("edited\n")
    os.utime(fork.path / "README.md", (1, 1))  # as if edited, but the same
    index = (fork.folder / "index").read_bytes()
    assert b"+edited" in await read_worktree_diff(fork.common_dir, fork.path, base, None, stat=False)
    assert (fork.folder / "index").read_bytes() == index


async def test_a_replaced_worktree_has_no_diff(repository: Path, base: str) -> None:
    fork = await make_fork(repository)
    fork.path.rename(fork.path.with_name("away"))
    fork.path.symlink_to(repository)
    (repository / "shared.txt").write_text("edited\n")
    assert await read_worktree_diff(fork.common_dir, fork.path, base, None, stat=False) == b""


async def test_a_diff_is_read_up_to_its_limit(repository: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff, "LIMIT", 1000)
    tip = commit(repository, {"large": "0123456789\n" * 500_000})
    assert len(await diff.read_diff(str(repository / ".git"), base, tip, None, stat=False)) == 1000


async def test_new_files_in_a_worktree_are_named_unless_they_are_ignored(repository: Path, base: str) -> None:
    fork = await make_fork(repository)
    commit(fork.path, {".gitignore": "*.log\n"})
    (fork.path / "a.log").touch()
    (fork.path / "a\nb").touch()
    text = await read_worktree_diff(fork.common_dir, fork.path, base, None, stat=False)
    assert text.endswith(b"\nnew, not in git yet: a\\nb\n")
