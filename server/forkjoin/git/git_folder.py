"""The git folder and work tree of a git call, found by the file system alone.

Agents can write to the configuration and to a worktree's `.git`. So every call names both outright: neither
`core.worktree` nor `core.bare`, nor what `.git` has become meanwhile, leads git elsewhere.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forkjoin.core.regular_file import read_line

#: The files that git opens in a worktree's own git folder, and in the common one: were they pipes, it would wait there.
_OWN = (
    *("HEAD", "commondir", "gitdir", "config.worktree", "index", "logs/HEAD", "info/sparse-checkout", "ORIG_HEAD"),
    *("MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "AUTO_MERGE", "CHERRY_PICK_HEAD", "REVERT_HEAD", "FETCH_HEAD"),
)
_COMMON = (
    "config",
    "packed-refs",
    "shallow",
    "info/exclude",
    "info/attributes",
    "info/grafts",
    "objects/info/alternates",
    "objects/info/commit-graph",
    "objects/info/commit-graphs/commit-graph-chain",
    "objects/pack/multi-pack-index",
)
#: Bytes of such a file: git reads it whole, and would fill the memory.
_LARGEST = 16 * 1024 * 1024
#: All but those that grow with the repository.
_SMALL = frozenset(
    {*_OWN, *(name for name in _COMMON if not name.startswith("objects/"))}
    - {"index", "packed-refs", "logs/HEAD", "info/sparse-checkout"}
)
#: How a `.git` begins that is a file (gitrepository-layout(5)).
_LEADS = "gitdir: "


@dataclass(frozen=True, slots=True)
class Location:
    """Where a repository is, and the worktree of it that a call is made in."""

    git_dir: Path
    common_dir: str
    work_tree: Path  #: the git folder itself, where a call is made in that

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which git is told of it."""
        common = {} if os.path.realpath(self.git_dir) == self.common_dir else {"GIT_COMMON_DIR": self.common_dir}
        return {"GIT_DIR": str(self.git_dir), "GIT_WORK_TREE": str(self.work_tree), **common}

    def find_unusable(self) -> str | None:
        """Say what git would open here, and never get to the end of; `None` if there is nothing of the kind."""
        files = [(self.git_dir, name) for name in _OWN] + [(Path(self.common_dir), name) for name in _COMMON]
        for folder, name in files:
            if is_irregular(folder / name):
                what = "not a regular file, and git would block on it"
                return f"{folder / name} is {what}. Remove it, then call again"
            if is_oversized(folder, name):
                size = _LARGEST // 1024 // 1024
                return f"{folder / name} is larger than {size} MB. Look at it and remove it, then call again"
        return None


def locate(where: Path, named: Mapping[str, str]) -> Location | None:
    """Locate a call made in `where`. Return `None` outside a worktree's root.

    Args:
        named: The variables by which the caller has named some of it.
    """
    where = Path(os.path.abspath(where))  # noqa: PTH100 - where a symlink leads is not asked
    git_dir = Path(named["GIT_DIR"]) if "GIT_DIR" in named else _find_git_dir(where)
    if git_dir is None:
        return None
    common_dir = named.get("GIT_COMMON_DIR") or common_dir_of(git_dir)
    return Location(git_dir, common_dir, Path(named.get("GIT_WORK_TREE", where)))


def _find_git_dir(where: Path) -> Path | None:
    link = where / ".git"
    if link.is_dir():
        return link
    return linked_dir(where) or (where if os.path.lexists(where / "HEAD") else None)


def find_common_dir(folder: Path) -> str | None:
    """Return the common git folder of the repository around a folder, by its files alone; None if there is none."""
    folder = folder.resolve()
    for level in (folder, *folder.parents):
        git_dir = _find_git_dir(level)
        if git_dir and Path(common := common_dir_of(git_dir), "objects").is_dir():
            return common
    return None


def linked_dir(worktree: Path) -> Path | None:
    """Return the git folder that a worktree's `.git` leads to, if it is a file that git would follow."""
    line = read_line(worktree / ".git") or ""
    return worktree / line.removeprefix(_LEADS).rstrip("\r\n") if line.startswith(_LEADS) else None


def common_dir_of(git_dir: Path) -> str:
    """Return the common git folder of a worktree's own, or of a common one."""
    return os.path.realpath(git_dir / (read_line(git_dir / "commondir") or ""))


def is_irregular(file: Path) -> bool:
    """Return whether a path is, or links to, something like a pipe or a device."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_oversized(git_dir: Path, name: str) -> bool:
    """Return whether a file of a git folder, one of those that stay small, is too large."""
    try:
        return name in _SMALL and (git_dir / name).stat().st_size > _LARGEST
    except OSError:
        return False
