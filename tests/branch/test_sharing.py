"""In a repository that several users share, the lock of one user keeps no other out for good."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin import lock
from forkjoin.branch.worktree import registering
from harness import git

MODES = [
    *((None, 0o600), ("umask", 0o600), ("false", 0o600), ("group", 0o660), ("true", 0o660), ("all", 0o666)),
    *(("world", 0o666), ("0660", 0o660), ("0640", 0o600), ("0664", 0o660)),
]


@pytest.mark.parametrize(("sharing", "mode"), MODES)
async def test_the_lock_can_be_taken_by_all_who_may_write(repository: Path, sharing: str | None, mode: int) -> None:
    if sharing:
        git(repository, "config", "core.sharedRepository", sharing)
    file = repository / ".git" / "forkjoin.lock"
    file.touch(0o600)  # as it was made before it was shared
    async with registering(str(repository / ".git")):
        assert file.stat().st_mode & 0o777 == mode


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users reach, too."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_takes_the_lock_after_the_first(reachable: Path) -> None:
    held = lock.take(reachable / "forkjoin.lock", 0o666)
    assert held
    os.close(held)
    script = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    arguments = ["/usr/bin/env", "python3", "-I", "-c", script, str(reachable / "forkjoin.lock")]
    subprocess.run(arguments, user=65534, group=65534, extra_groups=[], cwd="/", check=True, env={"PATH": os.defpath})


def test_a_symlink_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "forkjoin.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        lock.take(tmp_path / "forkjoin.lock")
    assert not (tmp_path / "elsewhere").exists()
