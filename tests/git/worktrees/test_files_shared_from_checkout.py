"""Ignored paths that a worktree shares with the user's checkout."""

import os
import subprocess
from pathlib import Path

import pytest
from forkjoin.git.worktrees import autocommit, worktree
from forkjoin.git.worktrees.files_shared_from_checkout import COPY, share
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, find_registered_worktree
from support.branches import Fork, contents, files_of, make_fork, write
from support.harness import git
from support.repository_configs import put_dependencies


async def place_of(fork: Fork) -> RegisteredWorktree:
    found = await find_registered_worktree(fork.common_dir, fork.path)
    assert found
    return found


async def bring(fork: Fork, **wanted: str) -> list[str]:
    """Share paths and make the copies. Return the reasons why paths aren't shared."""
    copies, notes = await share(fork.repository, await place_of(fork), wanted)
    subprocess.run(["sh", "-c", COPY, "sh", *copies], check=True)
    return notes


async def commit_uncommitted_work(fork: Fork) -> autocommit.AutocommitResult:
    return await autocommit.commit_uncommitted_work(
        fork.common_dir, fork.path, fork.branch, "Uncommitted work", "a1-left"
    )


async def test_a_link_points_to_the_folder_in_the_checkout(repository: Path) -> None:
    folder = put_dependencies(repository)
    fork = await make_fork(repository)
    assert await bring(fork, node_modules="link") == []
    assert (fork.path / "node_modules").readlink() == folder
    assert await bring(fork, node_modules="link") == []


async def test_a_copy_is_independent_and_keeps_modes_times_and_symlinks(repository: Path) -> None:
    folder = put_dependencies(repository)
    (folder / ".bin").mkdir()
    (folder / ".bin" / "pad").symlink_to("../left-pad/index.js")
    (folder / "left-pad" / "index.js").chmod(0o755)
    os.utime(folder / "left-pad" / "index.js", (1, 1))
    os.mkfifo(folder / "pipe")
    fork = await make_fork(repository)
    assert await bring(fork, node_modules="copy") == []
    copy = fork.path / "node_modules"
    assert contents(copy) == contents(folder)
    assert (copy / "pipe").is_fifo()
    assert (copy / "left-pad" / "index.js").stat().st_mode & 0o777 == 0o755
    assert (copy / "left-pad" / "index.js").stat().st_mtime == 1
    (copy / "left-pad" / "index.js").write_text("changed\n")
    assert (folder / "left-pad" / "index.js").read_text() == "pad\n"
    assert await bring(fork, node_modules="copy") == []
    assert (copy / "left-pad" / "index.js").read_text() == "changed\n"


async def test_a_symlink_is_copied_as_its_target(repository: Path, tmp_path: Path) -> None:
    folder = put_dependencies(repository, "node_modules")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    fork = await make_fork(repository)
    assert await bring(fork, node_modules="copy") == []
    assert not (fork.path / "node_modules").is_symlink()
    assert (fork.path / "node_modules" / "left-pad" / "index.js").read_text() == "pad\n"


async def test_an_interrupted_copy_starts_over_and_complete_copies_stay(repository: Path) -> None:
    put_dependencies(repository)
    write(repository, "target/built", "built\n")
    write(repository, ".gitignore", "node_modules/\ntarget\n")
    fork = await make_fork(repository)
    copies, _ = await share(repository, await place_of(fork), {"target": "copy", "node_modules": "copy"})
    write(fork.path, "node_modules.forkjoin-new/half", "half\n")
    write(fork.path, "target/built", "whole\n")
    subprocess.run(["sh", "-c", COPY, "sh", *copies], check=True)
    assert (fork.path / "target" / "built").read_text() == "whole\n"
    assert os.listdir(fork.path / "node_modules") == ["left-pad"]
    assert not (fork.path / "node_modules.forkjoin-new").exists()


async def test_the_parent_folders_of_a_shared_path_are_created(repository: Path) -> None:
    write(repository, "packages/web/deps/x", "x\n")
    write(repository, ".gitignore", "deps\n")
    fork = await make_fork(repository)
    assert await bring(fork, **{"packages/web/deps": "link"}) == []
    assert (fork.path / "packages/web/deps/x").read_text() == "x\n"


@pytest.mark.parametrize("how", ["link", "copy"])
async def test_paths_that_cannot_be_shared_are_named_with_the_reason(
    repository: Path, tmp_path: Path, how: str
) -> None:
    outside = tmp_path / "outside"
    write(outside, "deps/precious", "precious\n")
    (repository / "leads-out").symlink_to(outside)
    (repository / "loose").mkdir()
    os.mkfifo(repository / "pipe")
    write(repository, ".git/info/exclude", "/leads-out\n/pipe\n/deps\n")
    fork = await make_fork(repository)
    (fork.path / "deps").symlink_to(outside)
    wanted = ["leads-out/deps", "missing", "loose", "pipe", "deps/under", "README.md/x"]
    notes = await bring(fork, **dict.fromkeys(wanted, how))
    assert [note.partition(": ")[2].split(repository.name)[0].split("/")[0].strip() for note in notes] == [
        "one of its parent folders is a file, or a symlink that leads elsewhere",
        "it doesn't exist in",
        "git doesn't ignore it in",
        "it is neither a folder nor a file",
        "one of its parent folders is a file, or a symlink that leads elsewhere",
        "one of its parent folders is a file, or a symlink that leads elsewhere",
    ]
    assert sorted(os.listdir(fork.path)) == [".git", "README.md", "deps", "shared.txt"]
    assert os.listdir(outside / "deps") == ["precious"]


async def test_a_tracked_path_is_not_shared(repository: Path) -> None:
    write(repository, "later.txt", "later\n")
    fork = await make_fork(repository)
    git(repository, "add", "later.txt")
    write(repository, ".gitignore", "later.txt\nREADME.md\n")
    notes = await bring(fork, **{"later.txt": "link", "README.md": "link"})
    assert notes == [f"later.txt is not shared: git doesn't ignore it in {repository}"]
    assert not (fork.path / "README.md").is_symlink(), "the tracked file stays"


@pytest.mark.parametrize("how", ["link", "copy"])
async def test_shared_paths_are_not_committed(repository: Path, how: str) -> None:
    put_dependencies(repository)
    fork = await make_fork(repository)
    await bring(fork, node_modules=how)
    await bring(fork, node_modules=how)
    left = await commit_uncommitted_work(fork)
    assert (left.uncommitted, left.tip) == (0, fork.base)
    assert left.warnings == [], "shared paths are not named as remaining files"
    write(fork.path, "work.txt", "work\n")
    write(fork.path, "node_modules.forkjoin-new/half", "half\n")
    left = await commit_uncommitted_work(fork)
    assert left.uncommitted == 1
    assert "work.txt" in " ".join(files_of(repository, fork.branch))
    assert "node_modules" not in " ".join(files_of(repository, fork.branch))
    assert left.tip
    assert await autocommit.is_clean_at(fork.common_dir, fork.path, left.tip)


async def test_files_at_paths_that_could_not_be_shared_are_committed(repository: Path) -> None:
    write(repository, "vendor/of-the-base", "x\n")
    git(repository, "add", "vendor")
    git(repository, "commit", "-q", "-m", "vendor")
    fork = await make_fork(repository)
    git(repository, "rm", "-q", "-r", "--cached", "vendor")
    write(repository, ".gitignore", "vendor\n")
    for _ in range(2):
        await bring(fork, vendor="copy", missing="copy")
    write(fork.path, "vendor/new", "new\n")
    write(fork.path, "missing/new", "new\n")
    assert (await commit_uncommitted_work(fork)).uncommitted == 2


async def test_the_users_global_ignore_rules_still_apply(repository: Path, user: Path, tmp_path: Path) -> None:
    put_dependencies(repository)
    fork = await make_fork(repository)
    for place, named in ((user / ".config/git/ignore", False), (tmp_path / "own", True)):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("*.swp")
        if named:
            git(user, "config", "--global", "core.excludesFile", str(place))
        await bring(fork, node_modules="link")
        write(fork.path, "x.swp", "x\n")
        assert (await commit_uncommitted_work(fork)).uncommitted == 0
        place.unlink()


async def test_a_core_excludesfile_inside_the_worktree_still_applies(repository: Path) -> None:
    put_dependencies(repository)
    write(repository, ".rules", "*.swp\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "rules")
    git(repository, "config", "--global", "core.excludesFile", ".rules")
    fork = await make_fork(repository)
    await bring(fork, node_modules="link")
    write(fork.path, "x.swp", "x\n")
    assert (await commit_uncommitted_work(fork)).uncommitted == 0


async def test_sharing_changes_neither_the_checkout_nor_its_repository(repository: Path) -> None:
    put_dependencies(repository)
    fork = await make_fork(repository)
    before = (contents(repository), (repository / ".git/config").read_bytes(), git(repository, "status", "--porcelain"))
    await bring(fork, node_modules="link")
    await commit_uncommitted_work(fork)
    after = (contents(repository), (repository / ".git/config").read_bytes(), git(repository, "status", "--porcelain"))
    assert after == before
    assert (
        not (repository / ".git/info/exclude").exists() or "node" not in (repository / ".git/info/exclude").read_text()
    )


async def test_removing_a_worktree_follows_no_link_into_the_checkout(repository: Path) -> None:
    folder = put_dependencies(repository)
    (folder / "left-pad").chmod(0o500)
    fork = await make_fork(repository)
    await bring(fork, node_modules="link")
    write(fork.path, "sealed/file", "x\n")
    (fork.path / "sealed").chmod(0o500)
    before = (contents(folder), (folder / "left-pad").stat().st_mode)
    await worktree.remove(fork.common_dir, fork.path)
    assert not fork.path.exists()
    assert (contents(folder), (folder / "left-pad").stat().st_mode) == before
    (folder / "left-pad").chmod(0o700)
