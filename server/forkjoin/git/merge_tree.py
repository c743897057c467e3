"""Merges made in the object store alone: their trees, and the files in conflict. No ref or worktree changes."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from forkjoin.core.error import GitError, GitRefusedError
from forkjoin.git import git

#: The suffix that git gives a file whose place a folder takes. It names the commit or tree that has the file.
_SIDE_SUFFIX = re.compile(r"~[0-9a-f]{40,64}(_\d+)?$")


@dataclass(frozen=True, slots=True)
class TriedMerge:
    """The outcome of a merge."""

    tree: str  #: the merged tree; files in conflict contain conflict markers
    conflicts: tuple[str, ...]  #: the paths of the files in conflict; empty if the merge is clean


async def try_merge(
    common_dir: str,
    ours: str,
    theirs: str,
    base: str | None = None,
    options: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
) -> TriedMerge:
    """Merge two commits with git-merge-tree(1), using the attributes of `ours`.

    Args:
        ours: The first commit, or its tree if `base` is given.
        theirs: The second commit, or its tree if `base` is given.
        base: The commit or tree to use as the merge base instead of git's. Needs git 2.45.
        options: Options of git, before the subcommand.
        extra: Environment variables for git, e.g. `temporary_objects`.

    Raises:
        GitError: The commits can't be merged, e.g. because their histories are unrelated.
    """
    merge_base = (f"--merge-base={base}",) if base else ()
    arguments = (*options, "merge-tree", "--write-tree", "--name-only", "-z", *merge_base, ours, theirs)
    code, out, _ = await git.run(
        common_dir, *arguments, extra={"GIT_ATTR_SOURCE": ours, **(extra or {})}, ok_codes=(0, 1)
    )
    tree, _, rest = os.fsdecode(out).partition("\0")
    return TriedMerge(tree, _read_conflicts(iter(rest.split("\0")), is_clean=code == 0))


@dataclass(frozen=True, slots=True)
class MergePair:
    """The input of a merge: two commits, or two commits or trees and the merge base to use."""

    ours: str
    theirs: str
    base: str | None = None

    def __str__(self) -> str:
        return f"{self.base} -- {self.ours} {self.theirs}" if self.base else f"{self.ours} {self.theirs}"


async def try_merges(
    common_dir: str,
    pairs: Sequence[MergePair],
    options: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
) -> list[TriedMerge | GitError]:
    """Merge each pair independently of the others, with one call of git if possible.

    Return for each pair its outcome, or git's error if the pair can't be merged.

    With one call, all merges use the attributes of the first pair's `ours`.
    """
    merges = await _try_together(common_dir, pairs, options, extra) if len(pairs) > 1 else ()
    return [*merges] or [await _try_alone(common_dir, pair, options, extra) for pair in pairs]


async def _try_alone(
    common_dir: str, pair: MergePair, options: Sequence[str], extra: Mapping[str, str] | None
) -> TriedMerge | GitError:
    try:
        return await try_merge(common_dir, pair.ours, pair.theirs, pair.base, options, extra)
    except GitRefusedError as error:
        return error


async def _try_together(
    common_dir: str, pairs: Sequence[MergePair], options: Sequence[str], extra: Mapping[str, str] | None
) -> Sequence[TriedMerge]:
    """Merge all pairs with one call of git. Return an empty sequence if that fails.

    It fails if one of the pairs can't be merged, or if the installed git doesn't know `--stdin`.
    """
    stdin = "".join(f"{pair}\n" for pair in pairs).encode()
    arguments = (*options, "merge-tree", "--stdin", "--name-only", "--messages")
    extra = {"GIT_ATTR_SOURCE": pairs[0].ours, **(extra or {})}
    code, out, _ = await git.run(common_dir, *arguments, stdin=stdin, extra=extra)
    return () if code else list(_read_merges(iter(os.fsdecode(out).split("\0"))))


def _read_merges(fields: Iterator[str]) -> Iterator[TriedMerge]:
    """Yield the merges that `git merge-tree --stdin` printed.

    `fields` is git's output, split at NUL.
    """
    while is_clean := next(fields, ""):
        yield TriedMerge(next(fields), _read_conflicts(fields, is_clean=is_clean == "1"))


def _read_conflicts(fields: Iterator[str], *, is_clean: bool) -> tuple[str, ...]:
    """Return the files in conflict.

    They are the unmerged files, or without any, the files that git's messages about conflicts name.

    No file is unmerged if, for example, one side splits a folder in two and the other adds a file to that folder.

    Args:
        fields: The rest of the output for one merge, split at NUL.
        is_clean: Whether the merge has no conflict.
    """
    files = list(itertools.takewhile(bool, fields))
    in_messages = list(_read_messages(fields))
    found = files or in_messages or ["(git names no file)"]
    return () if is_clean else tuple(dict.fromkeys(_SIDE_SUFFIX.sub("", file) for file in found))


def _read_messages(fields: Iterator[str]) -> Iterator[str]:
    """Yield the paths in git's messages about conflicts.

    The fields of a message are the number of its paths, the paths, its kind and its text.
    """
    while count := next(fields, ""):
        paths = list(itertools.islice(fields, int(count)))
        kind, _ = next(fields), next(fields)
        if kind.startswith("CONFLICT"):
            yield from paths
