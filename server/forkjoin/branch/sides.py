"""What two sides that conflict have done in some files since they parted."""

from collections.abc import Sequence
from dataclasses import dataclass

from forkjoin.branch import diff, git

#: How many files, and commits, are looked at.
_FILES, _COMMITS = 100, 50


@dataclass(frozen=True, slots=True)
class Sides:
    """Both diffs from `base`, cut; and the commits of `ours` that touched these files, the newest first."""

    base: str
    ours: bytes
    theirs: bytes
    commits: tuple[str, ...]


async def find_sides(common_dir: str, ours: str, theirs: str, files: Sequence[str], limit: int) -> Sides:
    """What lies between these commits and where they parted, in these files; `limit` bytes of each diff."""
    base = (await git.git(common_dir, "merge-base", ours, theirs)).partition("\n")[0]
    paths = [f":(top,literal){file}" for file in files[:_FILES]]
    diffs = [await diff.beginning(common_dir, base, tip, paths, limit) for tip in (ours, theirs)]
    log = ("log", "--first-parent", "--format=%H", f"--max-count={_COMMITS}", f"{base}..{ours}", "--", *paths)
    return Sides(base, diffs[0], diffs[1], tuple((await git.git(common_dir, *log)).split()))
