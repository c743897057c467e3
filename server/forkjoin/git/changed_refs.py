"""Listings of a repository's refs, and the differences between two listings."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import anyio

from forkjoin.core.error import GitError
from forkjoin.git import git
from forkjoin.git.refs import short_name

#: Refs that are nobody's work: what a fetch moves, what each worktree has of its own, and what we keep.
_LEFT_OUT = ("remotes", "prefetch", "forkjoin", "bisect", "worktree", "rewritten")
_PREFIXES = tuple(f"refs/{name}/" for name in _LEFT_OUT)
_LISTING = ("for-each-ref", "--format=%(objectname) %(refname) %(symref)")
#: Bytes of all refs, and seconds that listing them may take.
_LIMIT = 32 * 1024 * 1024
_PATIENCE_S = 20.0
_DIGITS = 10


@dataclass(frozen=True, slots=True)
class ChangedRef:
    """A ref that points elsewhere than before, is new, or is gone."""

    ref: str
    old: str  #: the object, and the ref that it stands for, if it does; empty where there was none
    new: str

    def __str__(self) -> str:
        if not self.new:
            return f"{_called(self.ref)} (deleted)"
        if not self.old:
            return f"{_called(self.ref)} (new)"
        return f"{_called(self.ref)} ({_shorten(self.old)} → {_shorten(self.new)})"


def _called(ref: str) -> str:
    """Return a ref's name as people say it."""
    if ref == "refs/stash":
        return "the stash"
    return f"tag {ref.removeprefix('refs/tags/')}" if ref.startswith("refs/tags/") else short_name(ref)


def _shorten(value: str) -> str:
    commit, _, stands_for = value.partition(" ")
    return short_name(stands_for) or commit[:_DIGITS]


async def read_ref_listing(common_dir: str) -> str | None:
    """Return a line per ref, or `None` if git fails to list the refs in time."""
    listing = None
    with anyio.move_on_after(_PATIENCE_S), contextlib.suppress(GitError):
        listing = os.fsdecode(await git.read_output(common_dir, *_LISTING, limit=_LIMIT))
    if listing is None or len(listing) == _LIMIT:
        return None
    return "".join(f"{line}\n" for line in listing.splitlines() if not line.split(" ")[1].startswith(_PREFIXES))


def find_changed_refs(before: str, now: str, known: Mapping[str, str]) -> list[ChangedRef]:
    """Return the refs in which two listings differ.

    Args:
        known: Where refs were known to be in between.
    """
    old, new = {**dict(_read(before.splitlines())), **known}, dict(_read(now.splitlines()))
    refs = sorted(old.keys() | new.keys())
    return [ChangedRef(ref, old.get(ref, ""), new.get(ref, "")) for ref in refs if old.get(ref) != new.get(ref)]


def _read(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        commit, ref, stands_for = line.split(" ")
        yield ref, f"{commit} {stands_for}".rstrip()
