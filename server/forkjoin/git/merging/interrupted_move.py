"""A checkout that was left midway: some of its files are one commit's, some the other's, and one may be torn.

A move is never gone on with from there, but taken back, and then made anew: only so is a person's own commit, switch or
edit that came in between met as any other.
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


async def put_back(held: LockedCheckout, old: str, new: str) -> None:
    """Take back what was moved of a checkout from `old` to `new`, whatever part that was; its index as well.

    What is just as `new` has it, or the beginning of that, or missing, was moved; all else is somebody's, and stays.
    Where the disk is full, removing what was moved makes the room for what was there.

    Raises:
        GitError: It could not be. Doing it again is harmless, as it is in every case.
        OSError: The same.
        TargetMovedError: Somebody has taken the lock away.
    """
    await held.copy_index()
    changes = await changes_between(held.path, old, new)
    before, kept = await _entries(held)
    if index_was_moved := await _put_index_back(held, changes, before):
        before, kept = await _entries(held)
    files = [one for one in changes if not one.is_submodule and one.path not in kept]
    moved = await _find_moved(held, new, files, before)
    await to_thread.run_sync(_take_away, held.path, moved)
    wanted = [path for path in moved if path in before]
    free = await to_thread.run_sync(lambda: [path for path in wanted if find_path_in_the_way(held.path, path) is None])
    await held.git("checkout-index", "-q", "-u", "-z", "--stdin", stdin=join_names(free))
    if index_was_moved:
        await held.put_index()


async def _entries(held: LockedCheckout) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """What the copy of the index has; and of that, what is in conflict or no file here by its user's choice."""
    found: dict[str, tuple[str, str]] = {}
    kept: set[str] = set()
    for row in split_names(await held.git("ls-files", "--stage", "-t", "-z")):
        entry, _, path = row.partition("\t")
        tag, mode, name, _ = entry.split(" ")
        found[path] = (mode, name)
        if tag != "H":
            kept.add(path)
    return found, kept


async def _put_index_back(
    held: LockedCheckout, changes: Sequence[PathChange], before: Mapping[str, tuple[str, str]]
) -> bool:
    """Put the old side of these changes into the copy of the index, if the move had come so far.

    Not where HEAD has the new side: then somebody has committed it.
    """
    if not changes or any(before.get(one.path) != (one.new if one.kind != "D" else None) for one in changes):
        return False
    form = ("--cached", "--no-renames", "--name-only", "-z")
    has_commit = await resolve_commit(held.folder, "HEAD") is not None
    staged = set(split_names(await held.git("diff-index", *form, "HEAD", "--"))) if has_commit else set[str]()
    sides = [(one.path, *one.old) for one in changes if not has_commit or one.path in staged]
    lines = join_names(f"{mode} {name}\t{path}" for path, mode, name in sides)
    await held.git("update-index", "--add", "--replace", "-z", "--index-info", stdin=lines)
    return True


async def _find_moved(
    held: LockedCheckout, new: str, changes: Sequence[PathChange], before: Container[str]
) -> list[str]:
    """The paths at which there is what the move has left, or nothing, or what is in the way of a file that was."""
    listing = await held.git("diff-files", "--no-renames", "--name-only", "--ignore-submodules=all", "-z")
    differ = set(split_names(listing))
    moved: list[str] = []
    for one in changes:
        if one.path in before and one.path not in differ:
            continue
        there = await to_thread.run_sync(_read, held.path, one.path)
        if there is None or (one.kind != "D" and await _begins(held, f"{new}:{one.path}", *there)):
            moved.append(one.path)
    return moved


def _read(top: str, path: str) -> tuple[bytes, bool] | None:
    """The bytes of a file, or where a symlink leads, and which of them it is; none where there is neither."""
    if not is_file_on_disk(top, path):
        return None
    where = Path(top, path)
    return (os.fsencode(where.readlink()), True) if where.is_symlink() else (where.read_bytes(), False)


async def _begins(held: LockedCheckout, revision: str, data: bytes, is_symlink: bool) -> bool:
    """Whether this is what the move writes there, or what it had written when it was ended."""
    _, whole, _ = await git.run(held.path, "cat-file", "--filters", revision, extra=held.here, ok_codes=(0,))
    return whole == data if is_symlink else whole.startswith(data)


def _take_away(top: str, paths: Iterable[str]) -> None:
    """Remove these files, and the folders that are empty then."""
    for path in (path for path in paths if is_file_on_disk(top, path)):
        Path(top, path).unlink()
        for folder in parent_folders(path):
            try:
                Path(top, folder).rmdir()
            except OSError:  # there is something else in it
                break
