"""Which ports somebody listens on, on this machine: no agent is given a block with one of them."""

from pathlib import Path

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENS = "0A"


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
