"""Merging two commits without touching anything: what would come of it, or where they conflict."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from forkjoin.core.error import GitError, GitRefusedError
from forkjoin.git import git

#: What git puts behind a file's name where a folder stands in its place: the commit, or tree, that has it.
_WHOSE = re.compile(r"~[0-9a-f]{40,64}(_\d+)?$")


@dataclass(frozen=True, slots=True)
class TriedMerge:
    """A merge that was tried: its tree and, if there are any, the files in conflict."""

    tree: str
    conflicts: tuple[str, ...]


async def try_merge(
    common_dir: str,
    ours: str,
    theirs: str,
    base: str | None = None,
    how: Sequence[str] = (),
    aside: Mapping[str, str] | None = None,
) -> TriedMerge:
    """Merge two commits in git's object store alone (git-merge-tree(1)), with the attributes that `ours` sets.

    With `base`, where they parted, they may be trees (since git 2.45). `how` are options of git's own;
    `aside` tells it where its objects may go.

    Raises:
        GitError: They can't be merged at all (unrelated histories).
    """
    parted = (f"--merge-base={base}",) if base else ()
    arguments = (*how, "merge-tree", "--write-tree", "--name-only", "-z", *parted, ours, theirs)
    code, out, _ = await git.run(
        common_dir, *arguments, extra={"GIT_ATTR_SOURCE": ours, **(aside or {})}, ok_codes=(0, 1)
    )
    tree, _, told = os.fsdecode(out).partition("\0")
    return TriedMerge(tree, _read_conflicts(iter(told.split("\0")), is_clean=code == 0))


@dataclass(frozen=True, slots=True)
class MergePair:
    """A merge that is to be tried: both sides and, where it is given, the base, which then may be trees."""

    ours: str
    theirs: str
    base: str | None = None

    def __str__(self) -> str:
        return f"{self.base} -- {self.ours} {self.theirs}" if self.base else f"{self.ours} {self.theirs}"


async def try_merges(
    common_dir: str, wanted: Sequence[MergePair], how: Sequence[str] = (), aside: Mapping[str, str] | None = None
) -> list[TriedMerge | GitError]:
    """As `try_merge`, many in one call where that can be, each for itself; git's error, where one can't be merged.

    git can be told of one side only whose attributes count: the first one's.
    """
    merges = await _try_at_once(common_dir, wanted, how, aside) if len(wanted) > 1 else ()
    return [*merges] or [await _try_alone(common_dir, pair, how, aside) for pair in wanted]


async def _try_alone(
    common_dir: str, pair: MergePair, how: Sequence[str], aside: Mapping[str, str] | None
) -> TriedMerge | GitError:
    try:
        return await try_merge(common_dir, pair.ours, pair.theirs, pair.base, how, aside)
    except GitRefusedError as error:
        return error


async def _try_at_once(
    common_dir: str, wanted: Sequence[MergePair], how: Sequence[str], aside: Mapping[str, str] | None
) -> Sequence[TriedMerge]:
    """What comes of all of these; nothing where one of them can't be merged at all, or this git knows no such call."""
    asked = "".join(f"{pair}\n" for pair in wanted).encode()
    arguments = (*how, "merge-tree", "--stdin", "--name-only", "--messages")
    extra = {"GIT_ATTR_SOURCE": wanted[0].ours, **(aside or {})}
    code, out, _ = await git.run(common_dir, *arguments, stdin=asked, extra=extra)
    return () if code else list(_read_merges(iter(os.fsdecode(out).split("\0"))))


def _read_merges(told: Iterator[str]) -> Iterator[TriedMerge]:
    """Of each is told whether it is clean, its tree, and what `_read_conflicts` reads."""
    while is_clean := next(told, ""):
        yield TriedMerge(next(told), _read_conflicts(told, is_clean=is_clean == "1"))


def _read_conflicts(told: Iterator[str], *, is_clean: bool) -> tuple[str, ...]:
    """The files that git left unmerged; where it left none, those that its messages of conflicts are about.

    A folder that one side split in two, and the other added to, is such a conflict without an unmerged file.
    """
    files = list(itertools.takewhile(bool, told))
    complained_of = list(_read_messages(told))
    found = files or complained_of or ["(git names no file)"]
    return () if is_clean else tuple(dict.fromkeys(_WHOSE.sub("", file) for file in found))


def _read_messages(told: Iterator[str]) -> Iterator[str]:
    """The paths in messages of conflicts, each of which is: how many paths, the paths, its kind, its text."""
    while count := next(told, ""):
        paths = list(itertools.islice(told, int(count)))
        kind, _ = next(told), next(told)
        if kind.startswith("CONFLICT"):
            yield from paths
