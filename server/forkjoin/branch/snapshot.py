"""A worktree as it is now, uncommitted work too, as a commit that is made aside: nothing of its repository changes.

Objects go to a folder of ours, that reads those of the repository (`alternates`), and files are staged in a copy of the
index. The commit is made of nothing but what is there: as long as that is the same, so is the commit.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path

from anyio import to_thread

from forkjoin.branch import git
from forkjoin.branch.place import find_place, is_folder
from forkjoin.branch.stage import read_status, stage
from forkjoin.error import GitError

_NOBODY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "forkjoin", "EMAIL": "forkjoin@localhost", "DATE": "@0 +0000"}.items()
}


@contextlib.contextmanager
def objects_aside(common_dir: str) -> Generator[dict[str, str]]:
    """What lets git write its objects elsewhere, as long as this is open."""
    own = f"{common_dir}/objects".replace("\\", "\\\\").replace('"', '\\"')
    with tempfile.TemporaryDirectory(prefix="forkjoin-objects-") as folder:
        yield {"GIT_OBJECT_DIRECTORY": folder, "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{own}"'}


async def snapshot(common_dir: str, worktree: Path, aside: Mapping[str, str]) -> str | None:
    """The commit of what is in a worktree; none where it is gone, or in no state to be read."""
    place = await find_place(common_dir, worktree)
    if place is None or not await to_thread.run_sync(is_folder, worktree):
        return None
    with contextlib.suppress(GitError), tempfile.TemporaryDirectory(prefix="forkjoin-index-") as folder:
        status = await read_status(place)
        if not status.loose or status.head is None:
            return status.head
        index = Path(folder, "index")
        with contextlib.suppress(FileNotFoundError):
            await to_thread.run_sync(shutil.copy2, place.folder / "index", index)
        elsewhere = {**aside, "GIT_INDEX_FILE": str(index)}
        tree = await stage(place, status, [], elsewhere)
        made = ("commit-tree", "-p", status.head, "-m", "as it is now", tree)
        return await place.git(*git.UNSYNCED, *made, extra={**aside, **_NOBODY})
    return None
