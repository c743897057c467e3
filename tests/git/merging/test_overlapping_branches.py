"""Which branches git must merge, and which of them have nothing to do with each other."""

import pytest
from forkjoin.git.changed_paths import PathChange
from forkjoin.git.merging.overlapping_branches import find_overlapping_branches


def changes(words: str) -> list[PathChange]:
    """`+new -old file`: what is added, what is deleted, and what is changed."""
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
        (["a b", "b c", "d", "c"], "", [[0, 1, 3]]),  # by what is between them
        (["a", "b", "a", "b", "c"], "", [[0, 2], [1, 3]]),
        (["a", "b", "a b"], "", [[0, 1, 2]]),  # two chains that the third joins
        (["f", "+f/x", "g", "+g/x"], "", [[0, 1], [2, 3]]),  # a file and what is below it
        (["+f/x", "+f/y"], "", []),  # the same folder is no meeting
        (["a", "b", "c"], "a b", [[0], [1]]),  # with the target
        (["a", "a", "b", "b"], "-c", [[0, 1, 2, 3]]),  # what was deleted may be half of a rename
        (["+new", "b", "-a"], "", [[0, 2]]),
        (["a", "a", "b", "b .gitattributes"], "", [[0, 1, 2, 3]]),
    ],
)
def test_those_that_meet_are_chained_and_the_others_left_aside(
    theirs: list[str], ours: str, expected: list[list[int]]
) -> None:
    left_at = ["base"] * len(theirs)
    assert find_overlapping_branches([changes(words) for words in theirs], left_at, {"base": changes(ours)}) == expected
