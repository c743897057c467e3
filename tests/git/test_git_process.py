"""git as a child process, and the end of a git that hangs."""

import os
from pathlib import Path

import anyio
import pytest
from forkjoin.core import file_lock
from forkjoin.core.error import GitError
from forkjoin.git import git as asked
from forkjoin.git import git_process
from support.branches import Fork, put_git
from support.harness import GIVE_UP_S, git, until


async def test_the_output_of_a_git_that_does_not_read_its_stdin_is_returned(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, "exec <&-; echo said; exit 3")
    assert await asked.run(repository, "status", stdin=b"x" * 1_000_000) == (3, b"said\n", "")


#: A git that can't write an object, once.
BEATEN = """
if mkdir {0}/beaten 2>/dev/null; then
    echo error: unable to create temporary file: No such file or directory >&2
    echo fatal: git-write-tree: error building trees >&2
    exit 128
fi
"""


async def test_writing_an_object_is_retried_after_a_gc_deletes_its_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, BEATEN.format(tmp_path))
    written = await asked.output(repository, "hash-object", "-w", "--stdin", stdin=b"content")
    assert (tmp_path / "beaten").exists()
    assert git(repository, "cat-file", "blob", written) == "content"


async def test_a_git_that_hangs_is_ended(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_git(tmp_path / "bin", monkeypatch, f"echo $$ > {tmp_path / 'pid'}; exec sleep 1000")
    monkeypatch.setattr(git_process, "_WRITER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(git_process, "_IDLE_TIMEOUT_S", 0.2)
    for call in (
        asked.output(repository, "add", "."),
        asked.output(repository, "status"),
        asked.read_output(repository, "status", limit=1),
    ):
        with pytest.raises(GitError, match="hung"):
            await call
        assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


#: A git that says it has begun, goes on once it may, and says that it has ended.
WAITING = "touch {0}/begun; while [ ! -e {0}/go ]; do sleep 0.02; done; touch {0}/ended; exit"


async def test_a_cancelled_call_still_finishes(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, WAITING.format(tmp_path))
    with anyio.fail_after(GIVE_UP_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked.run, repository, "update-ref")
            await until((tmp_path / "begun").exists)
            tasks.cancel_scope.cancel()
            (tmp_path / "go").touch()
    assert (tmp_path / "ended").exists()


async def test_a_lock_lasts_until_the_git_that_shares_it_ends(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, WAITING.format(tmp_path))
    held = file_lock.take(tmp_path / "lock")
    assert held
    was_held = False
    with anyio.fail_after(GIVE_UP_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: asked.run(repository, "status", pass_fds=(held,)))
            await until((tmp_path / "begun").exists)
            os.close(held)  # as it is when its daemon is killed
            was_held = file_lock.is_held(tmp_path / "lock")
            (tmp_path / "go").touch()
    assert was_held
    assert not file_lock.is_held(tmp_path / "lock")


async def test_reading_endless_output_stops_at_the_limit(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, "exec yes")
    with anyio.fail_after(GIVE_UP_S):
        assert await asked.read_output(repository, "show", "HEAD:large", limit=1000) == b"y\n" * 500


async def test_reading_less_than_the_limit_reads_all_or_fails(repository: Path) -> None:
    assert await asked.read_output(repository, "show", "HEAD:README.md", limit=1000) == b"a repository\n"
    with pytest.raises(GitError, match="none"):
        await asked.read_output(repository, "show", "HEAD:none", limit=1000)


async def test_a_git_that_only_reads_may_go_on_while_it_is_active(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_process, "_IDLE_TIMEOUT_S", 1.0)
    put_git(tmp_path / "bin", monkeypatch, "n=0; while [ $n -lt 400000 ]; do n=$((n+1)); done; echo $n; exit")
    assert await asked.output(fork.repository, "rev-parse") == "400000"


async def test_a_git_that_only_reads_is_killed_if_its_caller_is_cancelled(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, f"echo $$ > {tmp_path}/n; mv {tmp_path}/n {tmp_path}/pid; exec sleep 99")
    with anyio.fail_after(GIVE_UP_S):
        while not (tmp_path / "pid").exists():
            with anyio.move_on_after(0.5):
                await asked.output(fork.repository, "rev-parse")
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
