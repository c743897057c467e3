"""What a worktree shares with its user's checkout: what git ignores there, such as dependencies, by link or as a copy.

A pattern such as `node_modules/` ignores no symlink. So what is shared is listed in a file of the worktree's own git
folder, after what the user's own core.excludesFile has, and git is told of that one instead: by us where loose work is
committed, and in the environment of whatever runs there. `info/exclude` would be every worktree's, the user's too.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import read_regular
from forkjoin.git import git
from forkjoin.git.git_config import find_users_ignore_file
from forkjoin.git.worktrees.included_files import is_blocked
from forkjoin.git.worktrees.worktree import delete_path
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree

#: What a copy is called until it is whole.
_HALF = ".forkjoin-new"
#: What stands in the list of what is ignored before what is shared.
_MARK = f"*{_HALF}\n# shared with the checkout by forkjoin:\n".encode()
#: Bytes of the user's own list of what is ignored that are heeded.
_LIMIT = 1024 * 1024

#: So much may a file system's clock be behind ours.
_LAG_S = 1.0

#: Makes copies, given two names each: blocks that are the same stay one where the file system can do so.
COPY = f"""
while [ $# -gt 0 ]; do
  if [ ! -e "$2" ]; then
    rm -rf -- "$2{_HALF}" && cp -a --reflink=auto -T -- "$1" "$2{_HALF}" && mv -T -- "$2{_HALF}" "$2" || exit 1
  fi
  shift 2
done
"""


async def share(checkout: Path, place: RegisteredWorktree, wanted: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Link what is to be linked, and see that git ignores all that is shared. Doing so twice is harmless.

    What is there already stays as it is, and git's business.

    Returns:
        What is to be copied, as the words that `COPY` takes; and why what is not shared is not, a sentence each.
    """
    new: list[str] = []
    notes: list[str] = []
    for name in wanted:
        if await to_thread.run_sync(os.path.lexists, place.path / name):
            continue
        if why := await _why_not(checkout, place, name):
            notes.append(f"{name} is not shared: {why}")
        else:
            new.append(name)
    known = await to_thread.run_sync(shared, place)
    await to_thread.run_sync(place.ignore.write_bytes, await _ignored(place, sorted({*known, *new})))
    copies: list[str] = []
    for name in new:
        copies += await to_thread.run_sync(_bring, checkout / name, place.path / name, wanted[name])
    return copies, notes


def delete_changed_copies(checkout: Path, place: RegisteredWorktree, wanted: Mapping[str, str]) -> None:
    """Take away the copies of what has changed in the checkout since this was last called, to be made anew. Blocks."""
    stamp, now = place.folder / "forkjoin-copied", time.time() - _LAG_S
    since = stamp.stat().st_mtime if stamp.exists() else now
    for copy in (place.path / name for name, how in wanted.items() if how == "copy"):
        source = checkout / copy.relative_to(place.path)
        if not is_blocked(copy.parent, place.path.resolve()) and _has_changed(source, since):
            delete_path(copy)
    stamp.touch()
    os.utime(stamp, (now, now))


def _has_changed(source: Path, since: float) -> bool:
    """Whether anything is new, other or gone there: of a file's times it is ctime that no program sets back."""
    try:
        return any(os.lstat(one).st_ctime > since for one in (str(source), *_all_in(str(source.resolve()))))
    except FileNotFoundError:
        return True


def _all_in(top: str) -> Iterator[str]:
    yield top
    for above, folders, files in os.walk(top):
        yield from (f"{above}/{name}" for name in (*folders, *files))


async def _ignored(place: RegisteredWorktree, names: Iterable[str]) -> bytes:
    """What git is to ignore in a worktree: what the user's own list says, and what is shared."""
    own = await to_thread.run_sync(read_regular, await find_users_ignore_file(place.common_dir, place.path), _LIMIT)
    return b"%s\n%s%s" % (own or b"", _MARK, "".join(f"/{name}\n" for name in names).encode())


def shared(place: RegisteredWorktree) -> set[str]:
    """What is shared with a worktree."""
    _, _, names = (read_regular(place.ignore) or b"").rpartition(_MARK)
    return {line.removeprefix("/") for line in names.decode(errors="replace").splitlines()}


async def _why_not(checkout: Path, place: RegisteredWorktree, name: str) -> str:
    """Why this can't be shared; empty where it can."""
    if why := await to_thread.run_sync(_look, checkout, place.path, name):
        return why
    code, _, _ = await git.run(checkout, "check-ignore", "--quiet", "--", name)
    return "" if code == 0 else f"git does not ignore it in {checkout}"


def _look(checkout: Path, worktree: Path, name: str) -> str:
    source = checkout / name
    if is_blocked(source.parent, checkout.resolve()) or is_blocked((worktree / name).parent, worktree.resolve()):
        return "a symlink leads elsewhere on the way to it"
    if not source.exists():
        return f"there is none in {checkout}"
    return "" if source.is_dir() or source.is_file() else "it is neither a folder nor a file"


def _bring(source: Path, target: Path, how: str) -> list[str]:
    """Link it; or say what is to be copied, and as what."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if how == "copy":
        return [str(source.resolve()), str(target)]  # of a symlink what it leads to: through it an agent would write
    target.symlink_to(source)
    return []
