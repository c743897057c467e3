"""In a repository shared by several users, forkjoin harms no other user's lock or checkout."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core import file_lock
from forkjoin.git.worktrees.worktree_list_lock import lock_worktree_list
from support.branches import commit, make_fork, run_bound, write
from support.harness import git

MODES = [
    *((None, 0o600), ("umask", 0o600), ("false", 0o600), ("group", 0o660), ("true", 0o660), ("all", 0o666)),
    *(("world", 0o666), ("0660", 0o660), ("0640", 0o600), ("0664", 0o660)),
]


@pytest.mark.parametrize(("sharing", "mode"), MODES)
async def test_all_users_who_may_write_to_the_repository_can_take_the_lock(
    repository: Path, sharing: str | None, mode: int
) -> None:
    if sharing:
        git(repository, "config", "core.sharedRepository", sharing)
    file = repository / ".git" / "forkjoin.lock"
    file.touch(0o600)  # as it was made before it was shared
    async with lock_worktree_list(str(repository / ".git")):
        assert file.stat().st_mode & 0o777 == mode


@pytest.fixture
def reachable() -> Iterator[Path]:
    """Return a folder that other users can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_can_take_the_lock_once_it_is_free(reachable: Path) -> None:
    held = file_lock.take(reachable / "forkjoin.lock", 0o666)
    assert held
    os.close(held)
    script = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    arguments = ["/usr/bin/env", "python3", "-I", "-c", script, str(reachable / "forkjoin.lock")]
    subprocess.run(arguments, user=65534, group=65534, extra_groups=[], cwd="/", check=True, env={"PATH": os.defpath})


def test_a_symlink_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "forkjoin.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        file_lock.take(tmp_path / "forkjoin.lock")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("umask", [0o022, 0o077])
async def test_another_user_can_expire_reflogs_of_agents_worktrees(reachable: Path, user: Path, umask: int) -> None:
    repository = reachable / "repository"
    repository.mkdir()
    os.chown(repository, 0, 65534)
    repository.chmod(0o2775)
    git(repository, "init", "-q", "--shared=group")
    commit(repository, {"a": "x"})
    before = os.umask(umask)
    try:
        fork = await make_fork(repository)
    finally:
        os.umask(before)
    assert fork.folder.stat().st_mode & 0o077 == (0o070 if umask == 0o077 else 0o075)
    assert (fork.folder / "gitdir").stat().st_mode & 0o060 == 0o060
    named = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    script = ["git", "-C", str(repository), "reflog", "expire", "--expire=now", "--all"]
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", **named}
    subprocess.run(script, user=65534, group=65534, extra_groups=[], cwd="/", check=True, env=env)


# -- checkouts of others, in folders that are closed to us

_FIND = """
import anyio
from forkjoin.git.worktrees.checkout import find_checkout
from forkjoin.core.error import CallerError
try:
    print(anyio.run(find_checkout, {common_dir!r}, "refs/heads/side"))
except CallerError as error:
    print(error)
"""


@pytest.fixture
def others(repository: Path) -> Path:
    """Make another user's worktree, on the branch side."""
    work = repository.parent / "others" / "theirs"
    git(repository, "worktree", "add", "-q", "-b", "side", str(work))
    return work


def _find_with_closed(repository: Path, closed: Path) -> str:
    before = closed.stat().st_mode
    closed.chmod(0)
    try:
        return run_bound(_FIND.format(common_dir=str(repository / ".git")))
    finally:
        closed.chmod(before)


@pytest.mark.parametrize("closed", ["others", "others/theirs"])
def test_a_branch_in_a_closed_worktree_is_refused(repository: Path, others: Path, closed: str) -> None:
    found = _find_with_closed(repository, repository.parent / closed)
    assert found.startswith(f"side is checked out in {others}, where its files can't be reached. Make them reachable")


def test_a_branch_that_is_rebased_in_a_closed_worktree_is_refused(repository: Path, others: Path) -> None:
    git(others, "switch", "-q", "--detach")
    write(repository, ".git/worktrees/theirs/rebase-merge/head-name", "refs/heads/side\n")
    assert "side is being rebased in" in _find_with_closed(repository, others.parent)


@pytest.mark.parametrize("name", ["", "HEAD", "gitdir", "rebase-merge"])
def test_a_worktree_whose_git_folder_is_closed_may_have_the_branch(repository: Path, others: Path, name: str) -> None:
    write(repository, ".git/worktrees/theirs/rebase-merge/head-name", "refs/heads/other\n")
    closed = repository / ".git" / "worktrees" / "theirs" / name
    found = _find_with_closed(repository, closed)
    assert re.match(f"{closed}.* can't be read, so a worktree may have side checked out", found)
    assert others.exists()


def test_a_worktree_that_was_deleted_from_an_open_folder_is_gone(repository: Path, others: Path) -> None:
    shutil.rmtree(others.parent)
    assert run_bound(_FIND.format(common_dir=str(repository / ".git"))) == "None\n"
