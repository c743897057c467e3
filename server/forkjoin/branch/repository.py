"""What a folder's repository is, how its checkout stands, and what commits it has: short reads."""

import os
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.branch import git
from forkjoin.error import CallerError, GitError, NoRepositoryError

#: Lets a call look further up for a repository, as none but those of `look` may.
_AROUND = {"GIT_CEILING_DIRECTORIES": ""}


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder's repository as it stands."""

    common_dir: str
    top: str | None  #: the work tree's root; none in a bare repository
    branch: str | None  #: its full ref name; none where HEAD is detached
    head: str | None  #: the commit; none in a repository without one
    dirty: bool


async def look(folder: Path, *, dirt: bool = False) -> Checkout:
    """How the repository around `folder` stands; `dirty` (tracked files alone) is only looked for if asked."""
    common_dir, inside, *more = await _ask(folder)
    top = await to_thread.run_sync(os.path.realpath, folder / more.pop(0)) if inside == "true" else None
    head, branch = more or (None, await git.git(folder, "symbolic-ref", "HEAD", extra=_AROUND))  # where none is yet
    return Checkout(
        common_dir=await to_thread.run_sync(os.path.realpath, common_dir),
        top=top,
        branch=None if branch == "HEAD" else branch,
        head=head,
        dirty=dirt and top is not None and head is not None and await _is_dirty(top),
    )


async def _ask(folder: Path) -> list[str]:
    """The common git folder, whether this is in a work tree, if so the way up to its root, the commit and its branch.

    The last two are missing in a repository without a commit.
    """
    asked = ("--path-format=absolute", "--git-common-dir", "--is-inside-work-tree", "--show-cdup")
    head = ("--revs-only", "HEAD", "--symbolic-full-name", "HEAD")
    try:
        code, out, err = await git.run(folder, "rev-parse", *asked, *head, extra=_AROUND)
    except GitError as error:  # its configuration can't be read
        code, out, err = -1, b"", error.stderr
    if code == 0:
        return os.fsdecode(out).removesuffix("\n").split("\n")
    if "not a git repository" in err or "cannot change to" in err:
        raise NoRepositoryError(str(folder))
    raise CallerError(f"git will not use the repository of {folder}: {err.strip()[:500]}")


async def _is_dirty(top: str) -> bool:
    return bool(await git.git(top, "status", "--porcelain", "-z", "--untracked-files=no", "--ignore-submodules=dirty"))


async def commits(common_dir: str, base: str, tip: str, limit: int) -> list[str]:
    """The commits of `tip` that `base` has not, newest first, each as "<short id> <subject>"; at most `limit`."""
    if base == tip:
        return []
    form = ("--format=%H %s", "-z", f"--max-count={limit}")
    _, out, _ = await git.run(common_dir, "log", *form, tip, f"^{base}", "--")
    lines = out.decode(errors="replace").split("\0")
    return [f"{line[:10]} {line.partition(' ')[2][:100]}" for line in lines if line]
