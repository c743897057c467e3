"""Blocks of ports: each agent, and each landing, has one of its own as long as its worktree may be there."""

from bisect import insort
from collections.abc import Iterable

from forkjoin.error import CallerError

#: Below those that the kernel hands out (ip(7), ip_local_port_range: from 32768 on).
FIRST, END = 20_000, 32_000


class Ports:
    """What is given out, each block by its first port and its size, and what somebody listens on."""

    def __init__(self, blocks: Iterable[tuple[int, int]]) -> None:
        self._taken = sorted(blocks)

    def take(self, size: int) -> int:
        """The first port of a block of that size that meets no other: the lowest there is.

        Raises:
            CallerError: There is none.
        """
        base = FIRST
        for first, count in self._taken:
            if base + size <= first:
                break
            base = max(base, first + count)
        if base + size > END:
            raise CallerError(
                f"No {size} ports in a row are free between {FIRST} and {END}: each agent keeps its block until its "
                "worktree is removed. Call remove_worktrees for what is merged, or ask for fewer (`ports` in "
                "forkjoin.toml). Nothing was recorded."
            )
        insort(self._taken, (base, size))
        return base
