"""Ignored files that `.worktreeinclude` names are copied to a worktree."""

import os
import socket
from pathlib import Path
from typing import BinaryIO

import pytest
from forkjoin.core.error import CallerError
from forkjoin.core.regular_file import open_regular
from forkjoin.git.worktrees import included_files
from forkjoin.git.worktrees.autocommit import commit_uncommitted_work
from forkjoin.git.worktrees.included_files import bring_ignored, update_ignored_copies
from forkjoin.git.worktrees.worktree_folder import find_registered_worktree
from support.branches import commit, contents, everything, make_fork
from support.harness import git


@pytest.fixture
def checkout(repository: Path) -> Path:
    """The user's checkout. Its .worktreeinclude names some of its ignored files."""
    lines = {
        ".gitignore": ".env\n*.secret\nbuild/\n",
        ".worktreeinclude": "# ours\n.env\n*.secret\n!not.secret\n/deep/**/x\n",
    }
    commit(repository, lines)
    for name in (".env", "one.secret", "not.secret", "deep/er/.env", "build/.env", "build/out", "unignored"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(name)
    (repository / ".env").chmod(0o600)
    return repository


async def test_worktreeinclude_selects_ignored_files_with_gitignore_syntax(checkout: Path) -> None:
    fork = await make_fork(checkout)
    before = everything(checkout)
    assert await bring_ignored(checkout, fork.path) == 4
    brought = {name for name in contents(fork.path) if name not in git(fork.path, "ls-files").splitlines()}
    assert brought == {".env", "one.secret", "deep/er/.env", "build/.env"}
    assert (fork.path / ".env").stat().st_mode & 0o777 == 0o600
    assert everything(checkout) == before


async def test_only_ignored_files_are_copied(checkout: Path) -> None:
    commit(checkout, {".worktreeinclude": "*\n"})
    fork = await make_fork(checkout)
    await bring_ignored(checkout, fork.path)
    assert not (fork.path / "unignored").exists()
    assert (fork.path / "build" / "out").exists()
    assert git(fork.path, "status", "--porcelain") == ""


async def test_included_files_are_not_named_as_remaining_ignored_files(checkout: Path) -> None:
    fork = await make_fork(checkout)
    await bring_ignored(checkout, fork.path)
    (fork.path / "build" / "out").touch()
    left = await commit_uncommitted_work(fork.common_dir, fork.path, fork.branch, "Uncommitted work", "a1-left")
    assert left.warnings == ["Ignored files stay in the worktree and are not merged: build/."]


async def test_existing_files_are_not_overwritten(checkout: Path) -> None:
    fork = await make_fork(checkout)
    (fork.path / ".env").write_text("the agent's\n")
    (fork.path / "one.secret").symlink_to("nowhere")
    assert await bring_ignored(checkout, fork.path) == 2
    assert (fork.path / ".env").read_text() == "the agent's\n"
    assert (fork.path / "one.secret").is_symlink()


async def test_no_file_is_written_through_a_symlink_out_of_the_worktree(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    fork = await make_fork(checkout)
    (fork.path / "deep").symlink_to(tmp_path / "outside")
    (fork.path / "build").write_text("a file where a folder would be\n")
    assert await bring_ignored(checkout, fork.path) == 2
    assert list((tmp_path / "outside").iterdir()) == []


async def test_a_symlink_is_copied_as_the_file_it_points_to(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "central.env").write_text("central\n")
    (checkout / ".env").unlink()
    (checkout / ".env").symlink_to(tmp_path / "central.env")
    (checkout / "dangling.secret").symlink_to("nowhere")
    (checkout / "folder.secret").symlink_to(tmp_path)
    fork = await make_fork(checkout)
    assert await bring_ignored(checkout, fork.path) == 4
    assert not (fork.path / ".env").is_symlink()
    assert (fork.path / ".env").read_text() == "central\n"


async def test_a_named_repository_is_skipped(checkout: Path) -> None:
    git(checkout, "init", "-q", "build/inner.secret")
    fork = await make_fork(checkout)
    assert await bring_ignored(checkout, fork.path) == 4


async def test_a_file_that_cannot_be_copied_is_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(included_files, "open_regular", refuse)
    fork = await make_fork(checkout)
    with pytest.raises(CallerError, match=r"\.worktreeinclude .*Permission denied: '.*\.env'"):
        await bring_ignored(checkout, fork.path)


async def test_pipes_sockets_and_devices_are_skipped(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(checkout.parent / "pipe")  # git lists no pipe, but a symlink to a pipe
    (checkout / "pipe.secret").symlink_to(checkout.parent / "pipe")
    monkeypatch.chdir(checkout)  # a socket's path has at most 108 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.secret")
        (checkout / "device.secret").symlink_to("/dev/zero")
        fork = await make_fork(checkout)
        assert await bring_ignored(checkout, fork.path) == 4


async def test_a_pipe_in_place_of_worktreeinclude_is_ignored(checkout: Path) -> None:
    fork = await make_fork(checkout)
    (checkout / ".worktreeinclude").unlink()
    os.mkfifo(checkout / ".worktreeinclude")
    assert await bring_ignored(checkout, fork.path) == 0


@pytest.mark.parametrize(("limit", "size"), [("_MAX_FILES", 3), ("_MAX_BYTES", 10)])
async def test_exceeding_a_limit_is_refused_and_leaves_no_partial_file(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, limit: str, size: int
) -> None:
    monkeypatch.setattr(included_files, limit, size)
    fork = await make_fork(checkout)
    with pytest.raises(CallerError, match=r"\.worktreeinclude names"):
        await bring_ignored(checkout, fork.path)
    for name in contents(fork.path).keys() - set(git(fork.path, "ls-files").splitlines()):
        assert (fork.path / name).read_text() == (checkout / name).read_text()


async def test_an_interrupted_copy_starts_over(checkout: Path) -> None:
    fork = await make_fork(checkout)
    (fork.path / ".forkjoin-new").write_text("ha")
    assert await bring_ignored(checkout, fork.path) == 4
    assert not (fork.path / ".forkjoin-new").exists()
    assert (fork.path / ".env").read_text() == ".env"


async def test_a_file_replaced_while_it_is_copied_is_copied_completely(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(file: Path) -> BinaryIO | None:
        opened = open_regular(file)
        file.unlink()
        file.symlink_to("/dev/zero")
        return opened

    monkeypatch.setattr(included_files, "open_regular", swap)
    fork = await make_fork(checkout)
    assert await bring_ignored(checkout, fork.path) == 4
    assert (fork.path / ".env").read_text() == ".env"


async def test_no_file_is_copied_without_worktreeinclude(repository: Path) -> None:
    fork = await make_fork(repository)
    assert await bring_ignored(repository, fork.path) == 0


async def test_an_update_deletes_copies_that_are_no_longer_included(checkout: Path) -> None:
    fork = await make_fork(checkout)
    place = await find_registered_worktree(fork.common_dir, fork.path)
    assert place
    await update_ignored_copies(checkout, place)
    (fork.path / "two.secret").write_text("made there")
    (checkout / ".env").unlink()
    (checkout / ".worktreeinclude").write_text(".env\n")
    await update_ignored_copies(checkout, place)
    assert not (fork.path / "one.secret").exists()
    assert [name for name in contents(fork.path) if not (checkout / name).exists()] == ["two.secret"]


async def test_an_update_leaves_tracked_files_alone(checkout: Path) -> None:
    fork = await make_fork(checkout)
    place = await find_registered_worktree(fork.common_dir, fork.path)
    assert place
    await update_ignored_copies(checkout, place)
    commit(fork.path, {".env": "tracked", "one.secret": "tracked"})
    (checkout / "one.secret").unlink()
    await update_ignored_copies(checkout, place)
    assert [(fork.path / name).read_text() for name in (".env", "one.secret")] == ["tracked", "tracked"]


async def test_an_update_deletes_no_file_outside_the_worktree(checkout: Path) -> None:
    fork = await make_fork(checkout)
    place = await find_registered_worktree(fork.common_dir, fork.path)
    assert place
    (fork.path.parent / "outside").touch()
    (place.folder / "forkjoin-brought").write_text("../outside\0..\0")
    await update_ignored_copies(checkout, place)
    assert (fork.path.parent / "outside").exists()
