"""Ignored paths, such as dependencies, that a worktree shares with the user's checkout as a symlink or a copy.

A pattern such as `node_modules/` doesn't match a symlink. So that the shared paths are not committed, they are listed
in an ignore file in the worktree's git folder, after a copy of the user's core.excludesFile. git reads the ignore file
as core.excludesFile, both when forkjoin commits uncommitted work and when programs in the worktree call git.
`info/exclude` isn't used, because it also applies to the user's checkout.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import read_regular
from forkjoin.git import git
from forkjoin.git.git_config import find_users_ignore_file
from forkjoin.git.worktrees.delete_path import delete_path
from forkjoin.git.worktrees.included_files import is_blocked
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree

#: The suffix of a copy's name until the copy is complete.
_INCOMPLETE = ".forkjoin-new"
#: The lines in the ignore file that separate the user's own rules from the shared paths.
_SEPARATOR = f"*{_INCOMPLETE}\n# shared with the checkout by forkjoin:\n".encode()
#: The most bytes of the user's own ignore file that are read.
_LIMIT = 1024 * 1024

#: Seconds by which the times of files may be behind the system clock.
_LAG_S = 1.0

#: A shell script that copies paths. Its arguments are pairs of source and target. Existing targets stay as they are.
#: With `--reflink`, a copy uses the disk blocks of its source where the file system can do that.
COPY = f"""
while [ $# -gt 0 ]; do
  if [ ! -e "$2" ]; then
    new="$2{_INCOMPLETE}"
    rm -rf -- "$new" && cp -a --reflink=auto -T -- "$1" "$new" && mv -T -- "$new" "$2" || exit 1
  fi
  shift 2
done
"""


async def share(checkout: Path, place: RegisteredWorktree, wanted: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Link paths of a checkout into a worktree, and make git ignore all shared paths.

    This is idempotent. Copies are not made: the caller runs `COPY` for them. A path that already exists in the worktree
    stays as it is. git ignores it only if an earlier call shared it.

    Args:
        checkout: The user's checkout.
        place: The worktree.
        wanted: For each path, relative to the checkout, "link" or "copy".

    Returns:
        The arguments for `COPY`, and a sentence for each path that can't be shared.
    """
    missing: list[str] = []
    notes: list[str] = []
    for name in wanted:
        if await to_thread.run_sync(os.path.lexists, place.path / name):
            continue
        if obstacle := await _find_obstacle(checkout, place, name):
            notes.append(f"{name} is not shared: {obstacle}")
        else:
            missing.append(name)
    before = await to_thread.run_sync(read_shared_paths, place)
    rules = await _compose_ignore_file(place, sorted({*before, *missing}))
    await to_thread.run_sync(place.ignore_file.write_bytes, rules)
    copies: list[str] = []
    for name in missing:
        copies += await to_thread.run_sync(_link_or_list, checkout / name, place.path / name, wanted[name])
    return copies, notes


def delete_changed_copies(checkout: Path, place: RegisteredWorktree, wanted: Mapping[str, str]) -> None:
    """Delete the copies whose source has changed since the last call. Blocks.

    The next call of `share` returns these paths, so that they are copied again. The arguments are those of `share`.
    """
    stamp = place.folder / "forkjoin-copied"
    now = time.time() - _LAG_S
    since = stamp.stat().st_mtime if stamp.exists() else now
    for copy in (place.path / name for name, how in wanted.items() if how == "copy"):
        source = checkout / copy.relative_to(place.path)
        if not is_blocked(copy.parent, place.path.resolve()) and _has_changed(source, since):
            delete_path(copy)
    stamp.touch()
    os.utime(stamp, (now, now))


def _has_changed(source: Path, since: float) -> bool:
    """Return whether a file at or below `source` has changed after a time. Blocks.

    A file that was added or deleted counts too.

    Also return True if `source` is missing. The ctime is compared, because programs can't set it to an older time.

    Args:
        source: A file or folder of the checkout.
        since: The time, in seconds since 1970.
    """
    try:
        return any(os.lstat(path).st_ctime > since for path in (str(source), *_walk_paths(str(source.resolve()))))
    except FileNotFoundError:
        return True


def _walk_paths(top: str) -> Iterator[str]:
    yield top
    for above, folders, files in os.walk(top):
        yield from (f"{above}/{name}" for name in (*folders, *files))


async def _compose_ignore_file(place: RegisteredWorktree, names: Iterable[str]) -> bytes:
    """Return the content for a worktree's ignore file.

    The user's own rules come first, then the shared paths.
    """
    own = await to_thread.run_sync(read_regular, await find_users_ignore_file(place.common_dir, place.path), _LIMIT)
    return b"%s\n%s%s" % (own or b"", _SEPARATOR, "".join(f"/{name}\n" for name in names).encode())


def read_shared_paths(place: RegisteredWorktree) -> set[str]:
    """Return the shared paths that a worktree's ignore file lists. Blocks."""
    _, _, names = (read_regular(place.ignore_file) or b"").rpartition(_SEPARATOR)
    return {line.removeprefix("/") for line in names.decode(errors="replace").splitlines()}


async def _find_obstacle(checkout: Path, place: RegisteredWorktree, name: str) -> str:
    """Return why a path can't be shared, or an empty string if it can."""
    if obstacle := await to_thread.run_sync(_find_file_obstacle, checkout, place.path, name):
        return obstacle
    code, _, _ = await git.run(checkout, "check-ignore", "--quiet", "--", name)
    return "" if code == 0 else f"git doesn't ignore it in {checkout}"


def _find_file_obstacle(checkout: Path, worktree: Path, name: str) -> str:
    """Return why a path can't be shared, judged by the files alone. Blocks.

    Return an empty string if it can be shared.
    """
    source = checkout / name
    if is_blocked(source.parent, checkout.resolve()) or is_blocked((worktree / name).parent, worktree.resolve()):
        return "one of its parent folders is a file, or a symlink that leads elsewhere"
    if not source.exists():
        return f"it doesn't exist in {checkout}"
    return "" if source.is_dir() or source.is_file() else "it is neither a folder nor a file"


def _link_or_list(source: Path, target: Path, how: str) -> list[str]:
    """Create a symlink. For a copy, return the arguments for `COPY` instead. Blocks.

    Both ways, create the parent folders of `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if how == "copy":  # if `source` is a symlink, its target is copied: an agent could write through a symlink
        return [str(source.resolve()), str(target)]
    target.symlink_to(source)
    return []
