"""Removals that are refused, and the worktrees of agents."""

from pathlib import Path

from forkjoin.core.paths import Home
from support.branches import everything
from support.harness import Lead


def worktree_path_of(home: Home, id_: str) -> Path:
    (found,) = home.worktrees.glob(f"*/{id_}-*")
    return found


async def refused(near: Lead, repository: Path, says: str, *ids: str, discard: bool = True) -> None:
    """Assert that a removal is refused with these words, and that nothing has changed."""
    before = everything(repository)
    told = await near.refusal("remove_worktrees", ids=list(ids), discard_unmerged=discard)
    assert says in told
    assert "othing was removed" in told
    assert everything(repository) == before
