"""Uncommitted work in an agent's worktree is committed byte for byte on its branch."""

import os
from pathlib import Path

import pytest
from forkjoin.core.error import GitError
from forkjoin.git.worktrees.autocommit import AutocommitResult
from support.autocommits import leave, leave_twice
from support.branches import (
    GIT_VERSION,
    Fork,
    blob,
    commit,
    files_of,
    make_fork,
    put_counting_git,
    put_git,
    put_hooks,
)
from support.harness import git

# -- all kinds of uncommitted work


async def test_a_clean_worktree_gets_no_commit_and_no_warning(fork: Fork) -> None:
    assert await leave_twice(fork) == AutocommitResult(fork.base, 0, [])


async def test_edited_new_and_deleted_files_are_in_one_commit_on_the_branch(fork: Fork) -> None:
    (fork.path / "shared.txt").write_bytes(b"one\r\ntwo\n\xff")
    (fork.path / "new" / "deep").mkdir(parents=True)
    (fork.path / "new" / "deep" / "file").write_bytes(bytes(range(256)) * 1000)
    (fork.path / "README.md").unlink()
    left = await leave_twice(fork)
    assert left.uncommitted == 3
    assert left.warnings == ["3 uncommitted paths were committed for the agent."]
    assert files_of(fork.repository, fork.branch) == ["100644 new/deep/file", "100644 shared.txt"]
    assert blob(fork.repository, fork.branch, "shared.txt") == b"one\r\ntwo\n\xff"
    assert blob(fork.repository, fork.branch, "new/deep/file") == bytes(range(256)) * 1000
    assert git(fork.repository, "rev-list", "--count", f"{fork.base}..{fork.branch}") == "1"
    assert git(fork.repository, "log", "-1", "--format=%B", fork.branch).strip() == "Uncommitted work"


async def test_modes_and_symlinks_are_kept(fork: Fork) -> None:
    (fork.path / "README.md").chmod(0o755)
    (fork.path / "link").symlink_to("/nowhere/at all")
    (fork.path / "shared.txt").unlink()
    (fork.path / "shared.txt").symlink_to("README.md")
    await leave_twice(fork)
    assert files_of(fork.repository, fork.branch) == ["100755 README.md", "120000 link", "120000 shared.txt"]
    assert blob(fork.repository, fork.branch, "link") == b"/nowhere/at all"


async def test_a_file_of_any_name_is_kept(fork: Fork) -> None:
    names = [
        b"a\nb",
        b"\xff\xfe",
        b"--all",
        b" lead",
        b'quo"te',
        b":(top)x",
        b"*",
        b"tab\there",
        "ünï".encode(),
        b"a" * 255,
    ]
    for name in names:
        (fork.path / os.fsdecode(name)).write_bytes(name)
    assert (await leave_twice(fork)).uncommitted == len(names)
    assert [blob(fork.repository, fork.branch, name) for name in names] == names


async def test_the_files_are_committed_even_if_the_index_differs(
    fork: Fork,
) -> None:
    (fork.path / "staged").write_text("x")
    (fork.path / "meant").write_text("y")
    git(fork.path, "add", "staged")
    git(fork.path, "add", "--intent-to-add", "meant")
    (fork.path / "staged").unlink()
    await leave_twice(fork)
    assert files_of(fork.repository, fork.branch) == ["100644 README.md", "100644 meant", "100644 shared.txt"]


async def test_a_change_within_one_second_of_the_checkout_is_committed(fork: Fork) -> None:
    stat = (fork.path / "shared.txt").stat()
    (fork.path / "shared.txt").write_text("two\none\nthree\n")  # of the same size
    os.utime(fork.path / "shared.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    index = (fork.folder / "index").stat()
    os.utime(fork.folder / "index", ns=(index.st_atime_ns, stat.st_mtime_ns))
    assert (await leave_twice(fork)).uncommitted == 1


@pytest.mark.parametrize(("files", "how"), [(3, "core.fsync=committed"), (150, "--file-system")])
async def test_objects_are_synced_to_disk_before_a_ref_points_to_them(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, how: str
) -> None:
    log = put_counting_git(tmp_path / "bin", monkeypatch)
    (tmp_path / "bin" / "sync").write_text(f'#!/bin/sh\necho "sync $*" >> {log}\n')
    (tmp_path / "bin" / "sync").chmod(0o755)
    for number in range(files):
        (fork.path / f"{number}.txt").write_text(f"{number}\n")
    await leave(fork)
    calls = log.read_text().splitlines()
    written = next(n for n, call in enumerate(calls) if call.endswith(" write-tree"))
    assert [n for n, call in enumerate(calls) if how in call][-1] >= written
    assert all("core.fsync=committed" in call for call in calls if not call.startswith("sync"))
    quick = [call for call in calls if "core.fsync=none" in call]
    moved = next(n for n, call in enumerate(calls) if " update-ref " in call)
    synced = [n for n, call in enumerate(calls) if call.startswith("sync --file-system")]
    assert bool(quick) == bool(synced)
    assert all(written < n < moved for n in synced)


async def test_files_whose_line_ends_core_safecrlf_refuses_are_committed(fork: Fork) -> None:
    git(fork.repository, "config", "core.autocrlf", "input")
    git(fork.repository, "config", "core.safecrlf", "true")
    (fork.path / "windows").write_bytes(b"a\r\nb\n")
    assert (await leave_twice(fork)).warnings == ["1 uncommitted path was committed for the agent."]
    assert blob(fork.repository, fork.branch, "windows") == b"a\nb\n"


@pytest.mark.parametrize("call", ["add", "status"])
async def test_a_temporary_error_neither_omits_files_nor_rebuilds_the_index(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (fork.path / "loose").write_text("y")
    before = (fork.folder / "index").read_bytes()
    with monkeypatch.context() as patch:
        full = 'echo "error: unable to create temporary file: No space left on device" >&2; exit 128'
        put_git(tmp_path / "bin", patch, f'case " $* " in *" {call} "*) {full};; esac')
        with pytest.raises(GitError, match="No space left"):
            await leave(fork)
    assert (fork.folder / "index").read_bytes() == before
    assert (await leave_twice(fork)).uncommitted == 1


async def test_pipes_in_place_of_git_settings_files_block_nothing(fork: Fork) -> None:
    names = [".gitattributes", "deep/er/.gitattributes", "deep/er/.gitignore"]
    commit(fork.path, {"deep/er/file": "x\n"})
    for file in ("shared.txt", "deep/er/file"):
        (fork.path / file).write_text("edited\n")
    for name in names:
        os.mkfifo(fork.path / name)
    left = await leave(fork)
    assert left.warnings[0] == f"The agent left pipes that git would wait for, which were removed: {', '.join(names)}."
    assert left.uncommitted == 2
    assert (await leave_twice(fork)).tip == left.tip


async def test_a_path_that_git_refuses_is_named_and_the_rest_is_committed(fork: Fork) -> None:
    (fork.path / "GIT~1").mkdir()
    (fork.path / "GIT~1" / "refused").touch()
    (fork.path / "good").write_text("x")
    left = await leave_twice(fork)
    assert left.warnings[0] == "Not all of the uncommitted work could be committed: error: invalid path 'GIT~1/refused'"
    assert left.uncommitted == 1
    assert blob(fork.repository, fork.branch, "good") == b"x"


@pytest.mark.skipif(GIT_VERSION < (2, 41), reason="git has no GIT_ATTR_SOURCE")
async def test_a_file_that_git_cannot_encode_does_not_keep_out_other_files(fork: Fork) -> None:
    (fork.path / ".gitattributes").write_text("*.bad working-tree-encoding=NONE\n")
    for name in ("one.bad", "other"):
        (fork.path / name).write_text("x")
    left = await leave_twice(fork)
    assert "failed to encode 'one.bad'" in left.warnings[0]
    assert [blob(fork.repository, fork.branch, name) for name in ("one.bad", "other")] == [b"x", b"x"]


async def test_work_is_committed_if_git_add_is_killed(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fork.path / "good").write_text("x")
    script = 'case " $* " in *" --ignore-errors "*) ;; *" add "*) kill -9 $$;; esac'
    put_git(tmp_path / "bin", monkeypatch, script)
    left = await leave(fork)
    assert left.warnings[0] == "Not all of the uncommitted work could be committed: exit -9"
    assert blob(fork.repository, fork.branch, "good") == b"x"


async def test_nested_repositories_are_named_and_not_committed(fork: Fork) -> None:
    git(fork.path, "init", "-q", "empty")
    git(fork.path, "clone", "-q", str(fork.repository), "cloned")
    git(fork.path, "worktree", "add", "-q", "--detach", "nested")
    (fork.path / "good").write_text("x")
    left = await leave_twice(fork)
    assert "Repositories within the worktree stay there, and are not merged: cloned/, empty/, nested/." in left.warnings
    assert files_of(fork.repository, fork.branch) == ["100644 README.md", "100644 good", "100644 shared.txt"]


async def test_a_moved_submodule_is_named_and_not_committed(repository: Path, tmp_path: Path) -> None:
    git(repository, "clone", "-q", ".", str(tmp_path / "library"))
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    git(repository, "commit", "-qm", "with a submodule")
    fork = await make_fork(repository)
    git(fork.path, "-c", "protocol.file.allow=always", "submodule", "update", "-q", "--init")
    commit(fork.path / "lib", {"inner": "x"})
    left = await leave_twice(fork)
    assert left.tip == fork.base
    assert "Repositories within the worktree stay there, and are not merged: lib." in left.warnings


# -- the author, hooks and other programs


async def test_the_author_is_the_configured_user(fork: Fork) -> None:
    (fork.path / "new").touch()
    left = await leave(fork)
    assert git(fork.repository, "log", "-1", "--format=%an <%ae>", str(left.tip)) == "Test <test@example.com>"


async def test_forkjoin_is_the_author_if_no_user_is_configured(fork: Fork, user: Path) -> None:
    (user / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    (fork.path / "new").touch()
    left = await leave_twice(fork)
    assert git(fork.repository, "log", "-1", "--format=%an %cn", str(left.tip)) == "forkjoin forkjoin"


@pytest.mark.parametrize("hooks", ["", ".hooks"])
async def test_no_hook_of_the_repository_or_the_worktree_runs(fork: Fork, tmp_path: Path, hooks: str) -> None:
    put_hooks(fork.repository / ".git" / "hooks", tmp_path / "told")
    if hooks:
        git(fork.repository, "config", "core.hooksPath", hooks)  # a relative path applies in each worktree
        put_hooks(fork.path / hooks, tmp_path / "told")
    (fork.path / "new").touch()
    await leave_twice(fork)
    assert not (tmp_path / "told").exists()


async def test_no_file_system_monitor_runs_and_no_commit_is_signed(fork: Fork, tmp_path: Path) -> None:
    for name in ("monitor", "sign"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path / 'told'}\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    git(fork.repository, "config", "core.fsmonitor", str(tmp_path / "monitor"))
    git(fork.repository, "config", "gpg.program", str(tmp_path / "sign"))
    git(fork.repository, "config", "commit.gpgSign", "true")
    (fork.path / "new").touch()
    left = await leave_twice(fork)
    assert "gpgsig" not in git(fork.repository, "-c", "core.fsmonitor=false", "cat-file", "commit", str(left.tip))
    assert not (tmp_path / "told").exists()


async def test_a_clean_worktree_takes_a_single_git_call(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = put_counting_git(tmp_path / "bin", monkeypatch)
    await leave(fork)
    assert len(log.read_text().splitlines()) == 1


# -- ignored files and detached commits


async def test_ignored_files_are_named_but_not_committed(fork: Fork) -> None:
    commit(fork.path, {".gitignore": "*.log\ncache/\n"})
    (fork.path / "cache").mkdir()
    for name in ("cache/1", "cache/2", "a.log", os.fsdecode(b"\xff\n.log")):
        (fork.path / name).touch()
    left = await leave_twice(fork)
    assert left.uncommitted == 0
    assert left.warnings == ["Ignored files stay in the worktree and are not merged: a.log, cache/, \\xff\\n.log."]


async def test_ten_ignored_files_are_named_and_the_others_are_counted(fork: Fork) -> None:
    commit(fork.path, {".gitignore": "*.log\n"})
    for number in range(25):
        (fork.path / f"{number:02}.log").touch()
    [warning] = (await leave(fork)).warnings
    assert warning.endswith("08.log, 09.log and 15 more.")


async def test_a_commit_on_a_detached_head_is_kept_after_a_switch(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach")
    tip = commit(fork.path, {"detached": "x"})
    git(fork.path, "switch", "-q", fork.branch)
    left = await leave_twice(fork)
    assert left.warnings == [
        "Commits that the agent made on no branch are kept, and not merged: refs/forkjoin/kept/detached/a1-left."
    ]
    assert git(fork.repository, "rev-parse", "refs/forkjoin/kept/detached/a1-left") == tip


async def test_a_commit_that_was_only_checked_out_is_not_kept(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach", "main")
    git(fork.path, "switch", "-q", fork.branch)
    assert (await leave_twice(fork)).warnings == []
