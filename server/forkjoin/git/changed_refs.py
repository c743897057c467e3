"""Listings of a repository's refs, and the refs that changed between two listings."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import anyio

from forkjoin.core.error import GitError
from forkjoin.git import git
from forkjoin.git.refs import short_name

#: Refs that hold no work of a user: moved by a fetch, private to a worktree, or kept by forkjoin.
_IGNORED_FOLDERS = ("remotes", "prefetch", "forkjoin", "bisect", "worktree", "rewritten")
_IGNORED_PREFIXES = tuple(f"refs/{folder}/" for folder in _IGNORED_FOLDERS)
_LIST = ("for-each-ref", "--format=%(objectname) %(refname) %(symref)")
#: Bytes that a listing may have.
_LISTING_LIMIT = 32 * 1024 * 1024
#: Seconds that git may take to list the refs.
_TIMEOUT_S = 20.0
#: Digits of a commit id that are shown.
_SHOWN_DIGITS = 10


@dataclass(frozen=True, slots=True)
class ChangedRef:
    """A ref that was created, deleted or moved.

    A value is an object id, followed by a space and the target if the ref is symbolic.
    """

    ref: str
    old: str  #: the old value; empty for a new ref
    new: str  #: the new value; empty for a deleted ref

    def __str__(self) -> str:
        if not self.new:
            return f"{_ref_label(self.ref)} (deleted)"
        if not self.old:
            return f"{_ref_label(self.ref)} (new)"
        return f"{_ref_label(self.ref)} ({_shorten(self.old)} → {_shorten(self.new)})"


def _ref_label(ref: str) -> str:
    """Return a ref's name for messages."""
    if ref == "refs/stash":
        return "the stash"
    return f"tag {ref.removeprefix('refs/tags/')}" if ref.startswith("refs/tags/") else short_name(ref)


def _shorten(value: str) -> str:
    """Return a symbolic target's short name, or the first digits of an object id."""
    commit, _, target = value.partition(" ")
    return short_name(target) or commit[:_SHOWN_DIGITS]


async def read_ref_listing(common_dir: str) -> str | None:
    """Return a line for each ref, or `None` if git fails to list them in time.

    A line is `<object> <ref> <target>`. The target is empty unless the ref is symbolic.
    """
    listing = None
    with anyio.move_on_after(_TIMEOUT_S), contextlib.suppress(GitError):
        listing = os.fsdecode(await git.read_output(common_dir, *_LIST, limit=_LISTING_LIMIT))
    if listing is None or len(listing) == _LISTING_LIMIT:
        return None
    return "".join(f"{line}\n" for line in listing.splitlines() if not line.split(" ")[1].startswith(_IGNORED_PREFIXES))


def find_changed_refs(before: str, after: str, expected: Mapping[str, str]) -> list[ChangedRef]:
    """Return the refs in which two listings differ, sorted by name.

    Args:
        before: The first result of `read_ref_listing`.
        after: The second result.
        expected: Values that replace those in `before`, for refs that are known to have moved since.
    """
    old, new = {**dict(_parse_refs(before.splitlines())), **expected}, dict(_parse_refs(after.splitlines()))
    refs = sorted(old.keys() | new.keys())
    return [ChangedRef(ref, old.get(ref, ""), new.get(ref, "")) for ref in refs if old.get(ref) != new.get(ref)]


def _parse_refs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        commit, ref, target = line.split(" ")
        yield ref, f"{commit} {target}".rstrip()
