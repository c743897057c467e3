"""Scratch worktrees: on no branch, given one commit's files after the other, with what git ignores kept in between.

Anything may have been run there. So git is told of one outright, and what was left in it that is no cache of its own,
such as a merge or another configuration, is taken away; where that can't be, it is made anew.
"""

import contextlib
from pathlib import Path

from anyio import to_thread

from forkjoin.branch import git
from forkjoin.branch.place import Place, find_place, git_folder, is_linked, remove_pipes, worktree_of
from forkjoin.branch.worktree import mark, read_mark, register
from forkjoin.error import GitError
from forkjoin.regular import read_line

_SCRATCH = "scratch"
#: With these in its git folder git would leave out some of a commit's files, or be at work elsewhere.
_OWN = ("config.worktree", "info/sparse-checkout")


async def make_scratch(common_dir: str, path: Path, commit: str, run: str) -> None:
    """See that a worktree at `path`, on no branch, has exactly the files of `commit`; ignored ones (caches) stay.

    One that has been made ready for this run is left as it is, whatever has happened in it since.
    """
    ready_for = await to_thread.run_sync(_ready_for, common_dir, path)
    if ready_for == run:
        return
    if ready_for is None or not await _switch(common_dir, path, commit):
        await register(common_dir, path, commit, "--detach")
        await (await _place(common_dir, path)).git("reset", "--quiet", "--hard")
    await to_thread.run_sync(mark, common_dir, path, _SCRATCH, run)


async def _place(common_dir: str, path: Path) -> Place:
    """A scratch worktree as git is to be told of it: what has run there may have configured it to be the user's."""
    place = await find_place(common_dir, path)
    if place is None:
        raise FileNotFoundError(f"{path} is no worktree of {common_dir} any more")
    return place


def _ready_for(common_dir: str, path: Path) -> str | None:
    """The run that the scratch worktree at `path` was made ready for, '' where it is midway; none for no such."""
    folder = git_folder(common_dir, path)
    said = read_mark(folder) if folder else None
    return said[1] if said and said[0] == _SCRATCH else None


async def _switch(common_dir: str, path: Path, commit: str) -> bool:
    """Give a scratch worktree other files; false where what was run in it left it in no state for that."""
    if not await to_thread.run_sync(_ready_to_switch, common_dir, path):
        return False
    here = (await _place(common_dir, path)).here
    try:
        await git.git(path, "clean", "--quiet", "-ffd", extra=here)
        await git.git(path, "checkout", "--quiet", "--force", "--detach", commit, extra=here)
    except GitError:
        return False
    return True


def _ready_to_switch(common_dir: str, path: Path) -> bool:
    folder = git_folder(common_dir, path)
    if folder is None or not is_linked(path, folder) or any((folder / name).exists() for name in _OWN):
        return False
    mark(common_dir, path, _SCRATCH, "")
    remove_pipes(path)
    return True


async def detach(common_dir: str, path: Path, commit: str) -> None:
    """See that a scratch worktree holds no branch that was switched to in it: else nobody could elsewhere."""
    place = await find_place(common_dir, path)
    if place and (await to_thread.run_sync(read_line, place.folder / "HEAD") or "").startswith("ref: "):
        with contextlib.suppress(GitError):  # what was run there has locked it: the next switch mends that
            await place.git("update-ref", "--no-deref", "HEAD", commit)


def find_scratch(path: Path) -> str | None:
    """The repository of the scratch worktree at `path`, by what is there; none where it is no such."""
    folder = Path((read_line(path / ".git") or "").removeprefix("gitdir: "))
    said = read_mark(folder)
    is_one = said and said[0] == _SCRATCH and worktree_of(folder) == path.resolve()
    return str(folder.parent.parent) if is_one else None
