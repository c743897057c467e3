"""Fixtures for tests of the git package."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.branches import Fork, make_fork
from support.prepared import copy_prepared
from support.target_moves import Target, make_target


@pytest.fixture
def target(repository: Path) -> Target:
    """A move of main in a repository that has main checked out."""
    return make_target(repository)


@pytest.fixture(scope="session")
def prepared_forks(tmp_path_factory: pytest.TempPathFactory) -> list[Fork]:
    """The worktree that the fixture `fork` copies. The first test makes it."""
    return []


@pytest.fixture
async def fork(repository: Path, tmp_path: Path, prepared_repository: Path, prepared_forks: list[Fork]) -> Fork:
    """An agent's worktree."""
    if not prepared_forks:
        folder = prepared_repository.with_name("fork") / "repository"
        shutil.copytree(prepared_repository, folder)
        prepared_forks.append(await make_fork(folder))
    copy_prepared(prepared_forks[0].repository.parent, tmp_path, "repository", "worktrees/a1-left")
    return replace(prepared_forks[0], repository=repository, path=tmp_path / "worktrees" / "a1-left")
