"""The user's files that block a move of a checkout from one commit to another.

git finds most of these files in a dry run. But it would silently overwrite ignored files and restore deleted files, so
this module looks for those itself.
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
from forkjoin.git.worktrees.falsely_changed_files import find_unmodified_files

#: A path in the message with which git refuses to update files. Some messages name only the first path.
_PATH_IN_ERROR = re.compile(r"'(.+?)' (?:not uptodate|would|overlaps|since)", re.DOTALL)
#: The number of paths in one command line, at most.
_BATCH = 500


async def find_files_in_the_way(checkout: LockedCheckout, old: str, new: str) -> tuple[LockedCheckout, list[str]]:
    """Return the checkout to use for a move, and the names of the files that block it.

    A file that git reports as modified, although it is exactly as git wrote it, doesn't block the move. For such files,
    the returned checkout has an adjusted copy of the index and an adjusted tree.

    Args:
        checkout: The locked checkout.
        old: The commit that is checked out.
        new: The commit to move to.
    """
    obstacles = await _find_obstacles(checkout, old, new)
    if not obstacles or not (untouched := await _find_untouched(checkout, old, new)):
        return checkout, obstacles
    checkout = await _normalize(checkout, old, untouched)
    others = await _find_obstacles(checkout, old, new)
    return checkout, [name for name in others if name not in map(printable, untouched)]


async def _find_untouched(checkout: LockedCheckout, old: str, new: str) -> list[str]:
    """Return the files that git falsely reports as changed.

    They are exactly as git wrote them.

    Only files that the move changes or deletes are considered.
    """
    wanted = {
        change.path: change.old for change in await changes_between(checkout.path, old, new) if change.kind != "A"
    }
    differ = split_names(await checkout.git("diff-files", "--name-only", "--ignore-submodules=all", "-z"))
    staged = await _entries(checkout, [path for path in differ if path in wanted])
    paths = [path for path, entry in staged.items() if entry == wanted[path]]
    return sorted(await find_unmodified_files(Path(checkout.path), paths, checkout.git))


async def _normalize(checkout: LockedCheckout, old: str, untouched: list[str]) -> LockedCheckout:
    """Make git take untouched files for unchanged.

    Record the files as they are on disk, in the copied index and in a tree that replaces the old commit's tree.

    Return the checkout with that tree. Before git replaces one of the files, it still checks that the file has not
    changed since.
    """
    await checkout.git("update-index", "-z", "--stdin", stdin=join_names(untouched))
    lines = [f"{mode} {name}\t{path}" for path, (mode, name) in (await _entries(checkout, untouched)).items()]
    with tempfile.TemporaryDirectory(prefix="forkjoin-") as temporary:
        extra = {"GIT_INDEX_FILE": f"{temporary}/index"}
        await git.output(checkout.path, "read-tree", old, extra=extra)
        await git.output(checkout.path, "update-index", "-z", "--index-info", stdin=join_names(lines), extra=extra)
        return replace(checkout, tree=await git.output(checkout.path, "write-tree", extra=extra))


async def _entries(checkout: LockedCheckout, paths: list[str]) -> dict[str, tuple[str, str]]:
    """Return the mode and object of these paths in the copied index.

    Paths in conflict are left out.
    """
    rows = [row.partition("\t")[::2] for row in await _list(checkout, "--stage", paths)]
    found = [(path, entry.split(" ")) for entry, path in rows]
    return {path: (mode, name) for path, (mode, name, stage) in found if stage == "0"}


async def _find_obstacles(checkout: LockedCheckout, old: str, new: str) -> list[str]:
    """Return the names of the files that block the move, for messages.

    If git refuses the move and names no file, return git's error message instead.
    """
    changes = await changes_between(checkout.path, old, new)
    found = await _find_untracked(checkout, [change.path for change in changes if change.kind == "A"])
    found += await _find_deleted(checkout, [change.path for change in changes if change.kind == "M"])
    try:
        await checkout.git("read-tree", "-m", "-u", "-n", checkout.tree or old, new)
    except GitError as error:
        found += await _find_dirty(checkout, [change.path for change in changes])
        found = found or _PATH_IN_ERROR.findall(error.stderr) or [error.last_line]
    return sorted({printable(path) for path in found})


async def _find_untracked(checkout: LockedCheckout, added: list[str]) -> list[str]:
    """Return the untracked files in the place of files that the move adds.

    git would overwrite those of them that are ignored.

    Args:
        checkout: The locked checkout.
        added: The paths that the move adds.
    """
    existing = await to_thread.run_sync(
        lambda: {found for path in added if (found := find_path_in_the_way(checkout.path, path))}
    )
    return await _list(checkout, "--others", sorted(existing))


async def _find_deleted(checkout: LockedCheckout, changed: list[str]) -> list[str]:
    """Return the files that the user has deleted and git would restore.

    Args:
        checkout: The locked checkout.
        changed: The paths that the move changes.
    """
    gone = await to_thread.run_sync(
        lambda: [path for path in changed if not os.path.lexists(Path(checkout.path, path))]
    )
    return await _list(checkout, "--deleted", gone)


async def _list(checkout: LockedCheckout, option: str, paths: list[str]) -> list[str]:
    found: list[str] = []
    for n in range(0, len(paths), _BATCH):
        only = [f":(top,literal){path}" for path in paths[n : n + _BATCH]]
        found += split_names(await checkout.git("ls-files", "-z", option, "--", *only))
    return found


async def _find_dirty(checkout: LockedCheckout, changes: Iterable[str]) -> list[str]:
    """Return the user's changed files that are related to a path in `changes`.

    A file is related to a path if it is at, above or below that path.
    """
    changed = set(changes)
    folders = {folder for path in changed for folder in parent_folders(path)}
    listing = await checkout.git(
        "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=dirty"
    )
    dirty = [entry[3:] for entry in split_names(listing)]
    return [path for path in dirty if path in folders or not changed.isdisjoint([path, *parent_folders(path)])]
