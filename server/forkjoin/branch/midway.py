"""A checkout that was left midway: some of its files are one commit's, some the other's, and one may be torn.

A move is never gone on with from there, but taken back, and then made anew: only so is a person's own commit, switch or
edit that came in between met as any other.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.branch import git
from forkjoin.branch.change import Change, above, changes_between, is_file, standing
from forkjoin.branch.checkout import Held

#: A file's mode and object; none where there is none.
Entry = tuple[str, str] | None


async def put_back(held: Held, old: str, new: str) -> None:
    """Take back what was moved of a checkout from `old` to `new`, whatever part that was; its index as well.

    What is just as `new` has it, or the beginning of that, or missing, was moved; all else is somebody's, and stays.

    Raises:
        GitError: It could not be. Doing it again is harmless, as it is in every case.
        OSError: The same.
        TargetMovedError: Somebody has taken the lock away.
    """
    await held.copy_index()
    changes = await changes_between(held.path, old, new)
    index_was_moved = await _put_index_back(held, changes)
    before, kept = await _entries(held)
    files = [one for one in changes if not one.is_submodule and one.path not in kept]
    moved = await _find_moved(held, new, files, before)
    await to_thread.run_sync(_take_away, held.path, moved)
    wanted = [path for path in moved if before.get(path)]
    free = await to_thread.run_sync(lambda: [path for path in wanted if standing(held.path, path) is None])
    await held.git("checkout-index", "-q", "-u", "-z", "--stdin", stdin=git.as_input(free))
    if index_was_moved:
        await held.put_index()


def _entry(side: tuple[str, str]) -> Entry:
    return side if side[0].strip("0") else None


async def _entries(held: Held, *, second: bool = False) -> tuple[dict[str, Entry], set[str]]:
    """What the copy of the index has; and of that, what is in conflict or no file here by its user's choice."""
    found: dict[str, Entry] = {}
    kept: set[str] = set()
    for row in git.names_in(await held.git("ls-files", "--stage", "-t", "-z", second=second)):
        entry, _, path = row.partition("\t")
        tag, mode, name, _ = entry.split(" ")
        found[path] = (mode, name)
        if tag != "H":
            kept.add(path)
    return found, kept


async def _put_index_back(held: Held, changes: Sequence[Change]) -> bool:
    """Put the old side of these changes into the copy of the index, if the move had come so far.

    Not where HEAD has the new side: then somebody has committed it.
    """
    before, _ = await _entries(held)
    if not changes or any(before.get(one.path) != _entry(one.new) for one in changes):
        return False
    form = ("--cached", "--no-renames", "--name-only", "-z")
    has_commit = await git.resolve(held.path, "HEAD") is not None
    staged = git.names_in(await held.git("diff-index", *form, "HEAD", "--")) if has_commit else []
    sides = [(one.path, *one.old) for one in changes if not has_commit or one.path in set(staged)]
    lines = git.as_input(f"{mode} {name}\t{path}" for path, mode, name in sides)
    await held.git("update-index", "--add", "--replace", "-z", "--index-info", stdin=lines)
    return True


async def _find_moved(held: Held, new: str, changes: Sequence[Change], before: Mapping[str, Entry]) -> list[str]:
    """The paths at which there is what the move has left."""
    there = await _note_what_is_there(held, [one.path for one in changes])
    moved: list[str] = []
    for one in changes:
        now, wanted = there.get(one.path), _entry(one.new)
        if now == before.get(one.path):
            continue
        whole = now is None or (wanted is not None and now[1] == wanted[1])
        if whole or (wanted is not None and await _is_torn(held, one.path, new)):
            moved.append(one.path)
    return moved


async def _note_what_is_there(held: Held, paths: Sequence[str]) -> dict[str, Entry]:
    """What these paths are now, as git would add them."""
    await held.copy_again()
    there = await to_thread.run_sync(lambda: {path for path in paths if is_file(held.path, path)})
    gone = git.as_input(path for path in paths if path not in there)
    await held.git("update-index", "--force-remove", "-z", "--stdin", stdin=gone, second=True)
    found, plain = git.as_input(path for path in paths if path in there), ("-c", "core.safecrlf=false")
    await held.git(*plain, "update-index", "--add", "--replace", "-z", "--stdin", stdin=found, second=True)
    return (await _entries(held, second=True))[0]


async def _is_torn(held: Held, path: str, new: str) -> bool:
    """Whether a file is the beginning of what the move was writing there."""
    file = Path(held.path, path)
    if await to_thread.run_sync(file.is_symlink):
        return False
    _, whole, _ = await git.run(held.path, "cat-file", "--filters", f"{new}:{path}")
    return whole.startswith(await to_thread.run_sync(file.read_bytes))


def _take_away(top: str, paths: Iterable[str]) -> None:
    """Remove these files, and the folders that are empty then."""
    for path in (path for path in paths if is_file(top, path)):
        Path(top, path).unlink()
        for folder in above(path):
            try:
                Path(top, folder).rmdir()
            except OSError:  # there is something else in it
                break
