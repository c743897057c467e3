"""Merges that move a submodule: its commit is saved, and stays after the agent's worktree is removed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.git.worktrees.delete_path import delete_path
from support.branches import commit
from support.harness import Lead, git, open_lead_in_memory

_ALLOW = "git -c protocol.file.allow=always"
_MOVE = (
    f"{_ALLOW} submodule update -q --init && echo new > lib/new.txt && git -C lib add . && git -C lib commit -qm new"
    " && git add lib && git commit -qm moved"
)


@pytest.fixture
async def near(repository: Path, home: Home, tmp_path: Path) -> AsyncIterator[Lead]:
    """Yield a lead in a repository with a submodule."""
    git(tmp_path, "init", "-q", "library")
    commit(tmp_path / "library", {"lib.txt": "x\n"})
    allow = ("-c", "protocol.file.allow=always")
    git(repository, *allow, "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    git(repository, "commit", "-qm", "with a submodule")
    async with open_lead_in_memory(home, repository) as lead:
        yield lead


@pytest.mark.parametrize("strategy", ["merge", "squash"])
async def test_the_users_submodule_has_the_merged_commit_after_the_agent_is_removed(
    near: Lead, repository: Path, tmp_path: Path, strategy: str
) -> None:
    (first,) = await near.run(_MOVE)
    assert "exists only in the worktree" in " ".join((await near.call("get_result", id=first))["warnings"])
    assert "Unmerged work" in await near.refusal("remove_worktrees", ids=[first])
    assert (await near.call("merge_worktree", ids=[first], strategy=strategy))["merged"]
    await near.call("remove_worktrees", ids=[first])
    (tmp_path / "library").rename(tmp_path / "away")
    git(repository, "submodule", "update", "-q")
    assert (repository / "lib" / "new.txt").read_text() == "new\n"


@pytest.mark.parametrize("is_ready", [True, False])
async def test_the_submodule_of_a_linked_worktree_on_the_target_has_the_merged_commit(
    near: Lead, repository: Path, tmp_path: Path, is_ready: bool
) -> None:
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", "-q", "-b", "work", str(linked))
    update = ("-c", "protocol.file.allow=always", "submodule", "update", "-q", "--init")
    if is_ready:
        git(linked, *update)
    (first,) = await near.run(_MOVE)
    assert (await near.call("merge_worktree", ids=[first], into="work"))["merged"]
    await near.call("remove_worktrees", ids=[first])
    git(linked, *update)
    assert (linked / "lib" / "new.txt").read_text() == "new\n"
    assert git(repository, "-C", ".git/modules/lib", "for-each-ref", "refs/forkjoin/kept/")


async def test_a_branch_whose_submodule_commit_is_lost_is_skipped_and_the_others_are_merged(
    near: Lead, repository: Path, home: Home
) -> None:
    first, second = await near.run(_MOVE, "echo y > y.txt")
    (gone,) = (repository / ".git" / "worktrees").glob(f"{first}-*/modules")
    delete_path(gone)
    before = git(repository, "rev-parse", "main")
    answer = await near.call("merge_worktree", ids=[first, second])
    (skipped,) = answer["skipped"]
    assert skipped["id"] == first
    assert "of its submodule lib is in no repository here" in skipped["why"]
    assert [one["id"] for one in answer["merged"]] == [second]
    assert git(repository, "diff", "--name-only", before, "main") == "y.txt"


async def test_a_dry_run_copies_no_submodule_commit(near: Lead, repository: Path) -> None:
    (first,) = await near.run(_MOVE)
    await near.call("merge_worktree", ids=[first], dry_run=True)
    module = repository / ".git" / "modules" / "lib"
    assert git(module, "for-each-ref", "refs/forkjoin") == ""


async def test_discarded_uncommitted_work_in_a_submodule_is_kept(near: Lead, repository: Path) -> None:
    (first,) = await near.run(f"{_ALLOW} submodule update -q --init && echo new > lib/new.txt")
    assert "lib (1 uncommitted path)" in await near.refusal("remove_worktrees", ids=[first])
    (warning,) = (await near.call("remove_worktrees", ids=[first], discard_unmerged=True))["warnings"]
    assert "lib (1 uncommitted path) is kept in refs/forkjoin/kept/nested/" in warning
