"""Refs and revisions: the commits that they mean, and changes of refs."""

from pathlib import Path

import pytest
from forkjoin.core.error import GitError
from forkjoin.git.refs import (
    Tip,
    find_branch,
    find_tip,
    find_tips,
    is_branch_name,
    resolve_commit,
    update_refs,
)
from support.branches import commit
from support.harness import git


@pytest.mark.parametrize("name", ["main", "refs/heads/main", "HEAD", "v1", "@"])
async def test_a_name_resolves_to_its_commit(repository: Path, name: str) -> None:
    git(repository, "tag", "-a", "-m", "one", "v1")
    assert await resolve_commit(repository, name) == git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "name", ["", "none", "--help", "-b", "main:README.md", "a..b", "@{-1}", "a\0b", "\ud800", "é" * 100_000, "x\ny"]
)
async def test_a_name_without_a_commit_resolves_to_none(repository: Path, name: str) -> None:
    assert await resolve_commit(repository, name) is None


async def test_a_tip_is_found_by_the_exact_ref_only(repository: Path) -> None:
    git(repository, "branch", "refs/heads/ghost")
    assert await resolve_commit(repository, "refs/heads/ghost"), "git itself would look further"
    assert await find_tip(repository, "refs/heads/ghost") is None


async def test_missing_branches_have_no_tip(repository: Path) -> None:
    git(repository, "branch", "one")
    commits = {
        "refs/heads/one": git(repository, "rev-parse", "HEAD"),
        "refs/heads/main": commit(repository, {"new": "x"}),
    }
    found = await find_tips(repository, [*commits, "refs/heads/none", "--help"])
    assert found == {ref: Tip(made, git(repository, "rev-parse", f"{made}^{{tree}}")) for ref, made in commits.items()}


async def test_a_branch_is_found_by_its_name_alone(repository: Path) -> None:
    git(repository, "branch", "folder/main")
    git(repository, "tag", "v1")
    assert await find_branch(repository, "main") == "refs/heads/main"
    for name in ("folder", "v1", "HEAD", "-b", "main~0", "a\0b"):
        assert await find_branch(repository, name) is None


async def test_a_symbolic_branch_resolves_to_its_target(repository: Path) -> None:
    git(repository, "symbolic-ref", "refs/heads/master", "refs/heads/main")
    assert await find_branch(repository, "master") == "refs/heads/main"


@pytest.mark.parametrize("name", ["main", "forkjoin/a1-x", "ünï", "(x)", "a.b"])
async def test_valid_branch_names_are_accepted(name: str) -> None:
    assert await is_branch_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-b",
        "--upload-pack=touch X",
        "a..b",
        "x.lock",
        "@{-1}",
        "a b",
        "a\nb",
        "a\0b",
        "\ud800",
        "/a",
        "a/",
        "é" * 9999,
    ],
)
async def test_invalid_branch_names_are_rejected(name: str) -> None:
    assert not await is_branch_name(name)


async def test_several_refs_change_atomically(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    with pytest.raises(GitError, match="refs/heads/main"):
        await update_refs(repository, [f"create refs/heads/new {head}", f"create refs/heads/main {head}"], "why")
    assert git(repository, "branch", "--list", "--format=%(refname:short)") == "main"


async def test_a_new_ref_has_a_reflog_despite_core_logallrefupdates(repository: Path) -> None:
    git(repository, "config", "core.logAllRefUpdates", "false")
    await update_refs(repository, [f"create refs/heads/new {git(repository, 'rev-parse', 'HEAD')}"], "the reason")
    assert git(repository, "log", "--walk-reflogs", "--format=%gs", "new") == "the reason"
