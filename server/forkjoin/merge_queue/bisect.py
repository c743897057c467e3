"""Finding the branch that breaks verify, among branches that are merged in order, in few runs of verify."""

from collections.abc import Awaitable, Callable


class BrokenBeforeError(Exception):
    """An exception for a verify that fails on the target without any of the branches."""


async def longest_passing(length: int, passes: Callable[[int], Awaitable[bool]]) -> int:
    """Return how many branches, from the first on, pass verify together.

    These are all branches, or those before a branch that breaks verify. The search calls `passes` at most
    ⌈log2 (length + 1)⌉ + 1 times.

    Args:
        length: How many branches there are.
        passes: Returns whether verify passes with the first n branches. Before the first branch is blamed, it is called
            with 0, because the target may be broken without any branch.

    Raises:
        BrokenBeforeError: verify fails with none of the branches.
    """
    if await passes(length):
        return length
    good, bad = 0, length
    while bad - good > 1:
        middle = (good + bad) // 2
        if await passes(middle):
            good = middle
        else:
            bad = middle
    if good == 0 and not await passes(0):
        raise BrokenBeforeError
    return good
