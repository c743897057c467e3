"""A nested repository is read without obeying its settings and without blocking."""

import os
import shutil
from pathlib import Path

from support.branches import Fork
from support.harness import git
from support.unsaved_work import describe_unsaved, make_repository

PLACES_OF_PIPES = [
    *(".git/HEAD", ".git/index", ".git/refs/heads/x", ".git/packed-refs", ".git/logs/HEAD", ".gitignore"),
    *(".git/objects/info/alternates", ".git/objects/pack/x.idx", ".git/config", ".git/shallow"),
]


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
    assert await describe_unsaved(fork) == ["inner (1 commit and 1 uncommitted path)"]
    assert not (tmp_path / "run").exists()


async def test_a_pipe_in_a_nested_repository_blocks_nothing(fork: Fork) -> None:
    inner = make_repository(fork.path / "inner", {"a": "x"})
    for number, where in enumerate(PLACES_OF_PIPES):
        pipe = Path(shutil.copytree(inner, fork.path / f"inner-{number}")) / where
        pipe.unlink(missing_ok=True)
        pipe.parent.mkdir(exist_ok=True)
        os.mkfifo(pipe)
    described = {one.partition(" ")[0] for one in await describe_unsaved(fork)}
    assert described == {"inner", *(f"inner-{number}" for number in range(len(PLACES_OF_PIPES)))}


async def test_a_repository_that_cannot_be_read_is_unsaved(fork: Fork) -> None:
    inner = make_repository(fork.path / "inner", {"a": "x"})
    for one in (inner / ".git" / "objects").rglob("*"):
        if one.is_file():
            one.unlink()
    (inner / ".git" / "refs" / "heads" / "main").write_text(f"{fork.base}\n")
    (said,) = await describe_unsaved(fork)
    assert said.startswith("inner (a repository that can't be read: ")
