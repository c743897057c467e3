"""Helpers for tests of remove_worktrees."""

from pathlib import Path

from forkjoin.core.paths import Home
from support.branches import everything
from support.harness import Lead


def worktree_path_of(home: Home, id_: str) -> Path:
    (found,) = home.worktrees.glob(f"*/{id_}-*")
    return found


async def refused(near: Lead, repository: Path, says: str, *ids: str, discard: bool = True) -> None:
    """Assert that a removal fails with these words and changes nothing."""
    before = everything(repository)
    error = await near.refusal("remove_worktrees", ids=list(ids), discard_unmerged=discard)
    assert says in error
    assert "othing was removed" in error
    assert everything(repository) == before
