"""What is in a worktree beside its commit, and staging all of it."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forkjoin.core.error import GitError, GitRefusedError
from forkjoin.git.changed_paths import SUBMODULE
from forkjoin.git.file_names import join_names, split_names
from forkjoin.git.objects import sync_objects
from forkjoin.git.safe_options import NO_FSYNC
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree

#: Of more loose paths than this, the objects are put on disk together: one by one takes milliseconds for each.
_MANY = 100
#: How git is to tell of a worktree.
_FORM = ("--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=dirty")
_ALL = ("--untracked-files=all", "--ignored=matching")
#: The tree without files, by the length of an id.
EMPTY_TREES = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
#: How git is told of paths.
_BY_STDIN = ("--pathspec-from-file=-", "--pathspec-file-nul")


@dataclass(frozen=True, slots=True)
class Status:
    """What is in a worktree beside its commit."""

    head: str | None  #: the commit that HEAD is at; none where its branch is gone
    branch: str | None  #: the short name of the branch that HEAD is on; none where it is detached
    uncommitted: list[str]  #: paths that differ from HEAD, new ones too
    unmerged: list[str]  #: those of them that are in conflict
    repositories: list[str]  #: folders that are repositories of their own, and changed: new ones, and submodules
    ignored: list[str]
    staged: list[str]  #: those loose paths that are in the index as they are in the worktree
    unstaged: list[str]  #: those of which nothing is staged
    modified: list[str]  #: those of the unstaged that differ in content alone
    left_out: frozenset[str] = frozenset()  #: paths that are nobody's work (see untouched.py), and not loose


async def read_status(place: RegisteredWorktree, extra: Mapping[str, str] | None = None) -> Status:
    """How an agent's worktree stands, as `git status` tells it."""
    lines = split_names(await place.git("status", *_FORM, *_ALL, extra=extra))
    said = {line.split(" ")[1]: line.split(" ")[2] for line in lines if line.startswith("# branch.")}
    head, branch = said["branch.oid"], said["branch.head"]
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
    """Stage all that is there, but no other repository; the tree it makes.

    Args:
        aside: What tells git of another index, and of another place for objects.
    """
    # Of a submodule git would ask how it stands by a git of its own, which heeds the configuration there.
    rows = split_names(await place.git("ls-files", "-z", "--stage", extra=aside))
    await _settle(place, rows, aside)
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
        if paths:  # else git would take all
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
    """Stage files. Where attributes make git fail, stage the rest without attributes."""
    try:
        await place.git(*add, stdin=paths, extra=aside)
    except GitError:
        length = len(await place.git("hash-object", "--stdin", stdin=b""))
        with contextlib.suppress(GitError):
            await place.git(*add, stdin=paths, extra={**(aside or {}), "GIT_ATTR_SOURCE": EMPTY_TREES[length]})


async def _settle(place: RegisteredWorktree, rows: Sequence[str], aside: Mapping[str, str] | None) -> None:
    """Let all that is in conflict in the index be as on our side there: git adds what is in the worktree, but of that
    no submodule that is left aside, and writes no tree of what is in conflict still."""
    parted = (row.partition("\t")[::2] for row in rows)  # mode, id and stage; path
    unmerged = sorted(((how, path) for how, path in parted if how[-1] != "0"), key=lambda one: "132".index(one[0][-1]))
    if unmerged:
        chosen = {path: f"{how[:-2]}\t{path}" for how, path in unmerged}
        await place.git("update-index", "-z", "--index-info", stdin=join_names(chosen.values()), extra=aside)
