"""Prepared folders: repositories and worktrees that are made once, and copied for each test."""

import shutil
from pathlib import Path

from support.harness import git

#: The names of files in which git writes absolute paths.
_WITH_PATHS = frozenset({".git", "gitdir", "config"})


def copy_prepared(prepared: Path, target: Path, *worktrees: str) -> None:
    """Copy the files of a prepared folder. git finds the copied worktrees unchanged.

    Args:
        prepared: The prepared folder.
        target: The folder that gets the copies. Files there are overwritten.
        worktrees: The worktrees in that folder. Their indexes are refreshed, because files have new times.
    """
    shutil.copytree(prepared, target, symlinks=True, dirs_exist_ok=True)
    for file in prepared.rglob("*"):
        if file.name in _WITH_PATHS and file.is_file():
            copy = target / file.relative_to(prepared)
            copy.write_bytes(copy.read_bytes().replace(bytes(prepared), bytes(target)))
    for name in worktrees:
        git(target / name, "update-index", "-q", "--refresh")
