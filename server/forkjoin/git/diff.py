"""Diffs of a branch, and of both sides of a conflict."""

from collections.abc import Sequence
from dataclasses import dataclass

from forkjoin.git import git
from forkjoin.git.file_names import split_names

#: The number of bytes after which a diff is cut. An agent may have added files of any size.
LIMIT = 32 * 1024 * 1024

#: The number of files in conflict that are compared, and of commits that are named, at most.
_FILE_LIMIT, _COMMIT_LIMIT = 100, 50

_OPTIONS = ("--no-color", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty")


@dataclass(frozen=True, slots=True)
class DiffStat:
    """The size of a diff. A binary file counts as one file without lines."""

    files_changed: int
    insertions: int
    deletions: int


async def measure_diff(common_dir: str, base: str, tip: str) -> DiffStat:
    """Return the size of the diff between two commits."""
    if base == tip:
        return DiffStat(0, 0, 0)
    listing = await git.output(common_dir, "diff", *_OPTIONS, "--numstat", "-z", "--no-renames", base, tip, "--")
    rows = [row.split("\t") for row in split_names(listing)]
    inserted, deleted = (sum(int(row[side]) for row in rows if row[side] != "-") for side in (0, 1))
    return DiffStat(len(rows), inserted, deleted)


async def read_diff(common_dir: str, base: str, tip: str, path: str | None, *, stat: bool) -> bytes:
    """Return the diff between two commits as git prints it, cut after 32 MB.

    Args:
        base: The old commit.
        tip: The new commit.
        path: A path to restrict the diff to, or `None`.
        stat: Whether to return a summary per file instead of a patch.
    """
    return await git.read_output(common_dir, *diff_command(stat), base, tip, "--", *restrict_to(path), limit=LIMIT)


# -- both sides of a conflict


@dataclass(frozen=True, slots=True)
class ConflictSides:
    """What both sides of a conflict, `ours` and `theirs`, changed in the files in conflict."""

    base: str  #: the merge base
    ours: bytes  #: the diff from the merge base to our commit, cut at the caller's limit
    theirs: bytes  #: the diff from the merge base to their commit, cut at the caller's limit
    commits: tuple[str, ...]  #: the commits on our side since the merge base that changed the files, newest first


async def find_conflict_sides(
    common_dir: str, ours: str, theirs: str, files: Sequence[str], limit: int
) -> ConflictSides:
    """Return what two commits changed in these files since their merge base.

    Args:
        common_dir: The repository's common git folder.
        ours: The first commit.
        theirs: The second commit.
        files: The paths in conflict. Only the first hundred are compared.
        limit: The number of bytes after which each diff is cut.
    """
    base = (await git.output(common_dir, "merge-base", ours, theirs)).partition("\n")[0]
    paths = [argument for file in files[:_FILE_LIMIT] for argument in restrict_to(file)]
    diffs = [
        await git.read_output(common_dir, *diff_command(stat=False), base, tip, "--", *paths, limit=limit)
        for tip in (ours, theirs)
    ]
    log = ("log", "--first-parent", "--format=%H", f"--max-count={_COMMIT_LIMIT}", f"{base}..{ours}", "--", *paths)
    return ConflictSides(base, diffs[0], diffs[1], tuple((await git.output(common_dir, *log)).split()))


def diff_command(stat: bool) -> tuple[str, ...]:
    """Return the arguments of git for a summary per file, or else for a patch."""
    return ("diff", *_OPTIONS, "--stat=120" if stat else "--patch")


def restrict_to(path: str | None) -> tuple[str, ...]:
    """Return the arguments, after `--`, that restrict a diff to a path.

    With `None`, the diff is not restricted.
    """
    return (f":(top,literal){path}",) if path else ()
