"""What a branch changed; and what either side of a conflict did."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.git import git
from forkjoin.git.file_names import printable, split_names
from forkjoin.git.worktrees.worktree_folder import find_place, is_folder

#: Bytes of a diff that are read; an agent may have added files of any size.
LIMIT = 32 * 1024 * 1024

#: How many new files are named.
_NAMED = 100
#: How many files in conflict, and commits that touched them, are looked at.
_FILES, _COMMITS = 100, 50

_PLAIN = ("--no-color", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty")


@dataclass(frozen=True, slots=True)
class DiffStat:
    files_changed: int
    insertions: int
    deletions: int


async def measure(common_dir: str, base: str, tip: str) -> DiffStat:
    """How much lies between two commits; a binary file counts as a file and no lines."""
    if base == tip:
        return DiffStat(0, 0, 0)
    listing = await git.output(common_dir, "diff", *_PLAIN, "--numstat", "-z", "--no-renames", base, tip, "--")
    rows = [row.split("\t") for row in split_names(listing)]
    inserted, deleted = (sum(int(row[side]) for row in rows if row[side] != "-") for side in (0, 1))
    return DiffStat(len(rows), inserted, deleted)


async def read_diff(common_dir: str, base: str, tip: str, path: str | None, *, stat: bool) -> bytes:
    """The diff between two commits; of `path` alone, or of all."""
    return await git.read_output(common_dir, *_diff(stat), base, tip, "--", *_only(path), limit=LIMIT)


async def read_worktree_diff(common_dir: str, worktree: Path, base: str, path: str | None, *, stat: bool) -> bytes:
    """The diff from `base` to the files in a worktree as they are now, and what is new there."""
    place = await find_place(common_dir, worktree)
    if place is None or not await to_thread.run_sync(is_folder, worktree):
        return b""
    text = await git.read_output(worktree, *_diff(stat), base, "--", *_only(path), limit=LIMIT, extra=place.here)
    new = split_names(await place.git("ls-files", "-z", "--others", "--exclude-standard"))
    return text + b"".join(b"new, not in git yet: %s\n" % printable(name).encode() for name in new[:_NAMED])


# -- both sides of a conflict


@dataclass(frozen=True, slots=True)
class ConflictSides:
    """Both diffs from `base`, cut; and the commits of `ours` that touched these files, the newest first."""

    base: str
    ours: bytes
    theirs: bytes
    commits: tuple[str, ...]


async def find_conflict_sides(
    common_dir: str, ours: str, theirs: str, files: Sequence[str], limit: int
) -> ConflictSides:
    """What two commits have done in these files since they parted; `limit` bytes of each diff."""
    base = (await git.output(common_dir, "merge-base", ours, theirs)).partition("\n")[0]
    paths = [one for file in files[:_FILES] for one in _only(file)]
    diffs = [
        await git.read_output(common_dir, *_diff(stat=False), base, tip, "--", *paths, limit=limit)
        for tip in (ours, theirs)
    ]
    log = ("log", "--first-parent", "--format=%H", f"--max-count={_COMMITS}", f"{base}..{ours}", "--", *paths)
    return ConflictSides(base, diffs[0], diffs[1], tuple((await git.output(common_dir, *log)).split()))


def _diff(stat: bool) -> tuple[str, ...]:
    return ("diff", *_PLAIN, "--stat=120" if stat else "--patch")


def _only(path: str | None) -> tuple[str, ...]:
    return (f":(top,literal){path}",) if path else ()
