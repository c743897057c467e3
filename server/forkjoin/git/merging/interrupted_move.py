"""Rolling back an interrupted move of a checkout.

After an interruption, some of the checkout's files are old, some are new, and one may be incomplete. The move is not
continued, but rolled back and then begun again. So a commit, switch or edit that the user made in between is handled
like any other.
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
    """Restore the files and index entries that an interrupted move has changed.

    The move has changed a file if the file is missing, or has the new content or a beginning of it. All other files
    belong to the user and stay. The changed files are deleted first, to make room for the old files on a full disk.

    After any of the errors, this function can safely be called again.

    Args:
        checkout: The locked checkout.
        old: The commit that the move started from.
        new: The commit that the move led to.

    Raises:
        GitError: The rollback failed.
        OSError: The rollback failed.
        TargetMovedError: Somebody else has removed the lock on the index.
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
    """Return the copied index's entries, and the paths that must not be touched.

    The entries are by path. An entry is a mode and an object id. Paths that a rollback must not touch are those in
    conflict, and those that the user has excluded from the worktree (skip-worktree).
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

    It was moved if it has all new entries of the move.

    Return whether the index was moved. New entries that are also in HEAD stay, because somebody has committed them.

    Args:
        checkout: The locked checkout.
        changes: The changes that the move makes.
        entries: The entries of the copied index.
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
    """Return the paths whose files the move has deleted or written.

    A file may be written only in part.

    Args:
        checkout: The locked checkout.
        new: The commit that the move led to.
        changes: The changes that the move makes.
        entries: The paths in the copied index.
    """
    listing = await checkout.git("diff-files", "--no-renames", "--name-only", "--ignore-submodules=all", "-z")
    differ = set(split_names(listing))
    moved: list[str] = []
    for change in changes:
        if change.path in entries and change.path not in differ:
            continue  # the file is as the restored index has it, so there is nothing to roll back
        file = await to_thread.run_sync(_read_content, checkout.path, change.path)
        if file is None or (change.kind != "D" and await _was_written(checkout, f"{new}:{change.path}", *file)):
            moved.append(change.path)
    return moved


def _read_content(top: str, path: str) -> tuple[bytes, bool] | None:
    """Return a file's bytes and False, or a symlink's target and True.

    Return `None` if the path leads to neither.
    """
    if not is_file_on_disk(top, path):
        return None
    where = Path(top, path)
    return (os.fsencode(where.readlink()), True) if where.is_symlink() else (where.read_bytes(), False)


async def _was_written(checkout: LockedCheckout, revision: str, data: bytes, is_symlink: bool) -> bool:
    """Return whether `data` is what git writes when it checks a file out.

    For a regular file, `data` may also be the beginning of that.

    Args:
        checkout: The locked checkout.
        revision: The file, as <commit>:<path>.
        data: The bytes of the file on disk, or the target of the symlink.
        is_symlink: Whether there is a symlink on disk. git never writes a part of a symlink.
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
            except OSError:  # the folder is not empty, so that the folders above it aren't either
                break
