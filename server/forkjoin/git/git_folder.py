"""Git folders and worktrees, found by looking at files, without git.

Agents can write to the configuration and to their worktree's `.git`. So every call names the git folder and the work
tree to git explicitly: neither `core.worktree` nor `core.bare` nor a changed `.git` can lead git elsewhere.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forkjoin.core.error import GitRefusedError
from forkjoin.core.regular_file import read_line

#: Files that git opens in a worktree's own git folder. git would block on one that is a named pipe.
_WORKTREE_FILES = (
    *("HEAD", "commondir", "gitdir", "config.worktree", "index", "logs/HEAD", "info/sparse-checkout", "ORIG_HEAD"),
    *("MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "AUTO_MERGE", "CHERRY_PICK_HEAD", "REVERT_HEAD", "FETCH_HEAD"),
)
#: Files that git opens in the common git folder.
_COMMON_FILES = (
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
#: Those of the files above that don't grow with the repository.
_SMALL_FILES = frozenset(
    {*_WORKTREE_FILES, *(name for name in _COMMON_FILES if not name.startswith("objects/"))}
    - {"index", "packed-refs", "logs/HEAD", "info/sparse-checkout"}
)
#: The number of bytes that each of these small files may have. git reads the whole file, which could fill the memory.
_SMALL_FILE_LIMIT = 16 * 1024 * 1024
#: The beginning of a gitfile (gitrepository-layout(5)).
_GITFILE_PREFIX = "gitdir: "


@dataclass(frozen=True, slots=True)
class Location:
    """The git folder and work tree of a call of git."""

    git_dir: Path  #: the worktree's own git folder
    common_dir: str  #: the common git folder, without symlinks
    work_tree: Path  #: equals `git_dir` if the call is made in the git folder

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name this location to git."""
        common = {} if os.path.realpath(self.git_dir) == self.common_dir else {"GIT_COMMON_DIR": self.common_dir}
        return {"GIT_DIR": str(self.git_dir), "GIT_WORK_TREE": str(self.work_tree), **common}

    def check_usable(self, arguments: Sequence[str]) -> None:
        """Raise GitRefusedError if git would block on a file of a git folder. Blocks.

        The same applies to a file that is too large for git to read.

        Args:
            arguments: The arguments of the call of git, which the error names.
        """
        files = [(self.git_dir, name) for name in _WORKTREE_FILES]
        files += [(Path(self.common_dir), name) for name in _COMMON_FILES]
        for folder, name in files:
            if is_irregular(folder / name):
                problem = "is not a regular file, and git would block on it. Remove it, then call again"
            elif is_oversized(folder, name):
                size = _SMALL_FILE_LIMIT // 1024 // 1024
                problem = f"is larger than {size} MB. Look at it and remove it, then call again"
            else:
                continue
            raise GitRefusedError(arguments, -1, f"{folder / name} {problem}")


def locate(where: Path, variables: Mapping[str, str]) -> Location | None:
    """Return the git folder and work tree of a call of git. Blocks.

    Return `None` if `where` is neither a worktree's root nor a git folder.

    Args:
        where: The folder in which the call is made.
        variables: The call's own variables. Those that name a part of the location override the location on disk.
    """
    where = Path(os.path.abspath(where))  # noqa: PTH100 - symlinks are not resolved
    git_dir = Path(variables["GIT_DIR"]) if "GIT_DIR" in variables else git_dir_at(where)
    if git_dir is None:
        return None
    common_dir = variables.get("GIT_COMMON_DIR") or resolve_common_dir(git_dir)
    return Location(git_dir, common_dir, Path(variables.get("GIT_WORK_TREE", where)))


def find_common_dir(folder: Path) -> str | None:
    """Return the common git folder of the repository around `folder`. Blocks.

    Return `None` if there is no repository.
    """
    folder = folder.resolve()
    for level in (folder, *folder.parents):
        git_dir = git_dir_at(level)
        if git_dir and Path(common_dir := resolve_common_dir(git_dir), "objects").is_dir():
            return common_dir
    return None


def git_dir_at(folder: Path) -> Path | None:
    """Return the git folder of the worktree with the root `folder`. Blocks.

    If `folder` is a git folder itself, return `folder`.

    Return `None` if `folder` is neither. The git folder of a worktree is not checked: its `.git` may name any path.
    """
    link = folder / ".git"
    if link.is_dir():
        return link
    return read_gitfile(link) or (folder if os.path.lexists(folder / "HEAD") else None)


def read_gitfile(file: Path, *, strict: bool = False) -> Path | None:
    """Return the path in a gitfile, or `None` if git would not follow the file.

    A gitfile is the `.git` of a linked worktree or submodule (gitrepository-layout(5)).

    Args:
        file: The gitfile.
        strict: Whether to raise PermissionError if this user may not read the file.
    """
    line = read_line(file, strict=strict) or ""
    return file.parent / line.removeprefix(_GITFILE_PREFIX).rstrip("\r\n") if line.startswith(_GITFILE_PREFIX) else None


def follow_git_link(link: Path) -> Path | None:
    """Return the git folder that a worktree's `.git` is or leads to.

    Return `None` if that folder doesn't exist.

    Raises:
        PermissionError: This user may not read `.git`.
    """
    if link.is_dir():
        return Path(os.path.realpath(link)) if link.is_symlink() else link
    target = read_gitfile(link, strict=True)
    folder = Path(os.path.normpath(target)) if target else None
    return folder if folder and folder.is_dir() else None


def resolve_common_dir(git_dir: Path) -> str:
    """Return the real path of the common git folder of `git_dir`.

    The common git folder has the objects and refs.
    """
    return os.path.realpath(common_dir_path(git_dir))


def common_dir_path(git_dir: Path) -> Path:
    """Return the path of the common git folder, with its symlinks.

    It is the path in the file `commondir`, or `git_dir` without that file.
    """
    return git_dir / (read_line(git_dir / "commondir") or "")


def is_irregular(file: Path) -> bool:
    """Return whether a path leads to a pipe, a device or a socket."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_oversized(git_dir: Path, name: str) -> bool:
    """Return whether a file that should stay small is larger than 16 MB.

    Return False for a file that grows with the repository, and for a missing file.

    Args:
        git_dir: The git folder.
        name: The file's path in the git folder.
    """
    try:
        return name in _SMALL_FILES and (git_dir / name).stat().st_size > _SMALL_FILE_LIMIT
    except OSError:
        return False


def walk_strictly(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk a folder as os.walk does, but raise OSError if one can't be read."""

    def fail(error: OSError) -> None:
        raise error

    return os.walk(top, onerror=fail)
