"""Snapshots of shared git configuration and hooks, and the restoration of changed files."""

import io
import os
import stat
from pathlib import Path

import pytest
from forkjoin.git.config_comparison import compare_snapshots
from forkjoin.git.config_snapshot import hash_up_to, restore_files, take_config_snapshot
from support.config_changes import changed_since
from support.harness import git


@pytest.fixture
def common_dir(repository: Path) -> str:
    return str(repository / ".git")


def test_a_snapshot_stays_small_with_many_files_in_the_hooks_folder(common_dir: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for n in range(50):
        (elsewhere / str(n)).write_bytes(b"x" * 200_000)
    hooks = Path(common_dir, "hooks")
    hooks.rename(tmp_path / "hooks")
    hooks.symlink_to(elsewhere)
    snapshot = take_config_snapshot(common_dir)
    assert {f"hooks/{n}" for n in range(50)} <= snapshot.keys()
    assert sum(len(file.content or b"") for file in snapshot.values() if file) <= 4 * 1024 * 1024


async def test_changed_files_are_restored(repository: Path, common_dir: str) -> None:
    folder = Path(common_dir)
    (folder / "hooks" / "pre-commit").write_text("#!/bin/sh\ntrue\n")
    (folder / "hooks" / "pre-commit").chmod(0o755)
    (folder / "hooks" / "linked").symlink_to("/elsewhere")
    before = take_config_snapshot(common_dir)
    config = (folder / "config").read_bytes()
    git(repository, "config", "core.hooksPath", "/evil")
    (folder / "hooks" / "pre-commit").write_text("#!/bin/sh\nevil\n")
    (folder / "hooks" / "pre-commit").chmod(0o644)
    (folder / "hooks" / "linked").unlink()
    os.mkfifo(folder / "hooks" / "post-merge")
    names = [change.file for change in await compare_snapshots(before, take_config_snapshot(common_dir))]
    assert restore_files(common_dir, before, names) == []
    assert (folder / "config").read_bytes() == config
    assert (folder / "hooks" / "pre-commit").read_text() == "#!/bin/sh\ntrue\n"
    assert stat.S_IMODE((folder / "hooks" / "pre-commit").stat().st_mode) == 0o755
    assert await changed_since(before, common_dir) == []


async def test_a_hooks_folder_replaced_by_a_symlink_is_restored_without_following_it(
    repository: Path, common_dir: str, tmp_path: Path
) -> None:
    folder, elsewhere = Path(common_dir), tmp_path / "elsewhere"
    (folder / "hooks" / "pre-commit").write_text("#!/bin/sh\ntrue\n")
    before = take_config_snapshot(common_dir)
    elsewhere.mkdir()
    (elsewhere / "pre-commit").write_text("theirs\n")
    (folder / "hooks").rename(folder / "hooks.away")
    (folder / "hooks").symlink_to(elsewhere)
    names = [change.file for change in await compare_snapshots(before, take_config_snapshot(common_dir))]
    restore_files(common_dir, before, names)
    assert (elsewhere / "pre-commit").read_text() == "theirs\n"
    assert (folder / "hooks" / "pre-commit").read_text() == "#!/bin/sh\ntrue\n"
    assert await changed_since(before, common_dir) == []


def test_files_too_large_to_hash_are_skipped_quickly(common_dir: str) -> None:
    hook = Path(common_dir, "hooks", "pre-push")
    hook.touch()
    os.truncate(hook, 1 << 40)
    assert (found := take_config_snapshot(common_dir)["hooks/pre-push"]) is not None
    assert (found.size, found.digest) == (1 << 40, None)


def test_a_file_that_grows_while_it_is_read_is_not_hashed_beyond_the_limit() -> None:
    class Growing(io.BytesIO):
        """A file to which more is appended than a reader has read."""

        given = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.given += 1
            assert self.given < 10
            return bytes(size or 0)

    assert hash_up_to(Growing(), b"", 3 * 1024 * 1024) is None


async def test_a_change_in_a_symlinked_file_is_not_reported_as_restored(common_dir: str, tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("#!/bin/sh\n")
    Path(common_dir, "hooks", "pre-commit").symlink_to(tmp_path / "hook")
    before = take_config_snapshot(common_dir)
    (tmp_path / "hook").write_text("#!/bin/sh\nevil\n")
    assert await changed_since(before, common_dir) == ["hooks/pre-commit: changed"]
    assert restore_files(common_dir, before, ["hooks/pre-commit"]) == ["hooks/pre-commit"]
