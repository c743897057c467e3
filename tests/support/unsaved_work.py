"""Repositories with unsaved work, and the descriptions that forkjoin gives of that work."""

from pathlib import Path

from forkjoin.git.unsaved.unsaved_work import find_unsaved_work
from support.branches import Fork, commit
from support.harness import git

#: Options with which git clones a submodule from a local path.
ALLOW = ("-c", "protocol.file.allow=always")


async def describe_unsaved(fork: Fork) -> list[str]:
    """Return forkjoin's descriptions of the unsaved work in a worktree."""
    return [str(work) for work in await find_unsaved_work(fork.common_dir, fork.path, fork.base)]


def make_repository(path: Path, files: dict[str, str | None] | None = None) -> Path:
    """Create a repository. If files are given, commit them."""
    path.mkdir(parents=True)
    git(path, "init", "-q")
    if files:
        commit(path, files)
    return path


def _make_commit(path: Path) -> None:
    commit(path, {"a": "x"})


def _stage_file(path: Path) -> None:
    (path / "a").write_text("x")
    git(path, "add", "a")


def _write_file(path: Path) -> None:
    (path / "a").write_text("x")


def _stash_file(path: Path) -> None:
    commit(path, {"a": "x"})
    git(path, "branch", "-f", "pushed")
    git(path, "update-ref", "refs/remotes/origin/main", "HEAD")
    (path / "a").write_text("y")
    git(path, "stash", "-q")


#: Functions that leave unsaved work in a repository, with forkjoin's description of that work.
WORK = {
    _make_commit: "1 commit",
    _stage_file: "1 uncommitted path",
    _write_file: "1 uncommitted path",
    _stash_file: "2 commits",
}
