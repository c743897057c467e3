"""Listings of a repository's refs, and the refs that changed between two listings."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from forkjoin.core.error import GitError
from forkjoin.git import git
from forkjoin.git.refs import short_name

#: Folders of refs that are not compared: a fetch moves them, they belong to one worktree, or forkjoin makes them.
_IGNORED_FOLDERS = ("remotes", "prefetch", "forkjoin", "bisect", "worktree", "rewritten")
_IGNORED_PREFIXES = tuple(f"refs/{folder}/" for folder in _IGNORED_FOLDERS)
_LIST = ("for-each-ref", "--format=%(objectname) %(refname) %(symref)")
#: The number of bytes from which a listing counts as too large.
_LISTING_LIMIT = 32 * 1024 * 1024
#: Seconds that git may take to list the refs.
_TIMEOUT_S = 20.0
#: The number of an object id's digits in a message.
_SHOWN_DIGITS = 10


@dataclass(frozen=True, slots=True)
class ChangedRef:
    """A ref that was created, deleted or moved.

    `old` and `new` are object ids, each followed by a space and the target if the ref is symbolic.
    """

    ref: str
    old: str  #: empty if the ref was created
    new: str  #: empty if the ref was deleted

    def __str__(self) -> str:
        moved = f"{_shorten(self.old)} → {_shorten(self.new)}"
        return f"{_ref_label(self.ref)} ({moved if self.old and self.new else 'new' if self.new else 'deleted'})"


def _ref_label(ref: str) -> str:
    """Return a ref's name for a message, e.g. `main`, `tag v1` or `the stash`."""
    if ref == "refs/stash":
        return "the stash"
    return f"tag {ref.removeprefix('refs/tags/')}" if ref.startswith("refs/tags/") else short_name(ref)


def _shorten(value: str) -> str:
    """Return the short form of a ref's value for a message.

    It is the short name of a symbolic ref's target, or the first digits of an object id.
    """
    commit, _, target = value.partition(" ")
    return short_name(target) or commit[:_SHOWN_DIGITS]


async def read_ref_listing(common_dir: str) -> str | None:
    """Return the refs that may have a user's work, one a line, with their values.

    A line is `<object> <ref> <target>`. The target is empty unless the ref is symbolic.

    Return `None` if git fails, takes longer than 20 seconds or prints more than 32 MB.
    """
    data = None
    with anyio.move_on_after(_TIMEOUT_S), contextlib.suppress(GitError):
        data = await git.read_output(common_dir, *_LIST, limit=_LISTING_LIMIT)
    if data is None or len(data) == _LISTING_LIMIT:
        return None
    lines = _split_lines(os.fsdecode(data))
    return "".join(f"{line}\n" for line in lines if not line.split(" ")[1].startswith(_IGNORED_PREFIXES))


def find_changed_refs(before: str, after: str, expected: Mapping[str, str]) -> list[ChangedRef]:
    """Return the refs in which two listings differ, sorted by name.

    Args:
        before: An earlier result of `read_ref_listing`.
        after: A later result.
        expected: Values by ref, which replace the values in `before`: forkjoin knows that these refs got them since.
    """
    old, new = {**_parse(before), **expected}, _parse(after)
    refs = sorted(old.keys() | new.keys())
    return [ChangedRef(ref, old.get(ref, ""), new.get(ref, "")) for ref in refs if old.get(ref) != new.get(ref)]


def _parse(listing: str) -> dict[str, str]:
    rows = (line.split(" ") for line in _split_lines(listing))
    return {ref: f"{commit} {target}".rstrip() for commit, ref, target in rows}


def _split_lines(listing: str) -> list[str]:
    """Split a listing at line feeds only.

    The name of a ref may contain other line ends, such as U+2028.
    """
    return listing.split("\n")[:-1]
