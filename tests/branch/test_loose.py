"""What an agent leaves in its worktree is committed byte for byte on its branch, whatever it did to the worktree."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from branches import (
    Fork,
    blob,
    commit,
    everything,
    files_of,
    make_fork,
    put_counting_git,
    put_git,
    put_hooks,
)
from forkjoin.branch.loose import Left, commit_loose
from forkjoin.error import GitError
from harness import git


@pytest.fixture
async def fork(repository: Path) -> Fork:
    return await make_fork(repository)


async def leave(fork: Fork, keep_as: str = "a1-left") -> Left:
    return await commit_loose(fork.common_dir, fork.path, fork.branch, "Uncommitted work", keep_as)


async def leave_twice(fork: Fork) -> Left:
    """As it is left the first time, once the second has changed nothing and kept nothing more."""
    left = await leave(fork)
    before = everything(fork.repository)
    again = await leave(fork)
    assert (again.tip, again.loose) == (left.tip, 0)
    assert everything(fork.repository) == before
    assert left.tip == git(fork.repository, "rev-parse", fork.branch)
    return left


# -- loose work of every kind


async def test_nothing_loose_makes_no_commit_and_no_warning(fork: Fork) -> None:
    assert await leave_twice(fork) == Left(fork.base, 0, [])


async def test_edited_new_and_deleted_files_are_in_one_commit_on_the_branch(fork: Fork) -> None:
    (fork.path / "shared.txt").write_bytes(b"one\r\ntwo\n\xff")
    (fork.path / "new" / "deep").mkdir(parents=True)
    (fork.path / "new" / "deep" / "file").write_bytes(bytes(range(256)) * 1000)
    (fork.path / "README.md").unlink()
    left = await leave_twice(fork)
    assert left.loose == 3
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


@pytest.mark.parametrize(
    "name",
    [b"a\nb", b"\xff\xfe", b"--all", b" lead", b'quo"te', b":(top)x", b"*", b"tab\there", "ünï".encode(), b"a" * 255],
)
async def test_a_file_of_any_name_is_kept(fork: Fork, name: bytes) -> None:
    (fork.path / os.fsdecode(name)).write_bytes(name)
    assert (await leave_twice(fork)).loose == 1
    assert blob(fork.repository, fork.branch, name) == name


async def test_what_is_staged_but_deleted_and_what_is_only_meant_to_be_added_is_taken_as_the_files_are(
    fork: Fork,
) -> None:
    (fork.path / "staged").write_text("x")
    (fork.path / "meant").write_text("y")
    git(fork.path, "add", "staged")
    git(fork.path, "add", "--intent-to-add", "meant")
    (fork.path / "staged").unlink()
    await leave_twice(fork)
    assert files_of(fork.repository, fork.branch) == ["100644 README.md", "100644 meant", "100644 shared.txt"]


async def test_a_change_within_the_second_of_the_checkout_is_seen(fork: Fork) -> None:
    stat = (fork.path / "shared.txt").stat()
    (fork.path / "shared.txt").write_text("two\none\nthree\n")  # of the same size
    os.utime(fork.path / "shared.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    index = (fork.folder / "index").stat()
    os.utime(fork.folder / "index", ns=(index.st_atime_ns, stat.st_mtime_ns))
    assert (await leave_twice(fork)).loose == 1


@pytest.mark.parametrize(("files", "how"), [(3, "core.fsync=committed"), (150, "--file-system")])
async def test_objects_are_on_disk_before_a_ref_relies_on_them(
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


async def test_files_are_kept_though_git_is_set_to_refuse_their_line_ends(fork: Fork) -> None:
    git(fork.repository, "config", "core.autocrlf", "input")
    git(fork.repository, "config", "core.safecrlf", "true")
    (fork.path / "windows").write_bytes(b"a\r\nb\n")
    assert (await leave_twice(fork)).warnings == ["1 uncommitted path was committed for the agent."]
    assert blob(fork.repository, fork.branch, "windows") == b"a\nb\n"


@pytest.mark.parametrize("call", ["add", "status"])
async def test_what_passes_is_no_reason_to_commit_less_or_to_make_the_index_anew(
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
    assert (await leave_twice(fork)).loose == 1


@pytest.mark.parametrize("name", [".gitignore", ".gitattributes", "deep/er/.gitignore", "deep/er/.gitattributes"])
async def test_pipes_where_git_reads_its_settings_hold_nobody_up(fork: Fork, name: str) -> None:
    commit(fork.path, {"deep/er/file": "x\n"})
    for file in ("shared.txt", "deep/er/file"):
        (fork.path / file).write_text("edited\n")
    os.mkfifo(fork.path / name)
    left = await leave(fork)
    assert left.warnings[0] == f"The agent left pipes that git would wait for, which were removed: {name}."
    assert left.loose == 2
    assert (await leave_twice(fork)).tip == left.tip


async def test_what_git_will_not_take_is_said_and_the_rest_is_committed(fork: Fork) -> None:
    (fork.path / "GIT~1").mkdir()
    (fork.path / "GIT~1" / "refused").touch()
    (fork.path / "good").write_text("x")
    left = await leave_twice(fork)
    assert left.warnings[0] == "Not all of the uncommitted work could be committed: error: invalid path 'GIT~1/refused'"
    assert left.loose == 1
    assert blob(fork.repository, fork.branch, "good") == b"x"


async def test_repositories_within_the_worktree_are_named_and_left_alone(fork: Fork) -> None:
    git(fork.path, "init", "-q", "empty")
    git(fork.path, "clone", "-q", str(fork.repository), "cloned")
    git(fork.path, "worktree", "add", "-q", "--detach", "nested")
    (fork.path / "good").write_text("x")
    left = await leave_twice(fork)
    assert "Repositories within the worktree stay there, and are not merged: cloned/, empty/, nested/." in left.warnings
    assert files_of(fork.repository, fork.branch) == ["100644 README.md", "100644 good", "100644 shared.txt"]


async def test_a_submodule_that_was_moved_is_named_and_stays_where_it_was(repository: Path, tmp_path: Path) -> None:
    git(repository, "clone", "-q", ".", str(tmp_path / "library"))
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    git(repository, "commit", "-qm", "with a submodule")
    fork = await make_fork(repository)
    git(fork.path, "-c", "protocol.file.allow=always", "submodule", "update", "-q", "--init")
    commit(fork.path / "lib", {"inner": "x"})
    left = await leave_twice(fork)
    assert left.tip == fork.base
    assert "Repositories within the worktree stay there, and are not merged: lib." in left.warnings


# -- who commits, and what is not run


async def test_the_author_is_who_git_knows(fork: Fork) -> None:
    (fork.path / "new").touch()
    left = await leave(fork)
    assert git(fork.repository, "log", "-1", "--format=%an <%ae>", str(left.tip)) == "Test <test@example.com>"


async def test_there_is_an_author_though_git_knows_none(fork: Fork, user: Path) -> None:
    (user / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    (fork.path / "new").touch()
    left = await leave_twice(fork)
    assert git(fork.repository, "log", "-1", "--format=%an %cn", str(left.tip)) == "forkjoin forkjoin"


@pytest.mark.parametrize("hooks", ["", "hooks", ".hooks"])
async def test_neither_the_repositorys_nor_the_worktrees_hooks_are_run(fork: Fork, tmp_path: Path, hooks: str) -> None:
    put_hooks(fork.repository / ".git" / "hooks", tmp_path / "told")
    if hooks:
        git(fork.repository, "config", "core.hooksPath", hooks)  # relative: in each worktree, an agent's too
        put_hooks(fork.path / hooks, tmp_path / "told")
    (fork.path / "new").touch()
    await leave_twice(fork)
    assert not (tmp_path / "told").exists()


async def test_no_monitor_is_run_and_nothing_is_signed(fork: Fork, tmp_path: Path) -> None:
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


async def test_a_clean_worktree_takes_a_single_call_of_git(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = put_counting_git(tmp_path / "bin", monkeypatch)
    await leave(fork)
    assert len(log.read_text().splitlines()) == 1


# -- where HEAD is


async def test_commits_on_the_branch_are_its_tip(fork: Fork) -> None:
    tip = commit(fork.path, {"done": "x"})
    assert await leave_twice(fork) == Left(tip, 0, [])


async def test_loose_work_goes_on_top_of_the_agents_own_commits(fork: Fork) -> None:
    tip = commit(fork.path, {"done": "x"})
    (fork.path / "loose").write_text("y")
    left = await leave_twice(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == tip
    assert git(fork.path, "status", "--porcelain", "--branch") == f"## {fork.branch}"


async def test_work_on_a_detached_head_is_brought_to_the_branch(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach")
    done = commit(fork.path, {"done": "x"})
    (fork.path / "loose").write_text("y")
    left = await leave_twice(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == done
    assert "The agent worked off its branch; the branch was moved to its last commit." in left.warnings


async def test_work_on_another_branch_is_brought_to_the_agents_and_that_one_does_not_move(fork: Fork) -> None:
    git(fork.repository, "branch", "develop")
    git(fork.path, "switch", "-q", "develop")
    (fork.path / "loose").write_text("y")
    left = await leave_twice(fork)
    assert blob(fork.repository, fork.branch, "loose") == b"y"
    assert git(fork.repository, "rev-parse", "develop") == fork.base
    assert left.loose == 1


async def test_work_that_the_branch_cannot_take_is_kept_under_a_ref(fork: Fork) -> None:
    mine = commit(fork.path, {"mine": "x"})
    git(fork.path, "switch", "-qc", "other", fork.base)
    (fork.path / "loose").write_text("y")
    left = await leave_twice(fork)
    assert left.tip == mine
    assert left.warnings[-1] == (
        "The agent's HEAD had left its branch; what was there is kept as refs/forkjoin/kept/a1-left, and is not merged."
    )
    assert blob(fork.repository, "refs/forkjoin/kept/a1-left", "loose") == b"y"


async def test_what_was_kept_of_an_earlier_attempt_stays_kept(fork: Fork) -> None:
    commit(fork.path, {"mine": "x"})
    for name in ("first", "second"):
        git(fork.path, "switch", "-q", "--detach", fork.base)
        (fork.path / name).write_text("y")
        await leave(fork)
    assert blob(fork.repository, "refs/forkjoin/kept/a1-left", "first") == b"y"
    assert blob(fork.repository, "refs/forkjoin/kept/a1-left-2", "second") == b"y"


async def test_a_branch_that_a_person_has_checked_out_is_not_moved_under_them(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach")
    git(fork.repository, "switch", "-q", fork.branch)
    commit(fork.path, {"done": "x"})
    left = await leave_twice(fork)
    assert left.tip == fork.base
    assert git(fork.repository, "status", "--porcelain") == ""
    assert blob(fork.repository, "refs/forkjoin/kept/a1-left", "done") == b"x"


async def test_an_older_commit_checked_out_leaves_the_branch_where_it_is(fork: Fork) -> None:
    tip = commit(fork.path, {"done": "x"})
    git(fork.path, "switch", "-q", "--detach", fork.base)
    assert await leave_twice(fork) == Left(tip, 0, [])


async def test_a_branch_that_was_reset_is_where_it_was_reset_to(fork: Fork) -> None:
    commit(fork.path, {"done": "x"})
    git(fork.path, "reset", "-q", "--soft", fork.base)
    left = await leave_twice(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == fork.base
    assert left.loose == 1


async def test_a_deleted_branch_is_made_again_with_the_commits_that_were_on_it(fork: Fork) -> None:
    done = commit(fork.path, {"done": "x"})
    git(fork.repository, "update-ref", "-d", f"refs/heads/{fork.branch}")
    left = await leave_twice(fork)
    assert left == Left(done, 0, ["The agent's branch was gone; it was made again at the agent's last commit."])


async def test_loose_work_on_a_deleted_branch_goes_on_top_of_the_commits_that_were_on_it(fork: Fork) -> None:
    done = commit(fork.path, {"done": "x"})
    git(fork.repository, "update-ref", "-d", f"refs/heads/{fork.branch}")
    (fork.path / "loose").write_text("y")
    left = await leave_twice(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == done
    assert git(fork.path, "status", "--porcelain", "--branch") == f"## {fork.branch}"


async def test_where_the_branch_cannot_be_made_again_what_was_on_it_is_kept(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach")
    done = commit(fork.path, {"done": "x"})
    git(fork.path, "branch", "-qD", fork.branch)
    git(fork.repository, "branch", f"{fork.branch}/below", fork.base)
    left = await leave(fork)
    assert left == Left(None, 0, [left.warnings[-1]])
    assert left.warnings[-1] == (
        "The agent's HEAD had left its branch; what was there is kept as refs/forkjoin/kept/a1-left, and is not merged."
    )
    assert git(fork.repository, "rev-parse", "refs/forkjoin/kept/a1-left") == done
    assert await leave(fork) == left


async def test_a_branch_deleted_from_a_detached_head_is_made_again(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach")
    done = commit(fork.path, {"done": "x"})
    git(fork.path, "branch", "-qD", fork.branch)
    assert (await leave_twice(fork)).tip == done


# -- operations that were under way


async def test_a_merge_with_conflicts_is_committed_as_it_stands_and_said(fork: Fork) -> None:
    commit(fork.repository, {"shared.txt": "theirs\n"})
    done = commit(fork.path, {"shared.txt": "mine\n"})
    git(fork.path, "merge", "main", check=False)
    left = await leave_twice(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^@") == done
    assert b"<<<<<<<" in blob(fork.repository, str(left.tip), "shared.txt")
    assert "They were in the middle of a merge, with conflicts in: shared.txt." in left.warnings


async def test_a_rebase_with_conflicts_is_kept_beside_the_branch(fork: Fork) -> None:
    commit(fork.repository, {"shared.txt": "theirs\n"})
    done = commit(fork.path, {"shared.txt": "mine\n"})
    git(fork.path, "rebase", "main", check=False)
    left = await leave_twice(fork)
    assert left.tip == done
    assert b"<<<<<<<" in blob(fork.repository, "refs/forkjoin/kept/a1-left", "shared.txt")


async def test_locks_of_a_git_that_was_killed_are_in_nobodys_way(fork: Fork) -> None:
    for lock in (fork.folder / "index.lock", fork.folder / "HEAD.lock", _ref_lock(fork)):
        lock.write_bytes(b"")
    (fork.path / "loose").write_text("y")
    assert (await leave_twice(fork)).loose == 1


async def test_folders_in_place_of_locks_are_in_nobodys_way(fork: Fork) -> None:
    for lock in (fork.folder / "index.lock", fork.folder / "HEAD.lock", _ref_lock(fork)):
        (lock / "deep").mkdir(parents=True)
    (fork.path / "loose").write_text("y")
    assert (await leave_twice(fork)).loose == 1


def _ref_lock(fork: Fork) -> Path:
    return fork.repository / ".git" / "refs" / "heads" / f"{fork.branch}.lock"


@pytest.mark.parametrize("damage", [b"garbage", b"", None])
async def test_a_damaged_index_loses_nothing_that_is_in_the_files(fork: Fork, damage: bytes | None) -> None:
    commit(fork.path, {".gitignore": "ignored\n", "ignored": "but committed\n"})
    (fork.path / "loose").write_text("y")
    if damage is None:
        (fork.folder / "index").unlink()
    else:
        (fork.folder / "index").write_bytes(damage)
    await leave_twice(fork)
    assert files_of(fork.repository, fork.branch) == [
        *("100644 .gitignore", "100644 README.md", "100644 ignored", "100644 loose", "100644 shared.txt")
    ]


# -- a worktree that is none any more


def delete_git(fork: Fork) -> None:
    (fork.path / ".git").unlink()


def start_a_repository(fork: Fork) -> None:
    (fork.path / ".git").unlink()
    git(fork.path, "init", "-q")
    git(fork.path, "add", ".")
    git(fork.path, "commit", "-qm", "in another repository")


def point_git_at_the_users_checkout(fork: Fork) -> None:
    (fork.path / ".git").write_text(f"gitdir: {fork.common_dir}\n")


def link_git_to_the_users(fork: Fork) -> None:
    (fork.path / ".git").unlink()
    (fork.path / ".git").symlink_to(fork.common_dir)


def put_a_pipe_for_git(fork: Fork) -> None:
    (fork.path / ".git").unlink()
    os.mkfifo(fork.path / ".git")


@pytest.mark.parametrize(
    "meddle",
    [
        *(delete_git, start_a_repository, point_git_at_the_users_checkout, link_git_to_the_users),
        put_a_pipe_for_git,
    ],
)
async def test_files_are_committed_though_git_was_taken_from_the_worktree(
    fork: Fork, meddle: Callable[[Fork], None]
) -> None:
    done = commit(fork.path, {"done": "x"})
    (fork.path / "loose").write_text("y")
    meddle(fork)
    before = everything(fork.repository)
    left = await leave(fork)
    assert git(fork.repository, "rev-parse", f"{left.tip}^") == done
    assert blob(fork.repository, fork.branch, "loose") == b"y"
    assert ".git" in left.warnings[0]
    after = everything(fork.repository)
    for same in ("HEAD", "index", "files", "stash", "worktrees"):
        assert after[same] == before[same]
    assert (await leave(fork)).tip == left.tip


async def test_a_deleted_git_is_put_back(fork: Fork) -> None:
    delete_git(fork)
    await leave(fork)
    assert git(fork.path, "status", "--porcelain", "--branch") == f"## {fork.branch}"


async def test_a_repository_around_the_worktrees_is_not_touched(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    fork = await make_fork(repository)
    shutil.rmtree(fork.folder)
    (fork.path / ".git").unlink()
    (fork.path / "loose").write_text("y")
    left = await leave(fork)
    assert left == Left(fork.base, 0, ["git knows the agent's worktree no more: only what its branch had is left."])
    assert not (tmp_path / ".git" / "index").exists()


@pytest.mark.parametrize("instead", ["nothing", "a file", "a symlink"])
async def test_of_a_worktree_whose_folder_is_gone_the_commits_are_left(
    fork: Fork, tmp_path: Path, instead: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").touch()
    git(fork.path, "switch", "-q", "--detach")
    done = commit(fork.path, {"done": "x"})
    shutil.rmtree(fork.path)
    if instead == "a file":
        fork.path.touch()
    if instead == "a symlink":
        fork.path.symlink_to(tmp_path / "outside")
    left = await leave_twice(fork)
    assert left.tip == done
    assert left.warnings[0] == "The agent removed its worktree: only what it had committed is left."
    assert files_of(fork.repository, done) == ["100644 README.md", "100644 done", "100644 shared.txt"]


async def test_a_folder_of_the_worktree_that_is_a_symlink_outward_is_committed_as_a_symlink(
    fork: Fork, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").touch()
    (fork.path / "link").symlink_to(tmp_path / "outside")
    await leave_twice(fork)
    assert "120000 link" in files_of(fork.repository, fork.branch)


# -- what stays


async def test_ignored_files_are_named_but_not_committed(fork: Fork) -> None:
    commit(fork.path, {".gitignore": "*.log\ncache/\n"})
    (fork.path / "cache").mkdir()
    for name in ("cache/1", "cache/2", "a.log", os.fsdecode(b"\xff\n.log")):
        (fork.path / name).touch()
    left = await leave_twice(fork)
    assert left.loose == 0
    assert left.warnings == ["Ignored files stay in the worktree and are not merged: a.log, cache/, \\xff\\n.log."]


async def test_of_many_ignored_files_ten_are_named_and_the_rest_is_counted(fork: Fork) -> None:
    commit(fork.path, {".gitignore": "*.log\n"})
    for number in range(25):
        (fork.path / f"{number:02}.log").touch()
    [warning] = (await leave(fork)).warnings
    assert warning.endswith("08.log, 09.log and 15 more.")
