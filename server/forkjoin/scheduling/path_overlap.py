"""Pairs of agents whose declared paths overlap, so that both may edit the same files. Pure."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import combinations


def find_overlaps(paths: Mapping[str, Sequence[str]]) -> list[tuple[str, str, str]]:
    """Return the pairs of agents whose paths overlap.

    The third item is the first path of the first agent that overlaps with a path of the second agent.

    Args:
        paths: By agent, the files, folders, or patterns with `*`, `?` and `[` that its spec declares.
    """
    return [
        (agent, other, overlapping)
        for (agent, own), (other, theirs) in combinations(paths.items(), 2)
        if (overlapping := next((path for path in own if any(_overlap(path, their) for their in theirs)), None))
    ]


def _overlap(first: str, second: str) -> bool:
    """Return whether both paths may cover the same file.

    If both are patterns, only their parts before the first wildcard are compared.
    """
    first, second = first.removesuffix("/"), second.removesuffix("/")
    prefix, second_prefix = _literal_prefix(first), _literal_prefix(second)
    if prefix != first and second_prefix != second:
        return prefix.startswith(second_prefix) or second_prefix.startswith(prefix)
    return _covers(first, second) or _covers(second, first)


def _covers(pattern: str, path: str) -> bool:
    """Return whether the pattern matches the path, or a folder that contains the path."""
    return fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}/*") or pattern in ("", ".")


def _literal_prefix(pattern: str) -> str:
    """Return the part of a pattern before its first wildcard."""
    return pattern[: min((pattern.index(c) for c in "*?[" if c in pattern), default=len(pattern))]
