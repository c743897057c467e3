"""Fixtures for tests of the git package."""

from pathlib import Path

import pytest
from support.branches import Fork, make_fork
from support.target_moves import Target, make_target


@pytest.fixture
def target(repository: Path) -> Target:
    """A move of main in a repository that has main checked out."""
    return make_target(repository)


@pytest.fixture
async def fork(repository: Path) -> Fork:
    """An agent's worktree."""
    return await make_fork(repository)
