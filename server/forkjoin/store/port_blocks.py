"""Blocks of ports: one for each agent and each scratch worktree, until its worktree is removed.

Several homes on one machine don't know each other's blocks. Therefore each home begins its search at a port of its own,
and no block includes a port on which any program listens.
"""

import hashlib
import os
from bisect import insort
from collections.abc import Iterable
from pathlib import Path

from forkjoin.core.error import CallerError
from forkjoin.store import rows
from forkjoin.store.queries import Queries

#: The range of all blocks. It ends below the kernel's ephemeral ports, from 32768 on (ip(7), ip_local_port_range).
FIRST, END = 20_000, 32_000
#: The size of a block if the repository's forkjoin.toml sets no number of ports.
DEFAULT_SIZE = 10
#: The number of ports at which a home may begin. After the last one there is room for 100 blocks of the default size.
_BEGINNINGS = (END - FIRST) // DEFAULT_SIZE - 100

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
#: The state TCP_LISTEN in those tables.
_LISTEN = "0A"


def first_port(home: Path) -> int:
    """Return the port at which the home at this path begins its search."""
    digest = hashlib.sha256(os.fsencode(home)).digest()
    return FIRST + int.from_bytes(digest) % _BEGINNINGS * DEFAULT_SIZE


def listening() -> set[int]:
    """Return the TCP ports on which any program listens (proc(5)). Blocks.

    Returns an empty set if /proc/net can't be read.
    """
    found: set[int] = set()
    for table in _TABLES:
        try:
            lines = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:  # no IPv6, or no /proc/net
            continue
        found.update(int(fields[1].rpartition(":")[2], 16) for fields in lines if fields[3] == _LISTEN)
    return found


def find_ports(q: Queries, begin: int) -> "Ports":
    """Return the blocks of ports that are taken.

    These are the blocks of all agents and scratch worktrees, and the ports on which a program listens.
    """
    blocks = [(row["port_base"], rows.recipe(row["recipe"]).ports or DEFAULT_SIZE) for row in q.port_blocks()]
    return Ports([*blocks, *((port, 1) for port in listening())], begin)


class Ports:
    """The taken blocks of ports, each as (first port, size), and the port at which a search begins."""

    def __init__(self, blocks: Iterable[tuple[int, int]], begin: int = FIRST) -> None:
        self._taken = sorted(blocks)
        self._begin = begin

    def take(self, requested: int | None) -> int:
        """Take a free block of ports, and return its first port.

        Args:
            requested: The size of the block. None requests a block of the default size, if one is free.

        Returns:
            The first port; 0 if no block is free and none was requested.

        Raises:
            CallerError: No block of the requested size is free.
        """
        size = requested or DEFAULT_SIZE
        base = self._find(self._begin, size) or self._find(FIRST, size)
        if base:
            insort(self._taken, (base, size))
        elif requested:
            raise CallerError(
                f"No {size} ports in a row are free between {FIRST} and {END}: each agent keeps its block until its "
                "worktree is removed. Call remove_worktrees for merged agents, or reduce `ports` in forkjoin.toml. "
                "Nothing was changed."
            )
        return base

    def _find(self, begin: int, size: int) -> int:
        """Return the lowest first port of a free block, from `begin` on, or 0."""
        base = begin
        for first, count in self._taken:
            if base + size <= first:
                break
            base = max(base, first + count)
        return base if base + size <= END else 0
