"""A merge into a checkout with files of another user, which may not be replaced."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import contents, run_bound
from support.harness import git
from support.merges import check_sound, record_merge_job

_MERGE = """
import sys
sys.path[:0] = {path!r}
import anyio
from forkjoin.core.paths import find_home
from support.merges import run_job_as_next_daemon
print(anyio.run(run_job_as_next_daemon, find_home(), {number}).error)
"""


@pytest.fixture
def foreign_git_folder(repository: Path) -> Iterator[Path]:
    """Yield the git folder of a checkout, which a test may give to another user."""
    folder = repository / ".git"
    git(repository, "config", "--global", "safe.directory", "*")
    yield folder
    for file in (folder, folder / "index"):
        os.chown(file, 0, 0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("mode", "path"), [(0o1777, "index"), (0o755, "forkjoin-lock-")])
async def test_a_merge_that_would_replace_files_of_another_user_is_refused(
    repository: Path, home: Home, foreign_git_folder: Path, mode: int, path: str
) -> None:
    number = await record_merge_job(home, repository, {"shared.txt": "2\n"}, None)
    before, tip = contents(repository), git(repository, "rev-parse", "main")
    for file in (foreign_git_folder, foreign_git_folder / "index"):
        os.chown(file, 65534, 65534)
    foreign_git_folder.chmod(mode)
    sys_path = [str(Path(__file__).parent.parent)]
    output = run_bound(_MERGE.format(path=sys_path, number=number))
    assert output.startswith(f"You may not use {foreign_git_folder}/{path}")
    assert "Nothing was merged into main" in output
    assert (contents(repository), git(repository, "rev-parse", "main")) == (before, tip)
    check_sound(repository)
