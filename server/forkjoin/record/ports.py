"""Blocks of ports: each agent, and each landing, has one of its own as long as its worktree may be there."""

from bisect import insort
from collections.abc import Iterable

from forkjoin.error import CallerError

#: Below those that the kernel hands out (ip(7), ip_local_port_range: from 32768 on).
FIRST, END = 20_000, 32_000
#: How many one has whose repository says nothing of ports.
UNASKED = 10


class Ports:
    """What is given out, each block by its first port and its size, and what somebody listens on."""

    def __init__(self, blocks: Iterable[tuple[int, int]]) -> None:
        self._taken = sorted(blocks)

    def take(self, asked: int | None) -> int:
        """The first port of a block of that size that meets no other: the lowest there is; 0 for none, unasked.

        Raises:
            CallerError: There is none.
        """
        base, size = FIRST, asked or UNASKED
        for first, count in self._taken:
            if base + size <= first:
                break
            base = max(base, first + count)
        if base + size > END and not asked:
            return 0
        if base + size > END:
            raise CallerError(
                f"No {size} ports in a row are free between {FIRST} and {END}: each agent keeps its block until its "
                "worktree is removed. Call remove_worktrees for what is merged, or ask for fewer (`ports` in "
                "forkjoin.toml). Nothing was recorded."
            )
        insort(self._taken, (base, size))
        return base
