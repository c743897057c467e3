"""Repositories with unsaved work, and what forkjoin finds of it."""

from pathlib import Path

from forkjoin.git.unsaved.unsaved_work import find_unsaved_work
from support.branches import Fork, commit
from support.harness import git

#: Options with which git clones a submodule from a local path.
ALLOW = ("-c", "protocol.file.allow=always")


async def describe_unsaved(fork: Fork) -> list[str]:
    return [str(one) for one in await find_unsaved_work(fork.common_dir, fork.path, fork.base)]


def make_repository(path: Path, files: dict[str, str | None] | None = None) -> Path:
    path.mkdir(parents=True)
    git(path, "init", "-q")
    if files:
        commit(path, files)
    return path


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


#: Functions that leave unsaved work in a repository, with its description.
WORK = {_commits: "1 commit", _stages: "1 uncommitted path", _writes: "1 uncommitted path", _stashes: "2 commits"}
