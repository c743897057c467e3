"""What of a user's own is in the way of a move, in the checkout that is to be moved.

git finds most of it, in a dry run. What git would overwrite or put back without a word, ignored files and deletions,
we look for ourselves.
"""

import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError
from forkjoin.git import git
from forkjoin.git.changed_paths import changes_between, find_path_in_the_way, parent_folders
from forkjoin.git.file_names import join_names, printable, split_names
from forkjoin.git.worktrees.checkout import LockedCheckout
from forkjoin.git.worktrees.falsely_changed_files import find_as_checked_out

#: How git names a path for which it refuses a move; at times the first one alone.
_NAMED = re.compile(r"'(.+?)' (?:not uptodate|would|overlaps|since)", re.DOTALL)
#: So many paths go into one command line.
_AT_ONCE = 500


async def find_files_in_the_way(held: LockedCheckout, old: str, new: str) -> tuple[LockedCheckout, list[str]]:
    """Return the checkout to move, and the user's files that block the move.

    A file that git calls modified, though it is just as git has written it, is not in the way.
    """
    obstacles = await _find_obstacles(held, old, new)
    if not obstacles or not (untouched := await _find_untouched(held, old, new)):
        return held, obstacles
    held = await _settle(held, old, untouched)
    others = await _find_obstacles(held, old, new)
    return held, [name for name in others if name not in map(printable, untouched)]


async def _find_untouched(held: LockedCheckout, old: str, new: str) -> list[str]:
    """Return the changed files that are still exactly as git wrote them."""
    wanted = {change.path: change.old for change in await changes_between(held.path, old, new) if change.kind != "A"}
    differ = split_names(await held.git("diff-files", "--name-only", "--ignore-submodules=all", "-z"))
    staged = await _entries(held, [path for path in differ if path in wanted])
    paths = [path for path, entry in staged.items() if entry == wanted[path]]
    return sorted(await find_as_checked_out(Path(held.path), paths, held.git))


async def _settle(held: LockedCheckout, old: str, untouched: list[str]) -> LockedCheckout:
    """Normalize untouched files in the copied index and the old tree.

    git then takes them for unchanged. It still looks whether they are before it replaces them.
    """
    await held.git("update-index", "-z", "--stdin", stdin=join_names(untouched))
    lines = [f"{mode} {name}\t{path}" for path, (mode, name) in (await _entries(held, untouched)).items()]
    with tempfile.TemporaryDirectory(prefix="forkjoin-") as aside:
        extra = {"GIT_INDEX_FILE": f"{aside}/index"}
        await git.output(held.path, "read-tree", old, extra=extra)
        await git.output(held.path, "update-index", "-z", "--index-info", stdin=join_names(lines), extra=extra)
        return replace(held, tree=await git.output(held.path, "write-tree", extra=extra))


async def _entries(held: LockedCheckout, paths: list[str]) -> dict[str, tuple[str, str]]:
    """Return the mode and object that the copy of the index has of each of these paths; nothing of one in conflict."""
    rows = [row.partition("\t")[::2] for row in await _list(held, "--stage", paths)]
    found = [(path, entry.split(" ")) for entry, path in rows]
    return {path: (mode, name) for path, (mode, name, stage) in found if stage == "0"}


async def _find_obstacles(held: LockedCheckout, old: str, new: str) -> list[str]:
    """The user's files that are in the way from one commit to another; what git says, where it names none."""
    changes = await changes_between(held.path, old, new)
    found = await _find_untracked(held, [change.path for change in changes if change.kind == "A"])
    found += await _find_deleted(held, [change.path for change in changes if change.kind == "M"])
    try:
        await held.git("read-tree", "-m", "-u", "-n", held.tree or old, new)
    except GitError as error:
        found += await _find_dirty(held, [change.path for change in changes])
        found = found or _NAMED.findall(error.stderr) or [error.last_line]
    return sorted({printable(path) for path in found})


async def _find_untracked(held: LockedCheckout, added: list[str]) -> list[str]:
    """Untracked files where these would be added. git itself would overwrite those that are ignored."""
    there = await to_thread.run_sync(
        lambda: {found for path in added if (found := find_path_in_the_way(held.path, path))}
    )
    return await _list(held, "--others", sorted(there))


async def _find_deleted(held: LockedCheckout, changed: list[str]) -> list[str]:
    """Files that the user has deleted, of those that would be changed: git itself would put them back."""
    gone = await to_thread.run_sync(lambda: [path for path in changed if not os.path.lexists(Path(held.path, path))])
    return await _list(held, "--deleted", gone)


async def _list(held: LockedCheckout, which: str, paths: list[str]) -> list[str]:
    found: list[str] = []
    for n in range(0, len(paths), _AT_ONCE):
        only = [f":(top,literal){path}" for path in paths[n : n + _AT_ONCE]]
        found += split_names(await held.git("ls-files", "-z", which, "--", *only))
    return found


async def _find_dirty(held: LockedCheckout, changes: Iterable[str]) -> list[str]:
    """What the user has changed among, above or below these paths."""
    changed = set(changes)
    folders = {folder for path in changed for folder in parent_folders(path)}
    listing = await held.git(
        "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=dirty"
    )
    dirty = [entry[3:] for entry in split_names(listing)]
    return [path for path in dirty if path in folders or not changed.isdisjoint([path, *parent_folders(path)])]
