"""A checkout that was left midway: some of its files are one commit's, some the other's, and one may be torn."""

from collections.abc import Sequence

from anyio import to_thread

from forkjoin.branch import git
from forkjoin.branch.change import Change, changes_between, is_file
from forkjoin.branch.checkout import Held
from forkjoin.error import CallerError


async def move_on(held: Held, here: str, there: str, *, careful: bool) -> None:
    """Give a checkout all that `there` changes from `here`, however much of it is there already; its index as well.

    With `careful`, what is neither commit's is left alone: somebody may have written it.

    Raises:
        CallerError: Something is neither commit's; nothing was touched.
        GitError: git would not.
    """
    await held.copy_index()
    changes = await changes_between(held.path, here, there)
    await _note_what_is_there(held, [change.path for change in changes if not change.is_submodule])
    if careful and (strange := await _find_strange(held, here, there)):
        names = ", ".join(map(git.readable, strange))
        raise CallerError(f"A merge into {held.path} was cut off; these files are as neither side has them: {names}.")
    now = await held.git("write-tree")
    await held.git("read-tree", "-m", "-u", now, await _make_wanted(held, changes))
    await held.put_index()


async def _note_what_is_there(held: Held, paths: Sequence[str]) -> None:
    """Put into the copy of the index what these paths are now."""
    there = await to_thread.run_sync(lambda: {path for path in paths if is_file(held.path, path)})
    gone = git.as_input(path for path in paths if path not in there)
    await held.git("update-index", "--force-remove", "-z", "--stdin", stdin=gone)
    found = git.as_input(path for path in paths if path in there)
    await held.git("-c", "core.safecrlf=false", "update-index", "--add", "--replace", "-z", "--stdin", stdin=found)


async def _find_strange(held: Held, here: str, there: str) -> list[str]:
    """The changed paths that are there as neither commit has them."""
    neither: list[set[str]] = []
    for commit in (here, there):
        form = ("--cached", "--no-renames", "--name-only", "--diff-filter=d", "-z")
        neither.append(set(git.names_in(await held.git("diff-index", *form, commit))))
    changed = {change.path for change in await changes_between(held.path, here, there)}
    return sorted(neither[0] & neither[1] & changed)


async def _make_wanted(held: Held, changes: Sequence[Change]) -> str:
    """The tree of what is staged, with the new side of these changes."""
    await held.copy_again()
    lines = git.as_input(f"{mode} {name}\t{path}" for path, (mode, name) in ((one.path, one.new) for one in changes))
    await held.git("update-index", "--add", "--replace", "-z", "--index-info", stdin=lines, second=True)
    return await held.git("write-tree", second=True)
