"""How tests let loose work be committed."""

from forkjoin.git.worktrees.autocommit import Left, commit_loose
from support.branches import Fork, everything
from support.harness import git


async def leave(fork: Fork, keep_as: str = "a1-left") -> Left:
    return await commit_loose(fork.common_dir, fork.path, fork.branch, "Uncommitted work", keep_as)


async def leave_twice(fork: Fork) -> Left:
    """As it is left the first time, once the second has changed nothing and kept nothing more."""
    left = await leave(fork)
    before = everything(fork.repository)
    again = await leave(fork)
    assert (again.tip, again.loose) == (left.tip, 0)
    assert everything(fork.repository) == before
    assert left.tip == git(fork.repository, "rev-parse", fork.branch)
    return left
