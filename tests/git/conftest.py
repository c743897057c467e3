"""What tests of the branch room share."""

from pathlib import Path

import pytest
from support.branches import Fork, make_fork
from support.target_moves import Target, make_target


@pytest.fixture
def target(repository: Path) -> Target:
    """A repository whose main is about to move; it is checked out there."""
    return make_target(repository)


@pytest.fixture
async def fork(repository: Path) -> Fork:
    """An agent's worktree."""
    return await make_fork(repository)
