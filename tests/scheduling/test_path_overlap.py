"""Declared paths that meet."""

import pytest
from forkjoin.scheduling.path_overlap import find_overlaps


@pytest.mark.parametrize(
    ("one", "other"),
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
def test_these_meet(one: str, other: str) -> None:
    assert find_overlaps({"x": [one], "y": [other]}) == [("x", "y", one)]
    assert find_overlaps({"x": [other], "y": [one]}) == [("x", "y", other)]


@pytest.mark.parametrize(
    ("one", "other"), [("a.py", "b.py"), ("src", "source"), ("src/*.py", "docs/*.md"), ("src/*.py", "src/a.c")]
)
def test_these_do_not(one: str, other: str) -> None:
    assert find_overlaps({"x": [one], "y": [other]}) == []


def test_each_pair_is_told_once_and_who_declares_nothing_meets_nobody() -> None:
    declared = {"x": ["a", "b"], "y": ["b", "a"], "z": ["b"], "quiet": []}
    assert find_overlaps(declared) == [("x", "y", "a"), ("x", "z", "b"), ("y", "z", "b")]
