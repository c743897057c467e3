"""A scratch worktree is given exactly a commit's files, whatever was run in it before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forkjoin.git.worktrees.scratch_worktree import detach, make_scratch
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
    """Give it the files of another commit, that has `new` instead of `old`, and see that it has exactly these."""
    tip = commit(scratch.repository, {"old": None, "new": "y\n"})
    await make_scratch(scratch.common_dir, scratch.path, tip, keep=True)
    assert git(scratch.path, "rev-parse", "HEAD") == tip
    assert git(scratch.path, "status", "--porcelain", "--branch") == "## HEAD (no branch)"
    tracked = [name for name in contents(scratch.path) if ".cache" not in name]
    assert sorted(tracked) == [".gitignore", "README.md", "new", "shared.txt"]
    assert (scratch.path / "shared.txt").read_text() == "one\ntwo\nthree\n"


async def test_a_scratch_worktree_is_given_exactly_another_commits_files_but_keeps_its_caches(scratch: Fork) -> None:
    (scratch.path / "shared.txt").write_text("edited by verify\n")
    (scratch.path / "untracked" / "deep").mkdir(parents=True)
    (scratch.path / "untracked" / "deep" / "file").touch()
    (scratch.path / "x.cache").write_text("warm")
    await switch(scratch)
    assert (scratch.path / "x.cache").read_text() == "warm"


async def test_of_one_whose_run_is_not_vouched_for_nothing_stays(scratch: Fork) -> None:
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


async def test_what_is_ignored_is_what_the_commit_says_and_nothing_else(scratch: Fork) -> None:
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


@pytest.mark.parametrize("bit", ["skip-worktree", "assume-unchanged"])
async def test_a_file_that_git_was_told_to_leave_is_the_commits_all_the_same(scratch: Fork, bit: str) -> None:
    git(scratch.path, "update-index", f"--{bit}", "shared.txt")
    (scratch.path / "shared.txt").write_text("of the run\n")
    await switch(scratch)


async def test_one_in_whose_midst_a_daemon_died_keeps_its_caches(
    scratch: Fork, monkeypatch: pytest.MonkeyPatch
) -> None:
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


async def test_one_that_was_half_made_is_made_anew(scratch: Fork) -> None:
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
async def test_one_that_was_wrecked_is_given_the_files_all_the_same(scratch: Fork, wreck: object) -> None:
    assert callable(wreck)
    wreck(scratch)
    await switch(scratch)
    assert git(scratch.repository, "status", "--porcelain", "--branch") == "## main"
    assert len(git(scratch.repository, "worktree", "list").splitlines()) == 2


async def test_one_that_was_configured_to_be_the_users_checkout_leaves_that_alone(scratch: Fork) -> None:
    git(scratch.path, "config", "extensions.worktreeConfig", "true")
    git(scratch.path, "config", "--worktree", "core.worktree", str(scratch.repository))
    tip = commit(scratch.repository, {"new": "y\n"})
    (scratch.repository / "shared.txt").write_text("the user's edit\n")
    (scratch.repository / "loose").write_text("the user's\n")
    before = contents(scratch.repository)
    await make_scratch(scratch.common_dir, scratch.path, tip, keep=True)
    assert contents(scratch.repository) == before
    assert (scratch.path / "new").exists()


async def test_one_that_was_made_sparse_has_all_files_for_the_next(scratch: Fork) -> None:
    git(scratch.path, "sparse-checkout", "set", "--no-cone", "/old")
    assert not (scratch.path / "shared.txt").exists()
    await switch(scratch)


@pytest.mark.parametrize("cone", ["--cone", "--no-cone"])
async def test_where_the_users_checkout_is_sparse_it_has_all_files_and_stays_warm(
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
async def test_a_file_that_git_was_told_to_leave_as_it_is_is_the_commits_for_the_next(scratch: Fork, flag: str) -> None:
    (scratch.path / "shared.txt").write_text("of the run\n")
    git(scratch.path, "update-index", flag, "shared.txt")
    await switch(scratch)


async def test_what_is_ignored_no_more_goes_though_it_is_in_a_files_way(scratch: Fork) -> None:
    (scratch.path / "x.cache" / "deep").mkdir(parents=True)
    (scratch.path / "y.cache").touch()
    tip = commit(scratch.repository, {".gitignore": "other\n", "x.cache": "a file\n"})
    await make_scratch(scratch.common_dir, scratch.path, tip, keep=True)
    assert sorted(contents(scratch.path)) == [".gitignore", "README.md", "old", "shared.txt", "x.cache"]
    assert (scratch.path / "x.cache").read_text() == "a file\n"


async def test_no_bytecode_is_taken_for_another_commits(scratch: Fork) -> None:
    tips = {
        value: commit(scratch.repository, {".gitignore": "__pycache__\n", "value.py": f"value = {value}\n"})
        for value in (1, 2)
    }
    for value in (1, 2, 1, 2):
        await make_scratch(scratch.common_dir, scratch.path, tips[value], keep=True)
        call = (sys.executable, "-c", "import value; print(value.value)")
        said = subprocess.run(call, cwd=scratch.path, env={}, capture_output=True, check=True).stdout
        await detach(scratch.common_dir, scratch.path, tips[value])
        assert int(said) == value
    assert (scratch.path / "__pycache__").exists()


async def test_a_git_that_outlives_its_daemon_keeps_the_next_from_the_worktree(
    scratch: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = f'*" checkout "*|*" reset "*) ls -l /proc/$$/fd | grep -c forkjoin.lock >> {tmp_path}/held'
    put_git(tmp_path / "bin", monkeypatch, f'case " $* " in {holds};; esac')
    await make_scratch(scratch.common_dir, scratch.path, scratch.base, keep=True)
    delete_git(scratch)
    await make_scratch(scratch.common_dir, scratch.path, scratch.base, keep=True)
    assert (tmp_path / "held").read_text().split() == ["1", "1"]


@pytest.mark.parametrize("how", ["rebase --exec false main", "bisect start"])
async def test_a_branch_that_was_left_midway_in_it_is_free_for_its_user_again(scratch: Fork, how: str) -> None:
    git(scratch.repository, "branch", "develop", "main~1")
    git(scratch.path, "switch", "-q", "develop")
    commit(scratch.path, {"of-verify": "x\n"})
    git(scratch.path, *how.split(), check=False)
    await detach(scratch.common_dir, scratch.path, scratch.base)
    git(scratch.repository, "switch", "-q", "develop")


async def test_a_branch_that_was_switched_to_in_it_does_not_move(scratch: Fork) -> None:
    git(scratch.repository, "branch", "develop")
    git(scratch.path, "switch", "-q", "develop")
    await switch(scratch)
    assert git(scratch.repository, "rev-parse", "develop") == scratch.base
