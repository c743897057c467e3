"""The status of a worktree, and staging everything that is uncommitted in it."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forkjoin.core.error import GitError, GitRefusedError
from forkjoin.git.changed_paths import SUBMODULE
from forkjoin.git.file_names import join_names, split_names
from forkjoin.git.objects import sync_objects
from forkjoin.git.safe_options import NO_FSYNC
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree

#: For more paths than this, all objects are synced to disk together. Syncing takes milliseconds for each.
_MANY = 100
#: The options of `git status` for its stable output format.
_FORM = ("--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=dirty")
_ALL = ("--untracked-files=all", "--ignored=matching")
#: The empty tree's id, by the length of ids in the repository (SHA-1 or SHA-256).
EMPTY_TREES = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
#: The options that pass paths through stdin.
_BY_STDIN = ("--pathspec-from-file=-", "--pathspec-file-nul")


@dataclass(frozen=True, slots=True)
class Status:
    """The uncommitted and ignored files in a worktree."""

    head: str | None  #: HEAD's commit; `None` if its branch is gone
    branch: str | None  #: the short name of HEAD's branch; `None` if HEAD is detached
    uncommitted: list[str]  #: paths that differ from HEAD, including untracked files
    unmerged: list[str]  #: uncommitted paths in conflict
    repositories: list[str]  #: untracked nested repositories, and changed submodules
    ignored: list[str]
    staged: list[str]  #: uncommitted paths whose content is staged completely
    unstaged: list[str]  #: uncommitted paths of which nothing is staged
    modified: list[str]  #: unstaged paths of which only the content differs
    left_out: frozenset[str] = (
        frozenset()
    )  #: paths that nobody has changed, so not uncommitted (see falsely_changed_files.py)


async def read_status(place: RegisteredWorktree, extra: Mapping[str, str] | None = None) -> Status:
    """Return the worktree's status, as `git status` reports it."""
    lines = split_names(await place.git("status", *_FORM, *_ALL, extra=extra))
    headers = {line.split(" ")[1]: line.split(" ")[2] for line in lines if line.startswith("# branch.")}
    head = headers["branch.oid"]
    branch = headers["branch.head"]
    changed = [line.split(" ", 8) for line in lines if line.startswith("1 ")]  # 1 XY submodule modes and ids path
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


async def stage(
    place: RegisteredWorktree, status: Status, warnings: list[str], aside: Mapping[str, str] | None = None
) -> str:
    """Stage all uncommitted files, except nested repositories.

    Return the tree of the index.

    Args:
        warnings: A sentence is appended if some files can't be staged.
        aside: Variables for git that name another index and another folder for new objects.
    """
    # For a submodule, git would start another git, which reads the submodule's own configuration.
    rows = split_names(await place.git("ls-files", "-z", "--stage", extra=aside))
    await _resolve_to_ours(place, rows, aside)
    submodules = [row.partition("\t")[2] for row in rows if row.startswith(f"{SUBMODULE} ")]
    others = {*status.repositories, *submodules}
    if status.left_out:
        own = sorted({*status.uncommitted}.difference(status.staged, others))
        paths = join_names(f":(top,literal){name}" for name in own)
    else:
        paths = join_names([".", *(f":(top,exclude,literal){name}" for name in sorted(others))])
    quick = NO_FSYNC if aside or len(status.uncommitted) > _MANY else ()
    add = (*quick, "-c", "core.safecrlf=false", "add", "--all", "--sparse", *_BY_STDIN)
    try:
        if paths:  # with no paths, git would add everything
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
    """Stage the files that git can add.

    If attributes make git fail, stage the rest without attributes.
    """
    try:
        await place.git(*add, stdin=paths, extra=aside)
    except GitError:
        length = len(await place.git("hash-object", "--stdin", stdin=b""))
        with contextlib.suppress(GitError):
            await place.git(*add, stdin=paths, extra={**(aside or {}), "GIT_ATTR_SOURCE": EMPTY_TREES[length]})


async def _resolve_to_ours(place: RegisteredWorktree, rows: Sequence[str], aside: Mapping[str, str] | None) -> None:
    """Resolve each conflict in the index to our side, else theirs, else the base.

    git can't write a tree while the index has conflicts. Ordinary files are then added as they are in the worktree.
    Submodules keep the resolved entry.
    """
    entries = (row.partition("\t")[::2] for row in rows)  # mode, id and stage; path
    unmerged = sorted(((how, path) for how, path in entries if how[-1] != "0"), key=lambda one: "132".index(one[0][-1]))
    if unmerged:
        chosen = {path: f"{how[:-2]}\t{path}" for how, path in unmerged}
        await place.git("update-index", "-z", "--index-info", stdin=join_names(chosen.values()), extra=aside)
