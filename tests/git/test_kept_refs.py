"""Kept refs keep work reachable that no branch has, and git tells which work that is."""

from pathlib import Path

import pytest
from forkjoin.core.error import GitError
from forkjoin.git import kept_refs
from support.branches import Fork, commit
from support.harness import git


async def test_a_commit_that_was_kept_under_the_same_name_stays_kept(fork: Fork) -> None:
    first, second = commit(fork.path, {"new": "one"}), commit(fork.path, {"new": "two"})
    for tip, ref in ((first, "a1-left"), (second, "a1-left-2"), (first, "a1-left"), (second, "a1-left-2")):
        assert await kept_refs.keep_commit(fork.common_dir, tip, "a1-left") == f"refs/forkjoin/kept/{ref}"
    assert git(fork.repository, "rev-parse", "refs/forkjoin/kept/a1-left-2") == second


async def test_the_base_and_its_ancestors_are_reachable_elsewhere(fork: Fork) -> None:
    later = commit(fork.path, {"new": "x"})
    assert await kept_refs.is_reachable_elsewhere(fork.common_dir, fork.base, fork.base)
    assert await kept_refs.is_reachable_elsewhere(fork.common_dir, fork.base, later)
    assert not await kept_refs.is_reachable_elsewhere(fork.common_dir, later, fork.base)


#: Refs to a commit, and whether they keep it.
REFS = [
    ("refs/heads/develop", True),
    ("refs/tags/v1", True),
    ("refs/heads/mine/forkjoin/a1-x", True),
    ("refs/heads/forkjoin/a2-right", False),
    ("refs/heads/forkjoin-a2-right", False),
    ("refs/heads/forkjoin/a2-right-2", False),
    ("refs/remotes/origin/x", False),
    ("refs/stash", False),
]


@pytest.mark.parametrize(("ref", "keeps"), REFS)
async def test_a_persons_branches_and_tags_keep_a_commit_and_agents_branches_do_not(
    fork: Fork, ref: str, keeps: bool
) -> None:
    tip = commit(fork.path, {"new": "x"})
    git(fork.repository, "update-ref", ref, commit(fork.path, {"later": "y"}))
    assert await kept_refs.is_reachable_elsewhere(fork.common_dir, tip, fork.base) == keeps


async def test_a_symbolic_ref_to_an_agents_branch_keeps_nothing(fork: Fork) -> None:
    tip = commit(fork.path, {"new": "x"})
    git(fork.repository, "symbolic-ref", "refs/heads/alias", f"refs/heads/{fork.branch}")
    assert not await kept_refs.is_reachable_elsewhere(fork.common_dir, tip, fork.base)


async def test_a_missing_commit_raises_an_error(fork: Fork) -> None:
    tip = commit(fork.path, {"new": "x"})
    Path(fork.common_dir, "objects", tip[:2], tip[2:]).unlink()
    with pytest.raises(GitError):
        await kept_refs.is_reachable_elsewhere(fork.common_dir, tip, fork.base)
