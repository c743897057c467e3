"""Branches that git must merge, because they change the same paths or may be affected by renames.

All other branches can be merged in only one way: by applying their changes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

from forkjoin.git.changed_paths import PathChange, parent_folders


def find_overlapping_branches(
    theirs: Sequence[Sequence[PathChange]], bases: Sequence[str], ours: Mapping[str, Sequence[PathChange]]
) -> list[list[int]]:
    """Return the groups of branches that git must merge, as indexes of the branches.

    Branches of different groups don't affect each other. A branch in no group needs no merge.

    If any file was deleted, git may take a new file for the other half of a rename, or for a file of a renamed folder.
    Then all overlapping branches are one group.

    Args:
        theirs: For each branch, its changes since its base.
        bases: For each branch, the tree of its base.
        ours: The target's changes since each base, by the base's tree.
    """
    everything = [change for changes in (*theirs, *ours.values()) for change in changes]
    changed = {change.path for change in everything}
    touched = [_touched_paths(changes, changed) for changes in theirs]
    target = {base: _touched_paths(changes, changed) for base, changes in ours.items()}
    counts = Counter(path for paths in touched for path in paths)
    has_deletions = any(change.kind == "D" for change in everything)
    overlapping = [
        index
        for index, (changes, paths, base) in enumerate(zip(theirs, touched, bases, strict=True))
        if any(one.kind == "D" or (one.kind == "A" and has_deletions) or _sets_attributes(one) for one in changes)
        or any(counts[path] > 1 for path in paths)
        or not paths.isdisjoint(target[base])
    ]
    if has_deletions or any(_sets_attributes(change) for index in overlapping for change in theirs[index]):
        return [overlapping] if overlapping else []
    return _group({index: touched[index] for index in overlapping})


def _touched_paths(changes: Iterable[PathChange], changed: Set[str]) -> set[str]:
    """Return those of the changes' paths and parent folders that are in `changed`."""
    return {path for change in changes for path in (change.path, *parent_folders(change.path)) if path in changed}


def _sets_attributes(change: PathChange) -> bool:
    return change.path.endswith(".gitattributes")


def _group(touched: dict[int, set[str]]) -> list[list[int]]:
    """Return the indexes in groups. Indexes with a path in common share a group.

    Args:
        touched: The paths of each index.
    """
    groups: list[tuple[list[int], set[str]]] = []
    for index, paths in touched.items():
        related = [group for group in groups if not group[1].isdisjoint(paths)]
        groups = [group for group in groups if group[1].isdisjoint(paths)]
        indexes = sorted([index, *(one for group in related for one in group[0])])
        groups.append((indexes, paths.union(*(group[1] for group in related))))
    return [indexes for indexes, _ in groups]
