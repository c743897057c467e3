"""Autocommits of the uncommitted work in a worktree."""

from forkjoin.git.worktrees.autocommit import AutocommitResult, commit_uncommitted_work
from support.branches import Fork, everything
from support.harness import git


async def leave(fork: Fork, keep_as: str = "a1-left") -> AutocommitResult:
    return await commit_uncommitted_work(fork.common_dir, fork.path, fork.branch, "Uncommitted work", keep_as)


async def leave_twice(fork: Fork) -> AutocommitResult:
    """Autocommit twice. Return the first result.

    Check that the second autocommit changes nothing.
    """
    left = await leave(fork)
    before = everything(fork.repository)
    again = await leave(fork)
    assert (again.tip, again.uncommitted) == (left.tip, 0)
    assert everything(fork.repository) == before
    assert left.tip == git(fork.repository, "rev-parse", fork.branch)
    return left
