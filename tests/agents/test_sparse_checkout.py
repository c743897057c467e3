"""Sparse checkouts: agents get a sparse worktree, and merges are verified on all files."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import commit, contents
from support.harness import Lead, git, lead_of, open_reconciler_in_memory


@pytest.fixture
def sparse(repository: Path) -> Path:
    """Return a repository whose sparse checkout has one of two folders."""
    commit(repository, {"here/file": "x\n", "away/file": "x\n"})
    git(repository, "sparse-checkout", "set", "here")
    return repository


def files_at(repository: Path, agent: str) -> list[str]:
    (path,) = (repository.parent / "forkjoin" / "worktrees").glob(f"*/{agent}-*")
    return sorted(contents(path))


WHOLE = ["README.md", "away/file", "here/file", "shared.txt"]


async def test_an_agents_worktree_is_as_sparse_as_the_checkout_unless_the_spec_says_otherwise(
    sparse: Path, near_lead: Lead
) -> None:
    await near_lead.run("true")
    await near_lead.run("true", sparse=False)
    assert files_at(sparse, "a1") == ["README.md", "here/file", "shared.txt"]
    assert files_at(sparse, "a2") == WHOLE


@pytest.mark.parametrize("main_is_sparse", [True, False])
async def test_an_agents_worktree_is_as_sparse_as_the_linked_worktree_of_its_lead(
    repository: Path, home: Home, tmp_path: Path, main_is_sparse: bool
) -> None:
    commit(repository, {"here/file": "x\n", "away/file": "x\n"})
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", "-q", "--detach", str(linked))
    git(repository if main_is_sparse else linked, "sparse-checkout", "set", "here")
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, linked) as lead:
        await lead.run("true")
    assert files_at(repository, "a1") == (WHOLE if main_is_sparse else ["README.md", "here/file", "shared.txt"])


async def test_a_merge_is_verified_on_all_files_and_the_checkout_stays_sparse(sparse: Path, near_lead: Lead) -> None:
    await near_lead.run("echo > here/new", "mkdir -p away; echo broken > away/file", verify="true")
    results = [await near_lead.call("get_result", id=id_) for id_ in ("a1", "a2")]
    assert all(any("sparse checkout" in warning for warning in result["warnings"]) for result in results)
    verify = "test -e away/file && ! grep broken away/file"
    answer = await near_lead.call("merge_worktree", ids=["a1", "a2"], verify=verify)
    assert ([agent["id"] for agent in answer["merged"]], [agent["id"] for agent in answer["rejected"]]) == (
        ["a1"],
        ["a2"],
    )
    answer = await near_lead.call("merge_worktree", ids=["a2"])
    assert [agent["id"] for agent in answer["merged"]] == ["a2"]
    assert sorted(contents(sparse)) == ["README.md", "here/file", "here/new", "shared.txt"]
    assert git(sparse, "status", "--porcelain") == ""
    assert git(sparse, "ls-files", "-t", "away") == "S away/file"
