"""The groups of branches that git must merge, because they change the same files."""

import pytest
from forkjoin.git.changed_paths import PathChange
from forkjoin.git.merging.overlapping_branches import find_overlapping_branches


def changes(words: str) -> list[PathChange]:
    """Return the changes of words such as `+added -deleted changed`."""
    nothing, something = ("000000", "0" * 40), ("100644", "1" * 40)
    return [
        PathChange(
            word.lstrip("+-"),
            nothing if word.startswith("+") else something,
            nothing if word.startswith("-") else something,
        )
        for word in words.split()
    ]


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        (["a", "b"], "c", []),
        (["a b", "b c", "d", "c"], "", [[0, 1, 3]]),  # linked by the second
        (["a", "b", "a", "b", "c"], "", [[0, 2], [1, 3]]),
        (["a", "b", "a b"], "", [[0, 1, 2]]),  # two groups that the third joins
        (["f", "+f/x", "g", "+g/x"], "", [[0, 1], [2, 3]]),  # a file and a path below that file
        (["+f/x", "+f/y"], "", []),  # files in the same folder do not overlap
        (["a", "b", "c"], "a b", [[0], [1]]),  # each overlaps with the target
        (["a", "a", "b", "b"], "-c", [[0, 1, 2, 3]]),  # a deletion may be half of a rename
        (["+new", "b", "-a"], "", [[0, 2]]),
        (["a", "a", "b", "b .gitattributes"], "", [[0, 1, 2, 3]]),
    ],
)
def test_overlapping_branches_are_grouped_and_others_are_omitted(
    theirs: list[str], ours: str, expected: list[list[int]]
) -> None:
    left_at = ["base"] * len(theirs)
    assert find_overlapping_branches([changes(words) for words in theirs], left_at, {"base": changes(ours)}) == expected
