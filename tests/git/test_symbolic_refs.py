"""The target of a symbolic ref in the place of a branch or a kept ref is never moved or deleted."""

from collections.abc import Callable
from pathlib import Path

import pytest
from forkjoin.core.error import GitError
from forkjoin.git import kept_refs
from forkjoin.git.fast_import import NewCommit, make_commits
from forkjoin.git.refs import Tip, find_branch, find_symbolic_target, find_tip, find_tips, short_name, update_refs
from forkjoin.git.worktrees import worktree
from support.autocommits import leave_twice
from support.branches import GIT_VERSION, Fork, blob, commit, make_fork
from support.harness import git


@pytest.fixture(
    params=["files", pytest.param("reftable", marks=pytest.mark.skipif(GIT_VERSION < (2, 46), reason="old"))]
)
async def fork(request: pytest.FixtureRequest, user: Path, tmp_path: Path) -> Fork:
    """Return an agent's worktree, while main is one commit ahead.

    The refs are in files or in a reftable.
    """
    repository = tmp_path / "repository"
    form = [] if request.param == "files" else [f"--ref-format={request.param}"]
    git(tmp_path, "init", "-q", *form, str(repository))
    commit(repository, {"shared.txt": "one\n"})
    fork = await make_fork(repository)
    commit(repository, {"others": "x"})
    return fork


def head_leads_to_main(fork: Fork) -> None:
    git(fork.path, "symbolic-ref", "HEAD", "refs/heads/main")


def branch_leads_to_main(fork: Fork) -> None:
    git(fork.repository, "symbolic-ref", f"refs/heads/{fork.branch}", "refs/heads/main")


def branch_leads_there_by_another(fork: Fork) -> None:
    git(fork.repository, "symbolic-ref", "refs/heads/between", "refs/heads/main")
    git(fork.repository, "symbolic-ref", f"refs/heads/{fork.branch}", "refs/heads/between")


def branch_leads_nowhere(fork: Fork) -> None:
    git(fork.repository, "symbolic-ref", f"refs/heads/{fork.branch}", "refs/heads/none")


def branch_leads_in_circles(fork: Fork) -> None:
    git(fork.repository, "symbolic-ref", "refs/heads/other", f"refs/heads/{fork.branch}")
    git(fork.repository, "symbolic-ref", f"refs/heads/{fork.branch}", "refs/heads/other")


def head_leads_out_of_the_branches(fork: Fork) -> None:
    git(fork.path, "update-ref", "refs/elsewhere", "refs/heads/main")
    git(fork.path, "symbolic-ref", "HEAD", "refs/elsewhere")


MEDDLING = [
    *(head_leads_to_main, branch_leads_to_main, branch_leads_there_by_another, branch_leads_nowhere),
    *(branch_leads_in_circles, head_leads_out_of_the_branches),
]


#: A table has no log that git would read of a HEAD without a commit.
WITH_A_COMMIT = (head_leads_to_main, branch_leads_to_main, branch_leads_there_by_another)


@pytest.mark.parametrize("meddle", MEDDLING)
async def test_uncommitted_work_goes_on_top_of_the_agents_last_commit_and_main_stays(
    fork: Fork, meddle: Callable[[Fork], None]
) -> None:
    done, main = commit(fork.path, {"done": "x"}), git(fork.repository, "rev-parse", "main")
    (fork.path / "loose").write_text("y")
    meddle(fork)
    left = await leave_twice(fork)
    print(left)
    assert git(fork.repository, "rev-parse", "main") == main
    if not (fork.repository / ".git" / "reftable").exists() or meddle in WITH_A_COMMIT:
        assert git(fork.repository, "rev-parse", f"{left.tip}^") == done
    assert blob(fork.repository, fork.branch, "loose") == b"y"
    assert await find_symbolic_target(fork.common_dir, f"refs/heads/{fork.branch}") is None


async def test_a_warning_says_that_the_branch_was_symbolic(fork: Fork) -> None:
    branch_leads_to_main(fork)
    assert (
        "The agent's branch was a symbolic ref to refs/heads/main, which counts as gone."
        in (await leave_twice(fork)).warnings
    )


async def test_commits_made_through_a_symbolic_branch_stay_on_its_target(fork: Fork) -> None:
    main = git(fork.repository, "rev-parse", "main")
    branch_leads_to_main(fork)
    done = commit(fork.path, {"done": "x"})
    assert git(fork.repository, "rev-parse", "main^") == main
    assert (await leave_twice(fork)).tip == done
    assert git(fork.repository, "rev-parse", "main") == done


@pytest.mark.parametrize("meddle", MEDDLING[1:5])
async def test_a_symbolic_branch_has_no_tip(fork: Fork, meddle: Callable[[Fork], None]) -> None:
    meddle(fork)
    ref = f"refs/heads/{fork.branch}"
    assert await find_tip(fork.common_dir, ref) is None
    assert await find_tips(fork.common_dir, [ref, "refs/heads/main"]) == {
        "refs/heads/main": Tip(*git(fork.repository, "rev-parse", "main", "main^{tree}").split())
    }


@pytest.mark.parametrize("meddle", MEDDLING[1:5])
async def test_deleting_a_symbolic_branch_deletes_only_that_ref(fork: Fork, meddle: Callable[[Fork], None]) -> None:
    main = git(fork.repository, "rev-parse", "main")
    meddle(fork)
    await worktree.delete_branch(fork.common_dir, fork.branch, None)
    assert git(fork.repository, "rev-parse", "main") == main
    assert await find_symbolic_target(fork.common_dir, f"refs/heads/{fork.branch}") is None
    await worktree.delete_branch(fork.common_dir, fork.branch, None)


async def test_updating_a_symbolic_ref_does_not_change_its_target(fork: Fork) -> None:
    main = git(fork.repository, "rev-parse", "main")
    branch_leads_to_main(fork)
    await update_refs(fork.common_dir, [f"update refs/heads/{fork.branch} {fork.base} {main}"], "why")
    assert git(fork.repository, "rev-parse", "main", fork.branch).split() == [main, fork.base]


@pytest.mark.parametrize("name", ["forkjoin/stream", "forkjoin/kept"])
async def test_making_commits_writes_no_ref(fork: Fork, name: str) -> None:
    git(fork.repository, "symbolic-ref", f"refs/{name}", "refs/heads/main")
    before = git(fork.repository, "for-each-ref")
    who = "a <b> 0 +0000"
    (made,) = await make_commits(fork.common_dir, fork.base, [NewCommit([], None, "message", who, who)])
    assert git(fork.repository, "rev-parse", f"{made.commit}^") == fork.base
    assert git(fork.repository, "for-each-ref") == before


@pytest.mark.parametrize("leads_to", ["refs/heads/main", "refs/heads/none"])
async def test_a_symbolic_ref_does_not_count_as_a_kept_ref(fork: Fork, leads_to: str) -> None:
    tip, main = commit(fork.path, {"done": "x"}), git(fork.repository, "rev-parse", "main")
    git(fork.repository, "symbolic-ref", "refs/forkjoin/kept/a1-left", leads_to)
    ref = await kept_refs.keep_commit(fork.common_dir, tip, "a1-left")
    assert await find_tip(fork.common_dir, ref) == tip
    assert await kept_refs.find_kept_ref(fork.common_dir, "a1-left") == ref
    assert git(fork.repository, "rev-parse", "main") == main
    assert await find_tip(fork.common_dir, "refs/heads/none") is None


async def test_a_commit_is_kept_under_the_next_name_if_a_ref_is_below_the_first(fork: Fork) -> None:
    tip = commit(fork.path, {"done": "x"})
    git(fork.repository, "update-ref", "refs/forkjoin/kept/a1-left/below", fork.base)
    assert await kept_refs.keep_commit(fork.common_dir, tip, "a1-left") == "refs/forkjoin/kept/a1-left-2"
    git(fork.repository, "update-ref", "refs/forkjoin/kept/a2", fork.base)
    with pytest.raises(GitError):
        await kept_refs.keep_commit(fork.common_dir, tip, "a2/x")


@pytest.mark.parametrize("leads_to", ["refs/heads/main", "refs/heads/none"])
async def test_a_new_agents_branch_replaces_a_planted_symbolic_ref(fork: Fork, tmp_path: Path, leads_to: str) -> None:
    git(fork.repository, "symbolic-ref", "refs/heads/forkjoin/a2-new", leads_to)
    before = git(fork.repository, "for-each-ref", "refs/heads/main", "refs/heads/none")
    branch = await worktree.make(fork.common_dir, tmp_path / "a2-new", "forkjoin/a2-new", fork.base, "a2 of /somewhere")
    assert await find_tip(fork.common_dir, f"refs/heads/{branch}") == fork.base
    commit(tmp_path / "a2-new", {"done": "x"})
    assert git(fork.repository, "for-each-ref", "refs/heads/main", "refs/heads/none") == before


async def test_a_branch_that_points_to_no_commit_does_not_hide_other_branches(fork: Fork) -> None:
    if (Path(fork.common_dir) / "reftable").exists():
        pytest.skip("git writes no such ref to a table")
    file = Path(fork.common_dir, "refs", "heads", "damaged")
    for id_ in ("1" * 40, git(fork.repository, "rev-parse", "main:shared.txt"), "garbage"):
        file.write_text(f"{id_}\n")
        assert list(await find_tips(fork.common_dir, ["refs/heads/damaged", "refs/heads/main"])) == ["refs/heads/main"]
        assert await find_tip(fork.common_dir, "refs/heads/damaged") is None


async def test_a_ref_name_with_an_unusual_line_end_is_one_name(fork: Fork) -> None:
    name = "refs/heads/next\u2028line\x85end"
    git(fork.repository, "update-ref", name, fork.base)
    assert list(await find_tips(fork.common_dir, [name])) == [name]
    assert await find_branch(fork.common_dir, short_name(name)) == name
    assert await kept_refs.is_reachable_elsewhere(fork.common_dir, commit(fork.path, {"done": "x"}), fork.base) is False
