"""Which branches meet in what they have changed, so that git must merge them; others can only be merged in one way."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

from forkjoin.git.changed_paths import PathChange, parent_folders


def find_overlapping_branches(
    theirs: Sequence[Sequence[PathChange]], left_at: Sequence[str], ours: Mapping[str, Sequence[PathChange]]
) -> list[list[int]]:
    """The branches, by place, that git must merge: in chains, of which one has nothing to do with another.

    Told by what each has changed, and what the target has since it left. Where anything was deleted, whatever is new
    may be git's other half of a rename, or be in a folder that moved away: all of them are one chain then.

    Args:
        theirs: What each branch has changed.
        left_at: Where each of them left.
        ours: What the target has changed since.
    """
    everything = [change for changes in (*theirs, *ours.values()) for change in changes]
    changed = {change.path for change in everything}
    touched = [_touch(changes, changed) for changes in theirs]
    targets = {base: _touch(changes, changed) for base, changes in ours.items()}
    often = Counter(path for paths in touched for path in paths)
    deleting = any(change.kind == "D" for change in everything)
    meeting = [
        place
        for place, (changes, paths, base) in enumerate(zip(theirs, touched, left_at, strict=True))
        if any(one.kind == "D" or (one.kind == "A" and deleting) or _sets_attributes(one) for one in changes)
        or any(often[path] > 1 for path in paths)
        or not paths.isdisjoint(targets[base])
    ]
    if deleting or any(_sets_attributes(change) for place in meeting for change in theirs[place]):
        return [meeting] if meeting else []
    return _chain({place: touched[place] for place in meeting})


def _touch(changes: Iterable[PathChange], changed: Set[str]) -> set[str]:
    """The paths of these changes, and of all that were changed those that are above one of them."""
    return {path for change in changes for path in (change.path, *parent_folders(change.path)) if path in changed}


def _sets_attributes(change: PathChange) -> bool:
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
