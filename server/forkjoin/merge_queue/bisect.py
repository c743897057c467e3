"""Finding out which of the branches that were merged together breaks verify, in few runs of it."""

from collections.abc import Awaitable, Callable


class BrokenBeforeError(Exception):
    """It fails without any of them."""


async def longest_passing(length: int, passes: Callable[[int], Awaitable[bool]]) -> int:
    """How many of the first of `length` branches pass together: all, or those before the one that breaks it.

    To find it among n takes at most ⌈log2 (n + 1)⌉ + 1 calls of `passes`, which is asked about the first so many. The
    very first is blamed only once what was there before it is known to pass.

    Raises:
        BrokenBeforeError: It fails without the first too.
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
