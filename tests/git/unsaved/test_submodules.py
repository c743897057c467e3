"""Submodule commits that a branch names still exist when their worktree is gone."""

from pathlib import Path

import pytest
from forkjoin.git.changed_paths import PathChange, changes_between
from forkjoin.git.unsaved.submodules import SaveOptions, save_submodule_commits
from forkjoin.git.unsaved.unsaved_work import find_unsaved_work
from forkjoin.git.worktrees import worktree
from forkjoin.git.worktrees.delete_path import delete_path
from support.branches import Fork, commit, make_fork, write
from support.harness import git

ALLOW = ("-c", "protocol.file.allow=always")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "library"
    git(tmp_path, "init", "-q", str(path))
    commit(path, {"lib.txt": "x\n"})
    return path


def add(where: Path, library: Path, path: str = "lib", *options: str) -> None:
    git(where, *ALLOW, "submodule", "add", "-q", *options, str(library), path)
    git(where, "commit", "-qm", "with a submodule")


async def make(repository: Path) -> Fork:
    """Make an agent's worktree with initialised submodules."""
    fork = await make_fork(repository)
    git(fork.path, *ALLOW, "submodule", "update", "-q", "--init", "--recursive")
    return fork


def move(fork: Fork, path: str = "lib") -> str:
    """Commit in a submodule, then commit the submodule's change in the worktree.

    Return the submodule's commit.
    """
    done = commit(fork.path / path, {"new.txt": "new\n"})
    git(fork.path, "add", path)
    git(fork.path, "commit", "-qm", "moved")
    return done


async def changes(fork: Fork) -> list[PathChange]:
    return [one for one in await changes_between(fork.common_dir, fork.base, fork.tip()) if one.new[0] == "160000"]


async def keep(fork: Fork, *, dry_run: bool = False) -> str | None:
    return await save_submodule_commits(
        fork.common_dir, fork.tip(), await changes(fork), SaveOptions("a1-left", dry_run)
    )


async def land(fork: Fork) -> None:
    """Merge the branch, remove the worktree and update the user's submodules.

    No remote is available for the update.
    """
    assert await keep(fork) is None
    assert await find_unsaved_work(fork.common_dir, fork.path, fork.base) == []
    git(fork.repository, "merge", "-q", "--ff-only", fork.branch)
    await worktree.remove(fork.common_dir, fork.path)
    (fork.repository.parent / "library").rename(fork.repository.parent / "away")
    git(fork.repository, "submodule", "update", "-q", "--init", "--recursive")


@pytest.mark.parametrize("is_ready", [True, False])
async def test_the_user_gets_a_commit_that_was_pushed_nowhere(repository: Path, library: Path, is_ready: bool) -> None:
    add(repository, library)
    if not is_ready:
        git(repository, "submodule", "deinit", "-q", "-f", "lib")
        delete_path(repository / ".git" / "modules")
    fork = await make(repository)
    done = move(fork)
    assert await keep(fork, dry_run=True) is None
    assert git(repository, "for-each-ref", "refs/forkjoin") == ""
    await land(fork)
    module = repository / ".git" / "modules" / "lib"
    assert git(module, "for-each-ref", "--format=%(objectname) %(refname)", "refs/forkjoin").splitlines() == [
        f"{done} refs/forkjoin/kept/a1-left-{done[:12]}"
    ]
    assert (repository / "lib" / "new.txt").read_text() == "new\n"
    assert git(repository, "status", "--porcelain") == ""
    assert git(module, "fsck", "--strict", "--no-dangling") == ""
    assert list(module.rglob("forkjoin-*")) == list((repository / ".git").glob("forkjoin-*")) == []


async def test_a_submodule_that_the_agent_added_comes_along(repository: Path, library: Path) -> None:
    fork = await make(repository)
    add(fork.path, library, "deep/lib", "--name", "a/b")
    move(fork, "deep/lib")
    await land(fork)
    assert (repository / "deep" / "lib" / "new.txt").read_text() == "new\n"
    assert (repository / ".git" / "modules" / "a" / "b" / "HEAD").exists()


async def test_a_repository_that_the_agent_added_as_it_is_comes_along(repository: Path) -> None:
    fork = await make(repository)
    git(fork.path, "init", "-q", "own")
    done = commit(fork.path / "own", {"a": "x"})
    git(fork.path, "-c", "advice.addEmbeddedRepo=false", "add", "own")
    git(fork.path, "commit", "-qm", "own")
    assert await keep(fork) is None
    assert git(repository / ".git" / "modules" / "own", "cat-file", "-t", done) == "commit"
    assert await find_unsaved_work(fork.common_dir, fork.path, fork.base) == []


async def test_a_submodule_of_old_form_is_given_the_commit(repository: Path, library: Path) -> None:
    add(repository, library)
    (repository / "lib" / ".git").unlink()
    (repository / ".git" / "modules" / "lib").rename(repository / "lib" / ".git")
    git(repository, "config", "--file", "lib/.git/config", "--unset", "core.worktree")
    fork = await make(repository)
    move(fork)
    assert await keep(fork) is None
    assert await find_unsaved_work(fork.common_dir, fork.path, fork.base) == []
    await worktree.remove(fork.common_dir, fork.path)
    git(repository, "merge", "-q", "--ff-only", fork.branch)
    library.rename(library.with_name("away"))
    git(repository, "submodule", "update", "-q")
    assert (repository / "lib" / "new.txt").read_text() == "new\n"


@pytest.mark.parametrize("is_ready", [True, False])
async def test_submodules_of_submodules_come_along(
    repository: Path, library: Path, tmp_path: Path, is_ready: bool
) -> None:
    git(tmp_path, "clone", "-q", str(library), "outer")
    git(tmp_path / "outer", *ALLOW, "submodule", "add", "-q", str(library), "inner")
    git(tmp_path / "outer", "commit", "-qm", "with a submodule")
    add(repository, tmp_path / "outer", "lib")
    if is_ready:
        git(repository, *ALLOW, "submodule", "update", "-q", "--init", "--recursive")
    fork = await make(repository)
    commit(fork.path / "lib" / "inner", {"deep.txt": "deep\n"})
    git(fork.path / "lib", "add", "inner")
    git(fork.path / "lib", "commit", "-qm", "inner moved")
    git(fork.path, "add", "lib")
    git(fork.path, "commit", "-qm", "lib moved")
    await land(fork)
    assert (repository / "lib" / "inner" / "deep.txt").read_text() == "deep\n"


async def test_another_agents_commit_is_found_in_its_worktree(repository: Path, library: Path) -> None:
    add(repository, library)
    first = await make(repository)
    move(first)
    second = await make_fork(repository, "a2-left")
    git(second.path, "merge", "-q", "--ff-only", first.branch)
    assert await keep(second) is None
    assert await find_unsaved_work(first.common_dir, first.path, first.base) == []


async def test_what_was_made_besides_is_kept_too(repository: Path, library: Path) -> None:
    add(repository, library)
    fork = await make(repository)
    aside = commit(fork.path / "lib", {"aside.txt": "x"})
    git(fork.path / "lib", "branch", "aside")
    git(fork.path / "lib", "reset", "-q", "--hard", "HEAD~")
    move(fork)
    assert [str(one) for one in await find_unsaved_work(fork.common_dir, fork.path, fork.base)] == ["lib (2 commits)"]
    assert await keep(fork) is None
    assert await find_unsaved_work(fork.common_dir, fork.path, fork.base) == []
    module = repository / ".git" / "modules" / "lib"
    assert git(module, "rev-parse", f"refs/forkjoin/kept/a1-left-{aside[:12]}") == aside


async def test_a_commit_that_nobody_has_is_refused(repository: Path, library: Path) -> None:
    add(repository, library)
    fork = await make_fork(repository)
    git(library, "commit", "-q", "--allow-empty", "-m", "newer")
    newer = git(library, "rev-parse", "HEAD")
    git(fork.path, "update-index", "--cacheinfo", f"160000,{newer},lib")
    git(fork.path, "commit", "-qm", "moved")
    why = await keep(fork)
    assert why and f"commit {newer[:10]} of its submodule lib is in no repository here" in why
    git(repository / "lib", *ALLOW, "fetch", "-q")
    assert await keep(fork) is None


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/../../../evil", "lib/hooks"])
async def test_a_name_that_leads_astray_is_refused(repository: Path, library: Path, tmp_path: Path, name: str) -> None:
    add(repository, library)
    fork = await make(repository)
    move(fork)
    write(fork.path, ".gitmodules", f'[submodule "{name}"]\n\tpath = lib\n\turl = {library}\n')
    git(fork.path, "commit", "-qam", "renamed")
    why = await keep(fork)
    assert why and f"is called {name}, which" in why
    assert not list(tmp_path.rglob("evil*"))


async def test_no_setting_of_a_submodule_is_obeyed(repository: Path, library: Path, tmp_path: Path) -> None:
    add(repository, library)
    fork = await make(repository)
    move(fork)
    (tmp_path / "evil").write_text(f"#!/bin/sh\ntouch {tmp_path}/run\n")
    (tmp_path / "evil").chmod(0o755)
    for folder in (fork.folder / "modules" / "lib", repository / ".git" / "modules" / "lib"):
        for key in ("core.fsmonitor", "uploadpack.packObjectsHook", "core.alternateRefsCommand", "core.sshCommand"):
            git(fork.path, "config", "--file", str(folder / "config"), key, str(tmp_path / "evil"))
        git(fork.path, "config", "--file", str(folder / "config"), "core.worktree", "/nowhere")
        (folder / "hooks").mkdir(exist_ok=True)
        (folder / "hooks" / "reference-transaction").symlink_to(tmp_path / "evil")
    assert await keep(fork) is None
    assert not (tmp_path / "run").exists()


async def test_a_shallow_submodule_is_copied_where_there_is_none_and_refused_where_its_history_is_missing(
    repository: Path, library: Path
) -> None:
    commit(library, {"lib.txt": "y\n"})
    add(repository, library)
    fork = await make_fork(repository)
    git(fork.path, "submodule", "set-url", "--", "lib", f"file://{library}")
    git(fork.path, *ALLOW, "submodule", "update", "-q", "--init", "--depth=1")
    move(fork)
    assert await keep(fork) is None
    delete_path(repository / ".git" / "modules")
    assert await keep(fork) is None
    module = repository / ".git" / "modules" / "lib"
    assert git(module, "fsck", "--strict", "--no-dangling") == ""
