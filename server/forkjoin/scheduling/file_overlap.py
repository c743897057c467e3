"""Which agents have said that they work on the same files. Pure."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import combinations


def find_overlaps(paths: Mapping[str, Sequence[str]]) -> list[tuple[str, str, str]]:
    """Pairs of agents that may meet, and a path of the first's where they do.

    Args:
        paths: By agent, the paths that its spec declares: files, folders, or patterns with `*` and `?`.
    """
    return [
        (one, other, met)
        for (one, ours), (other, theirs) in combinations(paths.items(), 2)
        if (met := next((path for path in ours if any(_meet(path, their) for their in theirs)), None))
    ]


def _meet(one: str, other: str) -> bool:
    """Whether something may lie under both; two patterns that each have wildcards meet where their beginnings do."""
    one, other = one.removesuffix("/"), other.removesuffix("/")
    fixed, others_fixed = _fixed(one), _fixed(other)
    if fixed != one and others_fixed != other:
        return fixed.startswith(others_fixed) or others_fixed.startswith(fixed)
    return _covers(one, other) or _covers(other, one)


def _covers(pattern: str, path: str) -> bool:
    """Whether `path` is what the pattern names, or lies within it."""
    return fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}/*") or pattern in ("", ".")


def _fixed(pattern: str) -> str:
    """What stands before the first wildcard."""
    return pattern[: min((pattern.index(c) for c in "*?[" if c in pattern), default=len(pattern))]
