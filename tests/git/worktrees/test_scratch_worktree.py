"""A scratch worktree gets exactly a commit's files, even after programs have changed it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forkjoin.git.worktrees.scratch_worktree import detach_scratch, make_scratch
from support.branches import Fork, commit, contents, put_git
from support.harness import git


@pytest.fixture
async def scratch(repository: Path, tmp_path: Path) -> Fork:
    """A scratch worktree at HEAD, in which `old` is a file and `*.cache` is ignored."""
    tip = commit(repository, {".gitignore": "*.cache\n", "old": "x\n"})
    path = tmp_path / "worktrees" / "target-1"
    await make_scratch(str(repository / ".git"), path, tip, keep=False)
    return Fork(repository, path, "", tip)


async def switch(scratch: Fork) -> None:
    """Switch to a commit with `new` instead of `old`, and check the files."""
    tip = commit(scratch.repository, {"old": None, "new": "y\n"})
    await make_scratch(scratch.common_dir, scratch.path, tip, keep=True)
    assert git(scratch.path, "rev-parse", "HEAD") == tip
    assert git(scratch.path, "status", "--porcelain", "--branch") == "## HEAD (no branch)"
    tracked = [name for name in contents(scratch.path) if ".cache" not in name]
    assert sorted(tracked) == [".gitignore", "README.md", "new", "shared.txt"]
    assert (scratch.path / "shared.txt").read_text() == "one\ntwo\nthree\n"


async def test_a_switch_keeps_ignored_files_and_nothing_else_of_the_last_run(scratch: Fork) -> None:
    (scratch.path / "shared.txt").write_text("edited by verify\n")
    (scratch.path / "untracked" / "deep").mkdir(parents=True)
    (scratch.path / "untracked" / "deep" / "file").touch()
    (scratch.path / "x.cache").write_text("warm")
    await switch(scratch)
    assert (scratch.path / "x.cache").read_text() == "warm"


async def test_no_file_stays_unless_the_last_run_is_trusted(scratch: Fork) -> None:
    (scratch.path / "untracked").write_text("of the run\n")
    (scratch.path / "shared.txt").write_text("of the run\n")
    (scratch.path / "x.cache").write_text("of the run\n")
    git(scratch.path, "update-index", "--skip-worktree", "shared.txt")
    (scratch.folder / "hooks").mkdir()
    await make_scratch(scratch.common_dir, scratch.path, scratch.base, keep=False)
    assert git(scratch.path, "status", "--porcelain", "--ignored") == ""
    assert sorted(contents(scratch.path)) == [".gitignore", "README.md", "old", "shared.txt"]
    assert (scratch.path / "shared.txt").read_text() == "one\ntwo\nthree\n"
    assert not (scratch.folder / "hooks").exists()


async def test_only_the_commits_own_ignore_rules_keep_files(scratch: Fork) -> None:
    (scratch.path / "hides").mkdir()
    (scratch.path / "hides" / ".gitignore").write_text("*\n")
    (scratch.path / "hides" / "itself").touch()
    (scratch.path / "x.cache" / "kept").mkdir(parents=True)
    (scratch.path / "x.cache" / "kept" / ".gitignore").write_text("*\n")
    Path(scratch.common_dir, "info", "exclude").write_text("by-all\n")
    (scratch.path / "by-all").touch()
    (scratch.path / ".gitignore").write_text("*.cache\nsitecustomize.py\n")
    (scratch.path / "sitecustomize.py").touch()
    await switch(scratch)
    assert (scratch.path / "x.cache" / "kept" / ".gitignore").read_text() == "*\n"
    assert not list(scratch.path.rglob("*aside*"))


async def test_caches_survive_a_daemon_killed_during_the_switch(scratch: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    (scratch.path / "x.cache").write_text("warm")
    with monkeypatch.context() as patch:
        patch.setattr("forkjoin.git.worktrees.scratch_worktree.lock_worktree_list", _be_killed)
        with pytest.raises(InterruptedError):
            await make_scratch(scratch.common_dir, scratch.path, scratch.base, keep=True)
    (scratch.path / "shared.txt").write_text("half written")
    await make_scratch(scratch.common_dir, scratch.path, scratch.base, keep=True)
    assert git(scratch.path, "status", "--porcelain") == ""
    assert (scratch.path / "x.cache").read_text() == "warm"


def _be_killed(_: str) -> None:
    raise InterruptedError


async def test_an_incomplete_scratch_worktree_is_made_again(scratch: Fork) -> None:
    (scratch.folder / "forkjoin-ready").unlink()
    (scratch.folder / "index").unlink()
    (scratch.path / "shared.txt").write_text("half written")
    await make_scratch(scratch.common_dir, scratch.path, scratch.base, keep=True)
    assert git(scratch.path, "status", "--porcelain") == ""
    assert (scratch.path / "shared.txt").read_text() == "one\ntwo\nthree\n"


def delete_git(scratch: Fork) -> None:
    (scratch.path / ".git").unlink()


def leave_a_lock(scratch: Fork) -> None:
    (scratch.folder / "index.lock").touch()


def break_the_index(scratch: Fork) -> None:
    (scratch.folder / "index").write_text("garbage")


def delete_the_folder(scratch: Fork) -> None:
    shutil.rmtree(scratch.path)


def start_a_repository(scratch: Fork) -> None:
    (scratch.path / ".git").unlink()
    git(scratch.path, "init", "-q")


def point_git_at_the_users_checkout(scratch: Fork) -> None:
    (scratch.path / ".git").write_text(f"gitdir: {scratch.common_dir}\n")


def clone_within(scratch: Fork) -> None:
    git(scratch.path, "clone", "-q", str(scratch.repository), "inner")


def leave_pipes(scratch: Fork) -> None:
    os.mkfifo(scratch.path / "deep.cache")
    (scratch.path / "deep").mkdir()
    for name in (".gitattributes", "deep/.gitignore"):
        os.mkfifo(scratch.path / name)


def put_a_pipe_for_git(scratch: Fork) -> None:
    (scratch.path / ".git").unlink()
    os.mkfifo(scratch.path / ".git")


@pytest.mark.parametrize(
    "wreck",
    [
        *(
            leave_pipes,
            put_a_pipe_for_git,
            delete_git,
            leave_a_lock,
            break_the_index,
            delete_the_folder,
            start_a_repository,
            clone_within,
        ),
        point_git_at_the_users_checkout,
    ],
)
async def test_a_wrecked_scratch_worktree_gets_the_commits_files(scratch: Fork, wreck: object) -> None:
    assert callable(wreck)
    wreck(scratch)
    await switch(scratch)
    assert git(scratch.repository, "status", "--porcelain", "--branch") == "## main"
    assert len(git(scratch.repository, "worktree", "list").splitlines()) == 2


async def test_a_core_worktree_setting_does_not_redirect_a_switch_to_the_checkout(scratch: Fork) -> None:
    git(scratch.path, "config", "extensions.worktreeConfig", "true")
    git(scratch.path, "config", "--worktree", "core.worktree", str(scratch.repository))
    tip = commit(scratch.repository, {"new": "y\n"})
    (scratch.repository / "shared.txt").write_text("the user's edit\n")
    (scratch.repository / "loose").write_text("the user's\n")
    before = contents(scratch.repository)
    await make_scratch(scratch.common_dir, scratch.path, tip, keep=True)
    assert contents(scratch.repository) == before
    assert (scratch.path / "new").exists()


async def test_a_scratch_worktree_that_a_run_made_sparse_gets_all_files(scratch: Fork) -> None:
    git(scratch.path, "sparse-checkout", "set", "--no-cone", "/old")
    assert not (scratch.path / "shared.txt").exists()
    await switch(scratch)


@pytest.mark.parametrize("cone", ["--cone", "--no-cone"])
async def test_a_scratch_worktree_of_a_sparse_checkout_has_all_files_and_keeps_caches(
    repository: Path, tmp_path: Path, cone: str
) -> None:
    first = commit(repository, {".gitignore": "*.cache\n", "deep/in": "x\n", "deep/away/file": "x\n"})
    git(repository, "sparse-checkout", "set", cone, "deep/in" if cone == "--no-cone" else "deep/none")
    path = tmp_path / "worktrees" / "target-1"
    await make_scratch(str(repository / ".git"), path, first, keep=False)
    assert {"README.md", "deep/in", "deep/away/file"} <= contents(path).keys()
    (path / "x.cache").touch()
    second = commit(path, {"deep/away/file": "y\n", "new": "y\n"})
    git(path, "checkout", "-q", first)
    await make_scratch(str(repository / ".git"), path, second, keep=True)
    assert (path / "deep/away/file").read_text() == "y\n"
    assert (path / "x.cache").exists()
    assert not (repository / "deep" / "away" / "file").exists()


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
async def test_a_changed_file_with_a_hiding_flag_is_restored(scratch: Fork, flag: str) -> None:
    (scratch.path / "shared.txt").write_text("of the run\n")
    git(scratch.path, "update-index", flag, "shared.txt")
    await switch(scratch)


async def test_files_that_are_no_longer_ignored_are_removed(scratch: Fork) -> None:
    (scratch.path / "x.cache" / "deep").mkdir(parents=True)
    (scratch.path / "y.cache").touch()
    tip = commit(scratch.repository, {".gitignore": "other\n", "x.cache": "a file\n"})
    await make_scratch(scratch.common_dir, scratch.path, tip, keep=True)
    assert sorted(contents(scratch.path)) == [".gitignore", "README.md", "old", "shared.txt", "x.cache"]
    assert (scratch.path / "x.cache").read_text() == "a file\n"


async def test_cached_bytecode_of_another_commit_is_not_used(scratch: Fork) -> None:
    tips = {
        value: commit(scratch.repository, {".gitignore": "__pycache__\n", "value.py": f"value = {value}\n"})
        for value in (1, 2)
    }
    for value in (1, 2, 1):
        await make_scratch(scratch.common_dir, scratch.path, tips[value], keep=True)
        call = (sys.executable, "-c", "import value; print(value.value)")
        said = subprocess.run(call, cwd=scratch.path, env={}, capture_output=True, check=True).stdout
        await detach_scratch(scratch.common_dir, scratch.path, tips[value])
        assert int(said) == value
    assert (scratch.path / "__pycache__").exists()


async def test_git_holds_the_worktree_lock_in_case_it_outlives_the_daemon(
    scratch: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = f'*" checkout "*|*" reset "*) ls -l /proc/$$/fd | grep -c forkjoin.lock >> {tmp_path}/held'
    put_git(tmp_path / "bin", monkeypatch, f'case " $* " in {holds};; esac')
    await make_scratch(scratch.common_dir, scratch.path, scratch.base, keep=True)
    delete_git(scratch)
    await make_scratch(scratch.common_dir, scratch.path, scratch.base, keep=True)
    assert (tmp_path / "held").read_text().split() == ["1", "1"]


@pytest.mark.parametrize("how", ["rebase --exec false main", "bisect start"])
async def test_a_branch_in_a_rebase_or_bisection_is_released_after_the_run(scratch: Fork, how: str) -> None:
    git(scratch.repository, "branch", "develop", "main~1")
    git(scratch.path, "switch", "-q", "develop")
    commit(scratch.path, {"of-verify": "x\n"})
    git(scratch.path, *how.split(), check=False)
    await detach_scratch(scratch.common_dir, scratch.path, scratch.base)
    git(scratch.repository, "switch", "-q", "develop")


async def test_a_branch_that_the_run_checked_out_does_not_move(scratch: Fork) -> None:
    git(scratch.repository, "branch", "develop")
    git(scratch.path, "switch", "-q", "develop")
    await switch(scratch)
    assert git(scratch.repository, "rev-parse", "develop") == scratch.base
