"""A landing into the checkout of a repository in which another user's files may not be replaced."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import contents, run_bound
from support.harness import git
from support.merges import check_sound, record_landing

_LAND = """
import sys
sys.path[:0] = {path!r}
import anyio
from forkjoin.core.paths import find_home
from support.merges import carry_out_here
print(anyio.run(carry_out_here, find_home(), {number}).error)
"""


@pytest.fixture
def anothers(repository: Path) -> Iterator[Path]:
    """The git folder of a checkout, whose folder and index are another user's."""
    folder = repository / ".git"
    git(repository, "config", "--global", "safe.directory", "*")
    yield folder
    for file in (folder, folder / "index"):
        os.chown(file, 0, 0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("mode", "said"), [(0o1777, "index"), (0o755, "forkjoin-lock-")])
async def test_files_of_another_user_are_named_and_nothing_is_merged(
    repository: Path, home: Home, anothers: Path, mode: int, said: str
) -> None:
    number = await record_landing(home, repository, {"shared.txt": "2\n"}, None)
    before, tip = contents(repository), git(repository, "rev-parse", "main")
    for file in (anothers, anothers / "index"):
        os.chown(file, 65534, 65534)
    anothers.chmod(mode)
    path = [str(Path(__file__).parent.parent)]
    told = run_bound(_LAND.format(path=path, number=number))
    assert told.startswith(f"You may not use {anothers}/{said}")
    assert "Nothing was merged into main" in told
    assert (contents(repository), git(repository, "rev-parse", "main")) == (before, tip)
    check_sound(repository)
