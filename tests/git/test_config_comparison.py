"""Changes between two snapshots of shared git configuration and hooks."""

import os
from pathlib import Path

import pytest
from forkjoin.git.config_snapshot import restore_files, take_config_snapshot
from support.branches import Fork
from support.config_changes import changed_since
from support.harness import git


@pytest.fixture
def common_dir(repository: Path) -> str:
    return str(repository / ".git")


async def test_added_changed_and_removed_entries_are_named_with_their_values(repository: Path, common_dir: str) -> None:
    git(repository, "config", "alias.old", "log")
    git(repository, "config", "user.email", "jane@example.com")
    before = take_config_snapshot(common_dir)
    git(repository, "config", "user.name", "Claude")
    git(repository, "config", "user.email", "noreply@example.com")
    git(repository, "config", "--unset", "alias.old")
    assert sorted(await changed_since(before, common_dir)) == [
        "config: alias.old removed (was: log)",
        "config: user.email = noreply@example.com (was: jane@example.com)",
        "config: user.name = Claude",
    ]


async def test_settings_that_git_writes_itself_are_no_change(repository: Path, common_dir: str) -> None:
    git(repository, "config", "branch.old.remote", "origin")
    before = take_config_snapshot(common_dir)
    git(repository, "config", "branch.feature.remote", "origin")
    git(repository, "config", "branch.feature.merge", "refs/heads/feature")
    git(repository, "config", "--remove-section", "branch.old")
    git(repository, "config", "submodule.lib.url", "https://example.com/lib.git")
    (Path(common_dir) / "hooks" / "pre-push.sample").write_text("other\n")
    git(repository, "update-server-info")
    git(repository, "worktree", "add", "-q", "--detach", str(repository.parent / "other"))
    assert await changed_since(before, common_dir) == []


async def test_an_upstream_that_is_an_address_or_replaces_another_is_a_change(
    repository: Path, common_dir: str
) -> None:
    git(repository, "config", "branch.main.merge", "refs/heads/main")
    before = take_config_snapshot(common_dir)
    git(repository, "config", "branch.other.remote", "ext::sh -c evil")
    git(repository, "config", "branch.main.merge", "refs/heads/evil")
    git(repository, "config", "submodule.lib.update", "!evil")
    found = await changed_since(before, common_dir)
    assert {line.split()[1] for line in found} == {"branch.other.remote", "branch.main.merge", "submodule.lib.update"}


async def test_no_password_is_shown(repository: Path, common_dir: str) -> None:
    before = take_config_snapshot(common_dir)
    git(repository, "config", "remote.origin.url", "https://jane:hunter2@example.com/x.git")
    git(repository, "config", "http.https://jane:hunter2@example.com/.extraheader", "AUTHORIZATION: hunter2")
    found = await changed_since(before, common_dir)
    assert len(found) == 2
    assert "hunter2" not in str(found)


async def test_changes_to_hooks_rules_attributes_alternates_and_submodules_are_found(
    repository: Path, common_dir: str
) -> None:
    folder = Path(common_dir)
    git(repository, "init", "-q", "--bare", str(folder / "modules" / "libs" / "a"))
    (folder / "hooks" / "commit-msg").write_text("#!/bin/sh\n")
    before = take_config_snapshot(common_dir)
    (folder / "hooks" / "post-checkout").write_text("#!/bin/sh\n")
    (folder / "hooks" / "commit-msg").chmod(0o755)
    (folder / "info" / "exclude").write_text("*\n")
    (folder / "info" / "attributes").write_text("* filter=x\n")
    (folder / "objects" / "info").mkdir(exist_ok=True)
    (folder / "objects" / "info" / "alternates").write_text("/elsewhere\n")
    git(folder / "modules" / "libs" / "a", "config", "core.fsmonitor", "evil")
    (folder / "modules" / "libs" / "a" / "hooks" / "pre-push").write_text("#!/bin/sh\n")
    assert await changed_since(before, common_dir) == [
        "hooks/commit-msg: changed",
        "hooks/post-checkout: added",
        "info/attributes: added",
        "info/exclude: changed",
        "modules/libs/a/config: core.fsmonitor = evil",
        "modules/libs/a/hooks/pre-push: added",
        "objects/info/alternates: added",
    ]


async def test_changes_to_an_existing_worktrees_own_configuration_are_found(
    repository: Path, common_dir: str, fork: Fork
) -> None:
    before = take_config_snapshot(common_dir)
    (fork.folder / "config.worktree").write_text("[core]\n\tfsmonitor = evil\n")
    assert await changed_since(before, common_dir) == [
        f"worktrees/{fork.folder.name}/config.worktree: core.fsmonitor = evil"
    ]
    git(repository, "worktree", "remove", "--force", str(fork.path))
    assert await changed_since(before, common_dir) == []


async def test_a_sparse_checkout_of_one_worktree_is_one_shared_change(common_dir: str, fork: Fork) -> None:
    before = take_config_snapshot(common_dir)
    git(fork.path, "sparse-checkout", "set", "--sparse-index", "here")
    assert await changed_since(before, common_dir) == [
        "config: extensions.worktreeconfig = true (as git sparse-checkout sets it)"
    ]
    before = take_config_snapshot(common_dir)
    git(fork.path, "sparse-checkout", "disable")
    assert await changed_since(before, common_dir) == []


async def test_irregular_files_and_invalid_configuration_are_reported_without_blocking(
    repository: Path, common_dir: str
) -> None:
    folder = Path(common_dir)
    before = take_config_snapshot(common_dir)
    os.mkfifo(folder / "hooks" / "pre-commit")
    (folder / "config").write_text("[broken\n")
    (folder / "hooks" / "large").write_bytes(b"x" * 1_000_000)
    found = await changed_since(before, common_dir)
    assert found == ["config: changed", "hooks/large: added", "hooks/pre-commit: added"]


async def test_a_change_in_the_target_of_a_symlinked_configuration_is_found(
    repository: Path, common_dir: str, tmp_path: Path
) -> None:
    config, kept = Path(common_dir, "config"), tmp_path / "config"
    kept.write_text(f"{config.read_text()}# {'x' * 300_000}\n[alias]\n\tmine = log\n")
    config.unlink()
    config.symlink_to(kept)
    before = take_config_snapshot(common_dir)
    kept.write_text(kept.read_text().replace("mine = log", "evil = log"))
    assert await changed_since(before, common_dir) == ["config: changed"]
    assert restore_files(common_dir, before, ["config"]) == ["config"]


async def test_a_large_file_whose_end_changes_at_the_same_size_is_a_change(common_dir: str) -> None:
    hook = Path(common_dir, "hooks", "pre-push")
    hook.write_bytes(b"x" * 5_000_000)
    before = take_config_snapshot(common_dir)
    hook.write_bytes(b"x" * 4_999_999 + b"y")
    assert await changed_since(before, common_dir) == ["hooks/pre-push: changed"]


async def test_an_added_file_does_not_make_others_count_as_changed(common_dir: str) -> None:
    for n in range(20):
        Path(common_dir, "hooks", f"b{n}").write_bytes(b"x" * 300_000)
    before = take_config_snapshot(common_dir)
    Path(common_dir, "hooks", "a").write_bytes(b"x" * 200_000)
    assert await changed_since(before, common_dir) == ["hooks/a: added"]
