"""Which commits conflict with each other, pair by pair, from one call of git (git-merge-tree(1))."""

from collections.abc import Mapping, Sequence

from forkjoin.branch import git
from forkjoin.branch.conflict import Merged, Sides, try_merge, try_merges
from forkjoin.error import GitError

#: What is told of two that have no history in common.
UNRELATED = "(they have no common history)"


async def find_clashes(
    common_dir: str, pairs: Sequence[tuple[str, str]], aside: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """For each pair of commits, the files in which they conflict; `aside` tells git where its objects may go."""
    merges = await try_merges(common_dir, [Sides(*pair) for pair in pairs], git.UNSYNCED, aside)
    if merges is None:
        return [await _find(common_dir, *pair, aside) for pair in pairs]
    return [_told(merged) for merged in merges]


async def _find(common_dir: str, one: str, other: str, aside: Mapping[str, str]) -> tuple[str, ...]:
    try:
        return _told(await try_merge(common_dir, one, other, aside=aside))
    except GitError as error:
        if "unrelated histories" not in error.stderr:
            raise
        return (UNRELATED,)


def _told(merged: Merged) -> tuple[str, ...]:
    return tuple(git.readable(file) for file in merged.conflicts)
