"""The status of a worktree, and the staging of all uncommitted files in it."""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError, GitRefusedError
from forkjoin.git.changed_paths import SUBMODULE
from forkjoin.git.file_names import join_names, split_names
from forkjoin.git.objects import sync_objects
from forkjoin.git.safe_options import NO_FSYNC
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree

#: With more uncommitted paths than this, all objects are synced to disk at once: a sync of each takes milliseconds.
_MANY_PATHS = 100
#: The options of `git status` for a format that doesn't change with the user's settings.
_FORMAT = ("--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=dirty")
_ALL = ("--untracked-files=all", "--ignored=matching")
#: The empty tree's id, by the length of ids in the repository (SHA-1 or SHA-256).
EMPTY_TREES = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
#: The options with which git reads NUL-terminated paths from stdin.
_PATHS_FROM_STDIN = ("--pathspec-from-file=-", "--pathspec-file-nul")


@dataclass(frozen=True, slots=True)
class Status:
    """The uncommitted and ignored paths in a worktree."""

    head: str | None  #: HEAD's commit; `None` if HEAD is on a branch that doesn't exist
    branch: str | None  #: the short name of HEAD's branch; `None` if HEAD is detached
    uncommitted: list[str]  #: paths that differ from HEAD, including untracked files
    unmerged: list[str]  #: the uncommitted paths with a merge conflict
    repositories: list[str]  #: untracked nested repositories, and changed submodules
    ignored: list[str]  #: the ignored paths; of a folder that is ignored as a whole, only its own path with a `/`
    staged: list[str]  #: the uncommitted paths that have no changes besides the staged ones
    unstaged: list[str]  #: the uncommitted paths of which nothing is staged
    modified: list[str]  #: the unstaged paths whose content differs, but not their mode or type
    #: Paths that git reported, but `omit_untouched_files` removed from `uncommitted`.
    untouched: frozenset[str] = frozenset()


async def read_status(place: RegisteredWorktree, extra: Mapping[str, str] | None = None) -> Status:
    """Return a worktree's status, as `git status` reports it.

    Args:
        extra: Environment variables for git, e.g. for a separate object folder.
    """
    lines = split_names(await place.git("status", *_FORMAT, *_ALL, extra=extra))
    headers = {line.split(" ")[1]: line.split(" ")[2] for line in lines if line.startswith("# branch.")}
    head = headers["branch.oid"]
    branch = headers["branch.head"]
    # A changed path is on a line `1 <XY> <submodule> <3 modes> <2 object ids> <path>` (git-status(1)).
    changed = [line.split(" ", 8) for line in lines if line.startswith("1 ")]
    submodules = [path for _, state, kind, *_, path in changed if kind != "N..." and state[1] != "."]
    unmerged = [line.split(" ", 10)[10] for line in lines if line.startswith("u ")]
    new = [line[2:] for line in lines if line.startswith("? ")]
    files = [name for name in new if not name.endswith("/")]
    unstaged = [fields for fields in changed if fields[1][0] == "." and fields[2] == "N..."]
    return Status(
        head=None if head == "(initial)" else head,
        branch=None if branch == "(detached)" else branch,
        uncommitted=[*(fields[8] for fields in changed), *unmerged, *files],
        unmerged=unmerged,
        repositories=[*submodules, *(name for name in new if name.endswith("/"))],
        ignored=[line[2:] for line in lines if line.startswith("! ")],
        staged=[fields[8] for fields in changed if fields[1][1] == "."],
        unstaged=[*(fields[8] for fields in unstaged), *files],
        modified=[fields[8] for fields in unstaged if fields[1] == ".M" and fields[4] == fields[5]],
    )


async def copy_index_file(folder: Path, target: Path) -> None:
    """Copy the index of a git folder to a file. Do nothing if there is no index."""
    with contextlib.suppress(FileNotFoundError):
        await to_thread.run_sync(shutil.copy2, folder / "index", target)


async def stage(
    place: RegisteredWorktree, status: Status, warnings: list[str], aside: Mapping[str, str] | None = None
) -> str:
    """Stage all uncommitted files, except nested repositories and submodules.

    Args:
        warnings: A sentence is appended to this list if some files can't be staged.
        aside: Variables that name a copy of the index and a separate object folder to git. By default the worktree's
            own index and the repository's objects are used.

    Returns:
        The id of the tree that git writes from the index.
    """
    # Submodules are excluded: git would start another git for each, with the submodule's own configuration.
    rows = split_names(await place.git("ls-files", "-z", "--stage", extra=aside))
    await _resolve_to_ours(place, rows, aside)
    submodules = [row.partition("\t")[2] for row in rows if row.startswith(f"{SUBMODULE} ")]
    others = {*status.repositories, *submodules}
    if status.untouched:
        own = sorted({*status.uncommitted}.difference(status.staged, others))
        paths = join_names(f":(top,literal){name}" for name in own)
    else:
        paths = join_names([".", *(f":(top,exclude,literal){name}" for name in sorted(others))])
    quick = NO_FSYNC if aside or len(status.uncommitted) > _MANY_PATHS else ()
    add = (*quick, "-c", "core.safecrlf=false", "add", "--all", "--sparse", *_PATHS_FROM_STDIN)
    try:
        if paths:  # an empty list would make git add all files
            await place.git(*add, stdin=paths, extra=aside)
    except GitRefusedError as error:
        why = (error.stderr or error.last_line).splitlines()[0]
        warnings.append(f"Not all of the uncommitted work could be committed: {why[:300]}")
        await _stage_what_can_be(place, (*add, "--ignore-errors"), paths, aside)
    tree = await place.git(*quick, "write-tree", extra=aside)
    if quick and not aside:
        await sync_objects(place.common_dir)
    return tree


async def _stage_what_can_be(
    place: RegisteredWorktree, add: Sequence[str], paths: bytes, aside: Mapping[str, str] | None
) -> None:
    """Stage the files that git accepts, and omit the others.

    If git fails all the same, e.g. because of an encoding in the attributes, stage the files without attributes.

    Args:
        add: The arguments of `git add`, with --ignore-errors.
        paths: The NUL-terminated paths that git reads from stdin.
        aside: As for `stage`.
    """
    try:
        await place.git(*add, stdin=paths, extra=aside)
    except GitError:
        length = len(await place.git("hash-object", "--stdin", stdin=b""))
        with contextlib.suppress(GitError):
            await place.git(*add, stdin=paths, extra={**(aside or {}), "GIT_ATTR_SOURCE": EMPTY_TREES[length]})


async def _resolve_to_ours(place: RegisteredWorktree, rows: Sequence[str], aside: Mapping[str, str] | None) -> None:
    """Replace each conflict in the index by our side, else by their side or the base.

    git can't write a tree from an index with conflicts. For a file, `git add` afterwards replaces the chosen entry by
    the file in the worktree. For a submodule, the chosen entry is committed.

    Args:
        rows: The output of `git ls-files --stage`, each `<mode> <object id> <stage>`, a tab and the path.
        aside: As for `stage`.
    """
    entries = (row.partition("\t")[::2] for row in rows)
    unmerged = sorted(((how, path) for how, path in entries if how[-1] != "0"), key=lambda one: "132".index(one[0][-1]))
    if unmerged:
        chosen = {path: f"{how[:-2]}\t{path}" for how, path in unmerged}
        await place.git("update-index", "-z", "--index-info", stdin=join_names(chosen.values()), extra=aside)
