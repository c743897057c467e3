"""Rolling back an interrupted move of a checkout: some of its files are old, some new, and one may be incomplete.

An interrupted move is never continued. It is rolled back and then begun again, so that a commit, switch or edit that
the user made in between is handled like any other.
"""

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.git import git
from forkjoin.git.changed_paths import (
    PathChange,
    changes_between,
    find_path_in_the_way,
    is_file_on_disk,
    parent_folders,
)
from forkjoin.git.file_names import join_names, split_names
from forkjoin.git.refs import resolve_commit
from forkjoin.git.worktrees.checkout import LockedCheckout


async def roll_back_files(checkout: LockedCheckout, old: str, new: str) -> None:
    """Restore the files and index entries of an interrupted move to `new`.

    `old` is the commit that the move started from.

    A file counts as moved if it is missing, or has the new content or the beginning of that. All other files belong to
    the user and stay. Moved files are deleted first, which makes room for the old ones on a full disk.

    Raises:
        GitError: The rollback failed. Calling this again is safe, here and for the other errors.
        OSError: The rollback failed.
        TargetMovedError: The index lock was removed by somebody else.
    """
    await checkout.copy_index()
    changes = await changes_between(checkout.path, old, new)
    entries, protected = await _read_index(checkout)
    if index_was_moved := await _roll_back_index(checkout, changes, entries):
        entries, protected = await _read_index(checkout)
    files = [change for change in changes if not change.is_submodule and change.path not in protected]
    moved = await _find_moved(checkout, new, files, entries)
    await to_thread.run_sync(_delete, checkout.path, moved)
    wanted = [path for path in moved if path in entries]
    free = await to_thread.run_sync(
        lambda: [path for path in wanted if find_path_in_the_way(checkout.path, path) is None]
    )
    await checkout.git("checkout-index", "-q", "-u", "-z", "--stdin", stdin=join_names(free))
    if index_was_moved:
        await checkout.put_index()


async def _read_index(checkout: LockedCheckout) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """Return the copied index's entries, and the paths that a rollback must not touch.

    An entry is the mode and object of a path.

    These are the paths in conflict, and the paths that the user excluded from the worktree (skip-worktree).
    """
    entries: dict[str, tuple[str, str]] = {}
    protected: set[str] = set()
    for row in split_names(await checkout.git("ls-files", "--stage", "-t", "-z")):
        entry, _, path = row.partition("\t")
        tag, mode, name, _ = entry.split(" ")
        entries[path] = (mode, name)
        if tag != "H":
            protected.add(path)
    return entries, protected


async def _roll_back_index(
    checkout: LockedCheckout, changes: Sequence[PathChange], entries: Mapping[str, tuple[str, str]]
) -> bool:
    """Restore the old entries in the copied index, if the index was moved.

    Return whether it was.

    Entries that HEAD has too stay: somebody has committed them.
    """
    if not changes or any(entries.get(one.path) != (one.new if one.kind != "D" else None) for one in changes):
        return False
    options = ("--cached", "--no-renames", "--name-only", "-z")
    has_commit = await resolve_commit(checkout.folder, "HEAD") is not None
    staged = set(split_names(await checkout.git("diff-index", *options, "HEAD", "--"))) if has_commit else set[str]()
    sides = [(one.path, *one.old) for one in changes if not has_commit or one.path in staged]
    lines = join_names(f"{mode} {name}\t{path}" for path, mode, name in sides)
    await checkout.git("update-index", "--add", "--replace", "-z", "--index-info", stdin=lines)
    return True


async def _find_moved(
    checkout: LockedCheckout, new: str, changes: Sequence[PathChange], entries: Container[str]
) -> list[str]:
    """Return the paths without a file, or with a file that the move wrote.

    The file may be written only in part.
    """
    listing = await checkout.git("diff-files", "--no-renames", "--name-only", "--ignore-submodules=all", "-z")
    differ = set(split_names(listing))
    moved: list[str] = []
    for change in changes:
        if change.path in entries and change.path not in differ:
            continue
        file = await to_thread.run_sync(_read_content, checkout.path, change.path)
        if file is None or (change.kind != "D" and await _was_written(checkout, f"{new}:{change.path}", *file)):
            moved.append(change.path)
    return moved


def _read_content(top: str, path: str) -> tuple[bytes, bool] | None:
    """Return a file's bytes and False, or a symlink's target and True.

    Return `None` if there is neither.
    """
    if not is_file_on_disk(top, path):
        return None
    where = Path(top, path)
    return (os.fsencode(where.readlink()), True) if where.is_symlink() else (where.read_bytes(), False)


async def _was_written(checkout: LockedCheckout, revision: str, data: bytes, is_symlink: bool) -> bool:
    """Return whether git checks out a revision's file as `data`.

    For a regular file, `data` may also be the beginning of the file.
    """
    variables = checkout.variables
    _, whole, _ = await git.run(checkout.path, "cat-file", "--filters", revision, extra=variables, ok_codes=(0,))
    return whole == data if is_symlink else whole.startswith(data)


def _delete(top: str, paths: Iterable[str]) -> None:
    """Delete these files, and the folders that become empty."""
    for path in (path for path in paths if is_file_on_disk(top, path)):
        Path(top, path).unlink()
        for folder in parent_folders(path):
            try:
                Path(top, folder).rmdir()
            except OSError:  # it is not empty
                break
