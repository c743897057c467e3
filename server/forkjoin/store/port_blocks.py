"""Blocks of ports: each agent, and each scratch worktree, has one of its own as long as its worktree may be there.

Homes know nothing of each other: each begins elsewhere, and no block is given out in which somebody listens.
"""

import hashlib
import os
from bisect import insort
from collections.abc import Iterable
from pathlib import Path

from forkjoin.core.error import CallerError
from forkjoin.store import rows
from forkjoin.store.queries import Queries

#: Below those that the kernel hands out (ip(7), ip_local_port_range: from 32768 on).
FIRST, END = 20_000, 32_000
#: How many one has whose repository says nothing of ports.
UNASKED = 10
#: At so many places a home may begin; from the last one on there is room for a hundred such blocks yet.
_PLACES = (END - FIRST) // UNASKED - 100

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENS = "0A"


def first_port(home: Path) -> int:
    """Where the blocks of the home at this path begin."""
    digest = hashlib.sha256(os.fsencode(home)).digest()
    return FIRST + int.from_bytes(digest) % _PLACES * UNASKED


def listening() -> set[int]:
    """The ports, whoever listens (proc(5)); none where that can't be told. Blocks."""
    found: set[int] = set()
    for table in _TABLES:
        try:
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:  # no IPv6, or no /proc/net
            continue
        found.update(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENS)
    return found


def find_ports(q: Queries, begin: int) -> "Ports":
    """The ports that are no agent's and no scratch worktree's, and on which nobody listens."""
    given_out = [(row["port_base"], rows.recipe(row["recipe"]).ports or UNASKED) for row in q.port_blocks()]
    return Ports([*given_out, *((port, 1) for port in listening())], begin)


class Ports:
    """What is taken, each block by its first port and its size, and where the next is looked for first."""

    def __init__(self, blocks: Iterable[tuple[int, int]], begin: int = FIRST) -> None:
        self._taken = sorted(blocks)
        self._begin = begin

    def take(self, asked: int | None) -> int:
        """The first port of a block of that size that meets no other; for none 0, or an error if it was asked for."""
        size = asked or UNASKED
        base = self._find(self._begin, size) or self._find(FIRST, size)
        if base:
            insort(self._taken, (base, size))
        elif asked:
            raise CallerError(
                f"No {size} ports in a row are free between {FIRST} and {END}: each agent keeps its block until its "
                "worktree is removed. Call remove_worktrees for what is merged, or ask for fewer (`ports` in "
                "forkjoin.toml). Nothing was changed."
            )
        return base

    def _find(self, base: int, size: int) -> int:
        """The lowest from `base` on; 0 for none."""
        for first, count in self._taken:
            if base + size <= first:
                break
            base = max(base, first + count)
        return base if base + size <= END else 0
