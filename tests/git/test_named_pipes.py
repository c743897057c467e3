"""Named pipes in the place of files: neither git nor forkjoin blocks on them, and they are reported."""

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from forkjoin.core.error import CallerError, GitError, GitHungError
from forkjoin.git import git as asked
from forkjoin.git import git_process
from forkjoin.git.objects import temporary_objects
from forkjoin.git.refs import update_refs
from forkjoin.git.repository import read_checkout
from forkjoin.git.worktrees.index_lock import try_lock_index
from forkjoin.git.worktrees.worktree_diff import read_worktree_diff
from forkjoin.git.worktrees.worktree_snapshot import snapshot
from support.autocommits import leave
from support.branches import Fork, blob, commit, make_fork
from support.harness import GIVE_UP_S, git

OWN = [
    *("HEAD", "index", "logs/HEAD", "info/sparse-checkout", "config.worktree", "commondir", "MERGE_HEAD", "ORIG_HEAD"),
    *("logs", "info", "forkjoin-ignore"),
]


COMMON = ["config", "packed-refs", "info/exclude", "info/attributes", "objects/info/alternates", "shallow"]


def put_pipe(file: Path) -> None:
    _clear(file)
    os.mkfifo(file)


def put_link_to_a_pipe(file: Path) -> None:
    _clear(file)
    pipe = file.parent / "elsewhere"
    os.mkfifo(pipe)
    file.symlink_to(pipe)


def _clear(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        file.rename(file.with_name(f"{file.name}-away"))
    file.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("put", "name"), [*((put_pipe, name) for name in OWN), (put_link_to_a_pipe, "HEAD"), (put_link_to_a_pipe, "index")]
)
async def test_a_pipe_in_a_worktrees_git_folder_loses_no_work(
    fork: Fork, name: str, put: Callable[[Path], None]
) -> None:
    done = commit(fork.path, {"done": "x"})
    git(fork.repository, "config", "extensions.worktreeConfig", "true")
    (fork.path / "loose").write_text("y")
    put(fork.folder / name)
    with anyio.fail_after(GIVE_UP_S):
        left = await leave(fork)
        assert (await leave(fork)).tip == left.tip
    assert name in left.warnings[0]
    assert blob(fork.repository, fork.branch, "loose") == b"y"
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == done


@pytest.mark.parametrize(
    ("put", "name"),
    [*((put_pipe, name) for name in ("HEAD", "commondir", "gitdir", "locked")), (put_link_to_a_pipe, "gitdir")],
)
async def test_a_pipe_in_one_worktrees_git_folder_does_not_prevent_another_worktree(
    fork: Fork, name: str, put: Callable[[Path], None]
) -> None:
    commit(fork.path, {"done": "x"})
    (fork.path / "loose").write_text("y")
    put(fork.folder / name)
    with anyio.fail_after(GIVE_UP_S):
        other = await make_fork(fork.repository, "a2-other")
        await leave(fork)
    assert (other.path / "README.md").exists()
    assert blob(fork.repository, fork.branch, "loose") == b"y"


async def test_a_reflog_that_is_a_symlink_is_not_followed(fork: Fork, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").write_text("the user's\n")
    log = fork.repository / ".git" / "logs" / "refs" / "heads" / fork.branch
    log.unlink()
    log.symlink_to(elsewhere)
    (fork.path / "loose").write_text("y")
    await leave(fork)
    assert blob(fork.repository, fork.branch, "loose") == b"y"
    assert elsewhere.read_text() == "the user's\n"


async def test_a_worktree_is_found_by_its_name_if_its_gitdir_file_is_deleted(fork: Fork) -> None:
    (fork.path / "loose").write_text("y")
    (fork.folder / "gitdir").unlink()
    await leave(fork)
    assert blob(fork.repository, fork.branch, "loose") == b"y"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, b"") for name in ("commondir", "gitdir", "HEAD", "config.worktree", ".git")),
        ("gitdir", b"\0"),
        ("HEAD", b"\0"),
    ],
)
async def test_a_huge_or_binary_file_in_a_worktrees_git_folder_loses_no_work(
    fork: Fork, name: str, content: bytes
) -> None:
    (fork.path / "loose").write_text("y")
    file = fork.path / ".git" if name.endswith(".git") else fork.folder / name
    file.write_bytes(content)
    if not content:
        os.truncate(file, 1024**4)  # read whole, it would take all memory
    with anyio.fail_after(GIVE_UP_S):
        await leave(fork)
    assert blob(fork.repository, fork.branch, "loose") == b"y"


async def test_the_error_names_a_huge_file_in_the_common_git_folder(fork: Fork) -> None:
    os.truncate(Path(fork.common_dir, "info", "exclude"), 1024**4)
    with pytest.raises(CallerError, match="info/exclude is larger than 16 MB"):
        await read_checkout(fork.repository)


async def test_a_pipe_as_the_reflog_of_head_loses_no_work_of_a_deleted_branch(fork: Fork) -> None:
    (fork.path / "loose").write_text("y")
    git(fork.repository, "update-ref", "-d", f"refs/heads/{fork.branch}")
    put_pipe(fork.folder / "logs" / "HEAD")
    with anyio.fail_after(GIVE_UP_S):
        await leave(fork)
    assert blob(fork.repository, fork.branch, "loose") == b"y"


async def test_a_pipe_in_place_of_the_agents_branch_counts_as_a_deleted_branch(fork: Fork) -> None:
    done = commit(fork.path, {"done": "x"})
    put_pipe(Path(fork.common_dir, "refs", "heads", fork.branch))
    with anyio.fail_after(GIVE_UP_S):
        assert (await leave(fork)).tip == done


@pytest.mark.parametrize("name", COMMON)
async def test_each_call_names_a_pipe_in_the_common_git_folder(fork: Fork, name: str) -> None:
    put_pipe(Path(fork.common_dir, name))
    with anyio.fail_after(GIVE_UP_S):
        with pytest.raises(
            GitError, match=f"{name} is not a regular file, and git would block on it. Remove it, then call again"
        ):
            await leave(fork)
        with pytest.raises(CallerError, match=f"git will not use the repository of .*{name} is not a regular file"):
            await read_checkout(fork.repository)
    assert Path(fork.common_dir, name).is_fifo()


async def test_a_pipe_in_place_of_a_running_agents_index_is_not_opened(fork: Fork, tmp_path: Path) -> None:
    (fork.path / "loose").write_text("y")
    put_pipe(fork.folder / "index")
    with anyio.fail_after(GIVE_UP_S):
        with temporary_objects(fork.common_dir, tmp_path) as aside:
            assert await snapshot(fork.common_dir, fork.path, aside) is None
        with pytest.raises(GitError, match="index is not a regular file"):
            await read_worktree_diff(fork.common_dir, fork.path, fork.base, None, stat=False)


async def test_a_pipe_in_place_of_an_index_lock_counts_as_somebody_elses_lock(tmp_path: Path) -> None:
    put_pipe(tmp_path / "index.lock")
    assert try_lock_index(tmp_path / "index.lock", "owner") is None


async def test_a_git_that_only_reads_is_ended_once_it_is_idle(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_process, "_IDLE_TIMEOUT_S", 0.5)
    put_pipe(fork.path / ".gitmodules")
    with anyio.fail_after(GIVE_UP_S), pytest.raises(GitHungError, match=r"hung, and was ended after 0\.5 s"):
        await asked.output(fork.path, "config", "--file", ".gitmodules", "--list")


async def test_a_configuration_that_includes_a_pipe_is_waited_for_once(
    fork: Fork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_process, "_IDLE_TIMEOUT_S", 1.0)
    put_pipe(Path(fork.common_dir, "included"))
    git(fork.repository, "config", "include.path", "included")
    for _ in range(2):
        with anyio.fail_after(1.9), pytest.raises(CallerError, match="hung"):
            await read_checkout(fork.repository)


async def test_a_git_that_writes_is_ended_if_it_waits_for_a_pipe(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_process, "_PIPE_TIMEOUT_S", 0.5)
    log = Path(fork.common_dir, "logs", "refs", "heads", "main")
    put_pipe(log)
    done = commit(fork.path, {"done": "x"})
    with anyio.fail_after(GIVE_UP_S), pytest.raises(GitHungError, match=r"waited for a named pipe.*find .* -type p"):
        await update_refs(fork.common_dir, [f"update refs/heads/main {done}"], "test")
    assert not Path(fork.common_dir, "refs", "heads", "main.lock").exists()
