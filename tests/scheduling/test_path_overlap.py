"""The overlaps between the paths that agents declare."""

import pytest
from forkjoin.scheduling.path_overlap import find_overlaps


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.py", "a.py"),
        ("src/", "src/a.py"),
        ("src", "src/deep/a.py"),
        ("src/*.py", "src/a.py"),
        ("src/*.py", "src/"),
        ("src/a*", "src/*.py"),
        (".", "anything"),
        ("**", "docs/*.md"),
    ],
)
def test_overlapping_paths_are_found(first: str, second: str) -> None:
    assert find_overlaps({"x": [first], "y": [second]}) == [("x", "y", first)]
    assert find_overlaps({"x": [second], "y": [first]}) == [("x", "y", second)]


@pytest.mark.parametrize(
    ("first", "second"), [("a.py", "b.py"), ("src", "source"), ("src/*.py", "docs/*.md"), ("src/*.py", "src/a.c")]
)
def test_separate_paths_do_not_overlap(first: str, second: str) -> None:
    assert find_overlaps({"x": [first], "y": [second]}) == []


def test_each_pair_is_reported_once_and_an_agent_without_paths_has_no_overlap() -> None:
    declared = {"x": ["a", "b"], "y": ["b", "a"], "z": ["b"], "quiet": []}
    assert find_overlaps(declared) == [("x", "y", "a"), ("x", "z", "b"), ("y", "z", "b")]
