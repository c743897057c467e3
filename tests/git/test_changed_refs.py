"""Listings of a repository's refs, and the refs that changed between two listings."""

from pathlib import Path

import pytest
from forkjoin.git import changed_refs
from forkjoin.git.changed_refs import find_changed_refs, read_ref_listing
from support.harness import git


async def test_a_ref_whose_name_has_an_unusual_line_end_is_compared_like_any_other(repository: Path) -> None:
    common_dir = str(repository / ".git")
    before = await read_ref_listing(common_dir)
    git(repository, "branch", "next\u2028line\x85end")
    after = await read_ref_listing(common_dir)
    assert before is not None
    assert after is not None
    assert [str(change) for change in find_changed_refs(before, after, {})] == ["next\u2028line\x85end (new)"]


async def test_a_listing_that_was_cut_within_a_name_counts_as_too_large(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository, "branch", "ü" * 50)
    monkeypatch.setattr(changed_refs, "_LISTING_LIMIT", 160)
    assert await read_ref_listing(str(repository / ".git")) is None
