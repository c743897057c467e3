"""Unsaved work is archived so that it can be restored."""

import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.git import folder_archive
from forkjoin.git.unsaved.unsaved_work import archive_unsaved, find_unsaved_work
from support.branches import Fork, blob, commit
from support.harness import git
from support.unsaved_work import make_repository


async def test_what_is_kept_can_be_put_back(fork: Fork, tmp_path: Path) -> None:
    inner = make_repository(fork.path / "inner", {"a": "x"})
    (inner / "loose").write_text("y")
    (inner / "link").symlink_to("a")
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    assert kept == "refs/forkjoin/kept/nested/a1-left"
    assert await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left") == kept
    with tarfile.open(fileobj=BytesIO(blob(fork.repository, kept, "files.tar"))) as tar:
        tar.extractall(tmp_path / "back", filter="tar")
    back = tmp_path / "back" / fork.path.name / "inner"
    assert git(back, "status", "--porcelain").splitlines() == ["?? link", "?? loose"]
    assert git(back, "rev-parse", "HEAD") == git(inner, "rev-parse", "HEAD")
    assert git(fork.repository, "fsck", "--strict", "--no-dangling") == ""


@pytest.mark.parametrize("where", ["within", "outside"])
async def test_of_a_git_folder_that_a_symlink_leads_to_what_goes_is_kept(
    fork: Fork, tmp_path: Path, where: str
) -> None:
    inner = make_repository(fork.path / "inner", {"a": "x"})
    (inner / "loose").write_text("y")
    folder = fork.path / "elsewhere" if where == "within" else tmp_path / "elsewhere"
    (inner / ".git").rename(folder)
    (inner / ".git").symlink_to(folder)
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    said = "1 commit and 1 uncommitted path" if where == "within" else "1 uncommitted path"
    assert [str(one) for one in unsaved] == [f"inner ({said})"]
    kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    with tarfile.open(fileobj=BytesIO(blob(fork.repository, kept, "files.tar"))) as tar:
        assert ("a1-left/elsewhere/HEAD" in tar.getnames()) == (where == "within")
        assert not any("git-folder" in name for name in tar.getnames())


async def test_a_submodules_git_folder_is_kept_with_its_files(with_submodule: Fork) -> None:
    fork = with_submodule
    commit(fork.path / "lib", {"a": "x"})
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    with tarfile.open(fileobj=BytesIO(blob(fork.repository, kept, "files.tar"))) as tar:
        assert {"a1-left/lib/a", "git-folder/worktrees/a1-left/modules/lib/HEAD"} <= set(tar.getnames())


async def test_another_repositorys_worktree_is_kept_under_a_path_that_tar_takes(fork: Fork, library: Path) -> None:
    git(library, "worktree", "add", "-q", "--detach", str(fork.path / "other"))
    (fork.path / "other" / "loose").write_text("y")
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    kept = await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    with tarfile.open(fileobj=BytesIO(blob(fork.repository, kept, "files.tar"))) as tar:
        names = tar.getnames()
    assert "a1-left/other/loose" in names
    assert f"elsewhere{library}/.git/worktrees/other/HEAD" in names
    assert not any(".." in Path(name).parts for name in names)


async def test_folders_that_are_too_large_together_are_all_named(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_archive, "_SIZE_LIMIT", 10_000)
    for name in ("one", "two"):
        (make_repository(fork.path / name) / "loose").write_bytes(b"x" * 4000)
    unsaved = await find_unsaved_work(fork.common_dir, fork.path, fork.base)
    with pytest.raises(CallerError) as caught:
        await archive_unsaved(fork.common_dir, fork.path, unsaved, "a1-left")
    assert f"{fork.path / 'one'}, {fork.path / 'two'}: more than" in str(caught.value)
