"""Worktrees are made for one owner, and removed without touching anybody else's files or branches."""

import os
import shutil
from pathlib import Path

import anyio
import pytest
from anyio import run_process, to_thread
from forkjoin.core.error import CallerError, GitError
from forkjoin.git.worktrees import worktree, worktree_list_lock
from forkjoin.git.worktrees.worktree_list_lock import lock_worktree_list
from support.branches import (
    OWNER,
    commit,
    contents,
    everything,
    files_of,
    make_fork,
    put_counting_git,
    put_git,
    put_hooks,
    sign,
)
from support.harness import GIVE_UP_S, git, until


@pytest.fixture
def base(repository: Path) -> str:
    return git(repository, "rev-parse", "HEAD")


@pytest.fixture
def common_dir(repository: Path) -> str:
    return str(repository / ".git")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "worktrees" / "a1-left"


#: The first `git worktree add` succeeds, but then exits with the error of a lost race.
LOSES_ONE_RACE = """
case " $* " in *" worktree add "*)
    if mkdir {0}/raced; then
        {1} "$@"
        echo "fatal: failed to read .git/worktrees/other/commondir: Success" >&2
        exit 128
    fi
esac
"""

NEVER_ADDS = """
case " $* " in *" worktree add "*)
    echo "fatal: could not create directory" >&2
    exit 128
esac
"""

NEVER_CHECKS_OUT = """
case " $* " in *" reset "*)
    echo "error: unable to write file shared.txt" >&2
    exit 128
esac
"""


# -- making a worktree


async def test_a_worktree_has_the_files_of_its_base_on_a_branch_of_its_own(
    common_dir: str, path: Path, base: str, repository: Path
) -> None:
    commit(repository, {"later": "x"})
    assert await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER) == "forkjoin/a1-left"
    assert contents(path) == {"README.md": b"a repository\n", "shared.txt": b"one\ntwo\nthree\n"}
    assert git(path, "rev-parse", "HEAD", "--symbolic-full-name", "HEAD").split() == [
        base,
        "refs/heads/forkjoin/a1-left",
    ]
    assert git(path, "status", "--porcelain") == ""


async def test_making_a_worktree_twice_for_one_owner_changes_nothing(common_dir: str, path: Path, base: str) -> None:
    first = await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    before = everything(Path(common_dir).parent)
    assert await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER) == first
    assert everything(Path(common_dir).parent) == before


async def test_a_programs_changes_survive_making_the_worktree_again(common_dir: str, path: Path, base: str) -> None:
    await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    git(path, "switch", "-qc", "of-the-program")
    (path / "shared.txt").write_text("edited\n")
    (path / "new").write_text("new\n")
    await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    assert contents(path) == {"README.md": b"a repository\n", "shared.txt": b"edited\n", "new": b"new\n"}


async def test_an_incomplete_worktree_is_made_again(repository: Path) -> None:
    fork = await make_fork(repository)
    (fork.folder / "forkjoin-ready").unlink()
    (fork.folder / "index").replace(fork.folder / "index.lock")
    (fork.path / "shared.txt").write_text("half written")
    (fork.path / "README.md").unlink()
    assert (await make_fork(repository)).branch == fork.branch
    assert git(fork.path, "status", "--porcelain") == ""
    assert (fork.path / "shared.txt").read_text() == "one\ntwo\nthree\n"
    assert len(git(repository, "worktree", "list").splitlines()) == 2


async def test_a_worktree_whose_folder_is_gone_is_made_again_at_the_agents_last_commit(
    common_dir: str, path: Path, base: str
) -> None:
    await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    last = commit(path, {"done": "x"})
    shutil.rmtree(path)
    assert await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER) == "forkjoin/a1-left"
    assert git(path, "rev-parse", "HEAD") == last
    assert (path / "done").exists()


async def test_a_branch_of_somebody_else_is_neither_adopted_nor_deleted(
    common_dir: str, path: Path, base: str, repository: Path
) -> None:
    git(repository, "branch", "forkjoin/a1-left")
    await worktree.make(common_dir, path.with_name("other"), "forkjoin/a1-left-2", base, "a1 of /another/home")
    assert await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER) == "forkjoin/a1-left-3"
    branches = git(repository, "branch", "--list", "--format=%(refname:short)", "forkjoin/*").splitlines()
    assert branches == ["forkjoin/a1-left", "forkjoin/a1-left-2", "forkjoin/a1-left-3"]


async def test_a_suffix_is_added_if_a_branch_exists_below_the_name(
    common_dir: str, path: Path, base: str, repository: Path
) -> None:
    git(repository, "branch", "forkjoin/a1-left/mine")
    assert await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER) == "forkjoin/a1-left-2"


async def test_a_branch_called_forkjoin_that_prevents_others_is_named(
    common_dir: str, path: Path, base: str, repository: Path
) -> None:
    git(repository, "branch", "forkjoin")
    before = everything(repository)
    with pytest.raises(GitError, match="'refs/heads/forkjoin' exists"):
        await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    assert everything(repository) == before
    assert await worktree.make(common_dir, path, "forkjoin-a1-left", base, OWNER) == "forkjoin-a1-left"


async def test_a_tag_with_the_branchs_name_makes_no_difference(
    common_dir: str, path: Path, base: str, repository: Path
) -> None:
    commit(repository, {"later": "x"})
    git(repository, "tag", "forkjoin/a1-left")
    await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    assert git(path, "rev-parse", "HEAD", "--symbolic-full-name", "HEAD").split() == [
        base,
        "refs/heads/forkjoin/a1-left",
    ]


async def test_making_a_worktree_is_refused_if_every_suffix_is_taken(
    common_dir: str, path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worktree, "_MAX_SUFFIX", 4)
    names = ["x", "x-2", "x-3", "x-4"]
    script = "".join(f"create refs/heads/{name} {base}\n" for name in names)
    await run_process(["git", "-C", common_dir, "update-ref", "--stdin"], input=script.encode())
    with pytest.raises(CallerError, match="x to x-4 all exist"):
        await worktree.make(common_dir, path, "x", base, OWNER)
    assert not path.exists()


async def test_making_a_worktree_is_retried_after_git_loses_a_race(
    common_dir: str, path: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", monkeypatch, LOSES_ONE_RACE.format(tmp_path, shutil.which("git")))
    assert await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER) == "forkjoin/a1-left"
    assert (tmp_path / "raced").exists()
    assert git(path, "status", "--porcelain") == ""


@pytest.mark.parametrize("script", [NEVER_ADDS, NEVER_CHECKS_OUT, "echo 'fatal: no' >&2; exit 128"])
async def test_a_lasting_failure_of_git_leaves_no_worktree_or_branch(
    common_dir: str, path: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    repository = Path(common_dir).parent
    before = everything(repository)
    with monkeypatch.context() as patch:
        put_git(tmp_path / "bin", patch, script)
        with pytest.raises(GitError) as refused:
            await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    assert refused.value.last_line in script
    assert everything(repository) == before
    assert not path.exists()


async def test_ten_worktrees_are_made_at_once_while_a_user_works(
    common_dir: str, base: str, repository: Path, tmp_path: Path
) -> None:
    git(repository, "clone", "-q", "--bare", ".", str(tmp_path / "origin.git"))
    git(repository, "remote", "add", "origin", str(tmp_path / "origin.git"))
    made: list[str] = []

    async def make(number: int) -> None:
        path = tmp_path / "worktrees" / f"a{number}-x"
        made.append(await worktree.make(common_dir, path, f"forkjoin/a{number}-x", base, f"a{number} of {tmp_path}"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_thread.run_sync, work_as_a_person, repository, tmp_path)
        for number in range(1, 11):
            tasks.start_soon(make, number)
    assert sorted(made) == sorted(f"forkjoin/a{number}-x" for number in range(1, 11))
    for number in range(1, 11):
        assert (
            git(tmp_path / "worktrees" / f"a{number}-x", "status", "--porcelain", "--branch")
            == f"## forkjoin/a{number}-x"
        )
    assert git(repository, "rev-list", "--count", f"{base}..main") == "3"
    assert git(repository, "fsck") == ""


def work_as_a_person(repository: Path, tmp_path: Path) -> None:
    for number in range(3):
        git(repository, "worktree", "add", "-q", str(tmp_path / f"own-{number}"), check=False)  # git's own race
        git(repository, "fetch", "-q", "origin")
        commit(repository, {f"own-{number}": "x"})
        git(repository, "gc", "-q")


async def test_making_a_worktree_takes_three_git_calls(
    common_dir: str, path: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = put_counting_git(tmp_path / "bin", monkeypatch)
    await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    assert len(log.read_text().splitlines()) == 3


async def test_no_hook_runs_and_no_configuration_is_written(
    common_dir: str, path: Path, base: str, repository: Path, tmp_path: Path
) -> None:
    put_hooks(repository / ".git" / "hooks", tmp_path / "told")
    before = (repository / ".git" / "config").read_bytes()
    await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    await worktree.remove(common_dir, path)
    assert not (tmp_path / "told").exists()
    assert (repository / ".git" / "config").read_bytes() == before


async def test_the_owner_is_recognized_if_git_shows_signatures(repository: Path, tmp_path: Path) -> None:
    sign(repository, tmp_path / "told")
    fork = await make_fork(repository)
    shutil.rmtree(fork.path)
    assert (await make_fork(repository)).branch == fork.branch
    assert not (tmp_path / "told").exists()


async def test_modes_and_symlinks_of_the_base_are_checked_out(repository: Path) -> None:
    (repository / "run").write_text("#!/bin/sh\n")
    (repository / "run").chmod(0o755)
    (repository / "link").symlink_to("run")
    commit(repository, {"other": "x"})
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "modes")
    fork = await make_fork(repository)
    assert os.access(fork.path / "run", os.X_OK)
    assert os.readlink(fork.path / "link") == "run"
    assert "120000 link" in files_of(fork.path, "HEAD")


async def test_making_a_worktree_waits_for_the_worktree_lock(common_dir: str, path: Path, base: str) -> None:
    with anyio.fail_after(GIVE_UP_S):
        async with anyio.create_task_group() as tasks, lock_worktree_list(common_dir):
            tasks.start_soon(worktree.make, common_dir, path, "forkjoin/a1-left", base, OWNER)
            await until(lambda: git(Path(common_dir), "branch", "--list", "forkjoin/*"))
            assert not path.exists()
    assert (path / "README.md").exists()


# -- files that are at the path already


async def test_files_at_the_path_that_belong_to_no_worktree_stay(common_dir: str, path: Path, base: str) -> None:
    path.mkdir(parents=True)
    (path / "precious").write_text("mine\n")
    with pytest.raises(CallerError, match="has files in it"):
        await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    assert (path / "precious").read_text() == "mine\n"
    assert git(Path(common_dir), "branch", "--list", "forkjoin/*") == ""


async def test_the_worktree_of_another_owner_stays(common_dir: str, path: Path, base: str) -> None:
    await worktree.make(common_dir, path, "forkjoin/a1-left", base, "a1 of another life")
    (path / "precious").write_text("theirs\n")
    with pytest.raises(CallerError, match="is the worktree of a1 of another life"):
        await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    assert (path / "precious").read_text() == "theirs\n"


async def test_a_symlink_at_the_path_is_removed_and_not_followed(
    common_dir: str, path: Path, base: str, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("mine\n")
    path.parent.mkdir()
    path.symlink_to(tmp_path / "outside")
    await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER)
    assert not path.is_symlink()
    assert contents(tmp_path / "outside") == {"precious": b"mine\n"}


async def test_the_folder_of_worktrees_can_be_a_symlink(
    common_dir: str, base: str, tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "worktrees").symlink_to(tmp_path / "real")
    before = everything(repository)
    path = tmp_path / "worktrees" / "a1-left"
    for _ in range(2):
        assert await worktree.make(common_dir, path, "forkjoin/a1-left", base, OWNER) == "forkjoin/a1-left"
    await worktree.remove(common_dir, path)
    await worktree.delete_branch(common_dir, "forkjoin/a1-left", base)
    assert everything(repository) == before
    assert os.listdir(tmp_path / "real") == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
async def test_anything_in_place_of_the_lock_file_is_removed(repository: Path, tmp_path: Path, kind: str) -> None:
    lock = repository / ".git" / "forkjoin.lock"
    match kind:
        case "link":
            lock.symlink_to(tmp_path / "made")
        case "pipe":
            os.mkfifo(lock)
        case _:
            lock.mkdir()
    await make_fork(repository)
    assert not (tmp_path / "made").exists()
    assert lock.is_file()


async def test_a_lock_held_too_long_is_named(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worktree_list_lock, "_GIVE_UP_S", 0.1)
    async with lock_worktree_list(str(repository / ".git")):
        with pytest.raises(TimeoutError, match=r"forkjoin\.lock has been locked by another process"):
            await worktree.make(str(repository / ".git"), tmp_path / "work", "work", "HEAD", "owner")
    assert await worktree.make(str(repository / ".git"), tmp_path / "work", "work", "HEAD", "owner") == "work"
