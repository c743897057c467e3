"""How an agent's worktree stands, as `git status` tells it."""

from dataclasses import dataclass

from forkjoin.branch import git
from forkjoin.branch.place import Place

_FORM = ("--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=dirty")


@dataclass(frozen=True, slots=True)
class Status:
    """What is in a worktree beside its commit."""

    head: str | None  #: the commit that HEAD is at; none where its branch is gone
    branch: str | None  #: the short name of the branch that HEAD is on; none where it is detached
    loose: list[str]  #: paths that differ from HEAD, new ones too
    unmerged: list[str]  #: those of them that are in conflict
    repositories: list[str]  #: folders that are repositories of their own, and changed: new ones, and submodules
    ignored: list[str]


async def read_status(place: Place) -> Status:
    lines = git.names_in(await place.git("status", *_FORM, "--untracked-files=all", "--ignored=matching"))
    said = {line.split(" ")[1]: line.split(" ")[2] for line in lines if line.startswith("# branch.")}
    head, branch = said["branch.oid"], said["branch.head"]
    changed = [line.split(" ", 8) for line in lines if line.startswith("1 ")]  # 1 XY submodule modes and ids path
    submodules = [path for _, state, kind, *_, path in changed if kind != "N..." and state[1] != "."]
    unmerged = [line.split(" ", 10)[10] for line in lines if line.startswith("u ")]
    new = [line[2:] for line in lines if line.startswith("? ")]
    return Status(
        head=None if head == "(initial)" else head,
        branch=None if branch == "(detached)" else branch,
        loose=[*(fields[8] for fields in changed), *unmerged, *(name for name in new if not name.endswith("/"))],
        unmerged=unmerged,
        repositories=[*submodules, *(name for name in new if name.endswith("/"))],
        ignored=[line[2:] for line in lines if line.startswith("! ")],
    )
