"""What a branch changed."""

from dataclasses import dataclass

from forkjoin.branch import git

#: Bytes of a diff that are read; an agent may have added files of any size.
LIMIT = 32 * 1024 * 1024

_PLAIN = ("--no-color", "--no-ext-diff", "--no-textconv")


@dataclass(frozen=True, slots=True)
class Stat:
    files_changed: int
    insertions: int
    deletions: int


async def measure(common_dir: str, base: str, tip: str) -> Stat:
    """How much lies between two commits; a binary file counts as a file and no lines."""
    if base == tip:
        return Stat(0, 0, 0)
    listing = await git.git(common_dir, "diff", *_PLAIN, "--numstat", "-z", "--no-renames", base, tip, "--")
    rows = [row.split("\t") for row in git.names_in(listing)]
    return Stat(len(rows), sum(_lines(row[0]) for row in rows), sum(_lines(row[1]) for row in rows))


def _lines(field: str) -> int:
    return 0 if field == "-" else int(field)


async def text(where: str, base: str, tip: str | None, path: str | None, *, stat: bool) -> bytes:
    """The diff from `base` to `tip`, or to the files in the worktree `where` if none; of `path` alone, or of all.

    Raises:
        GitError: There is no such commit or repository.
    """
    form = ("--stat=120",) if stat else ("--patch",)
    commits = (base,) if tip is None else (base, tip)
    only = (f":(top,literal){path}",) if path else ()
    return await git.read(where, "diff", *_PLAIN, *form, *commits, "--", *only, limit=LIMIT)


async def untracked(worktree: str) -> list[str]:
    """Files in a worktree that git does not know yet, and does not ignore."""
    return git.names_in(await git.git(worktree, "ls-files", "-z", "--others", "--exclude-standard"))
