"""Which branches meet in what they have changed, so that git must merge them; others can only be merged in one way."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from forkjoin.branch.change import Change, above


def find_meeting(theirs: Sequence[Sequence[Change]], ours: Sequence[Sequence[Change]]) -> list[list[int]]:
    """The branches, by place, that git must merge: in chains, of which one has nothing to do with another.

    Told by what each has changed, and what the target has since it left. Where anything was deleted, whatever is new
    may be git's other half of a rename, or be in a folder that moved away: all of them are one chain then.

    Args:
        theirs: What each branch has changed.
        ours: What the target has changed since each of them left.
    """
    paths = Counter(change.path for changes in theirs for change in changes)
    everybodys = _Touched(paths)
    targets = {id(changes): _Touched([change.path for change in changes]) for changes in ours}
    deleting = any(change.kind == "D" for changes in (*theirs, *ours) for change in changes)
    meeting = [
        place
        for place, (changes, since) in enumerate(zip(theirs, ours, strict=True))
        if any(
            change.kind == "D"
            or (change.kind == "A" and deleting)
            or _sets_attributes(change)
            or paths[change.path] > 1
            or everybodys.is_around(change.path)
            or targets[id(since)].has(change.path)
            for change in changes
        )
    ]
    if deleting or any(_sets_attributes(change) for place in meeting for change in theirs[place]):
        return [meeting] if meeting else []
    return _chain({place: set(everybodys.above(theirs[place])) for place in meeting})


def _sets_attributes(change: Change) -> bool:
    return change.path.endswith(".gitattributes")


def _chain(touched: dict[int, set[str]]) -> list[list[int]]:
    """These places, those together that touch a path in common, directly or by others between them."""
    chains: list[tuple[list[int], set[str]]] = []
    for place, paths in touched.items():
        near = [chain for chain in chains if not chain[1].isdisjoint(paths)]
        chains = [chain for chain in chains if chain[1].isdisjoint(paths)]
        places = sorted([place, *(one for chain in near for one in chain[0])])
        chains.append((places, paths.union(*(chain[1] for chain in near))))
    return [places for places, _ in chains]


class _Touched:
    """Paths that were changed, and the folders they are in."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._folders = frozenset(folder for path in self._paths for folder in above(path))

    def is_around(self, path: str) -> bool:
        """Whether one of them is above this path, or below it."""
        return path in self._folders or any(folder in self._paths for folder in above(path))

    def has(self, path: str) -> bool:
        return path in self._paths or self.is_around(path)

    def above(self, changes: Iterable[Change]) -> Iterator[str]:
        """The paths of these changes, and those of its own that are above them."""
        for change in changes:
            yield change.path
            yield from (folder for folder in above(change.path) if folder in self._paths)
