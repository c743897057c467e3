"""Fixtures for tests of unsaved work."""

from pathlib import Path

import pytest
from support.branches import Fork, make_fork
from support.harness import git
from support.unsaved_work import ALLOW, make_repository


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a repository to clone from."""
    return make_repository(tmp_path / "library", {"lib.txt": "x\n"})


@pytest.fixture
async def with_submodule(repository: Path, library: Path) -> Fork:
    """Return an agent's worktree with an initialised submodule."""
    git(repository, *ALLOW, "submodule", "add", "-q", str(library), "lib")
    git(repository, "commit", "-qm", "with a submodule")
    fork = await make_fork(repository)
    git(fork.path, *ALLOW, "submodule", "update", "-q", "--init")
    return fork
