"""A worktree and its git folder, found from the repository's side.

An agent's program may have changed or deleted the worktree's `.git`. The git folder is therefore looked up in the
repository and passed to every git call, so that neither a wrong `.git` nor an enclosing repository misleads git.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import is_gone, read_line
from forkjoin.git import git
from forkjoin.git.git_folder import read_gitfile

#: The ignore file in a worktree's git folder. It lists the paths shared with the worktree.
_IGNORE = "forkjoin-ignore"
#: The files that git opens in any folder, even if they are pipes, at which it would block.
_OPENED = frozenset({".gitignore", ".gitattributes", ".gitmodules"})


@dataclass(frozen=True, slots=True)
class RegisteredWorktree:
    """A worktree that is registered in its repository."""

    common_dir: str
    folder: Path  #: the git folder
    path: Path
    ignores: bool = False  #: whether the file `ignore` exists

    @property
    def ignore(self) -> Path:
        """The ignore file that keeps shared files from counting as an agent's work."""
        return self.folder / _IGNORE

    @property
    def variables(self) -> dict[str, str]:
        """The variables that point git to this worktree."""
        return {"GIT_DIR": str(self.folder), "GIT_COMMON_DIR": self.common_dir, "GIT_WORK_TREE": str(self.path)}

    async def git(self, *arguments: str, stdin: bytes | None = None, extra: Mapping[str, str] | None = None) -> str:
        ignore = ("-c", f"core.excludesFile={self.ignore}") if self.ignores else ()
        return await git.output(self.path, *ignore, *arguments, stdin=stdin, extra={**self.variables, **(extra or {})})


async def find_registered_worktree(common_dir: str, path: Path) -> RegisteredWorktree | None:
    """Return the worktree that is registered at `path`, or `None`.

    A registered worktree is also returned if its files are gone.
    """
    folder = await to_thread.run_sync(git_folder, common_dir, path)
    if folder is None:
        return None
    return RegisteredWorktree(common_dir, folder, path, ignores=await to_thread.run_sync((folder / _IGNORE).is_file))


def git_folder(common_dir: str, path: Path) -> Path | None:
    """Return the git folder of the worktree registered at `path`, or `None`. Blocks.

    The worktree's files may be gone. The file `gitdir` in it names the worktree's `.git` (gitrepository-layout(5)).
    """
    wanted = resolve_parent(path)
    likely = Path(common_dir, "worktrees", path.name)  # git names the folder after the path, if that is free
    if worktree_path_of(likely) == wanted:
        return likely
    return next((folder for where, folder in list_git_folders(common_dir) if where == wanted), None)


def resolve_parent(path: Path) -> Path:
    """Return `path` with symlinks in its parent folders resolved.

    The last part stays as it is, because an agent can put a symlink there.
    """
    return Path(os.path.realpath(path.parent), path.name)


def find_nested_worktrees(common_dir: str, path: Path) -> list[tuple[Path, Path]]:
    """Return the path and git folder of each registered worktree below `path`."""
    top = resolve_parent(path)
    within = ((where, folder) for where, folder in list_git_folders(common_dir) if top in where.parents)
    return [] if top.is_symlink() else list(within)


def list_git_folders(common_dir: str, *, strict: bool = False) -> Iterator[tuple[Path, Path]]:
    """Yield the path and git folder of each worktree, except the main one. Blocks.

    Args:
        strict: Whether to raise PermissionError for a git folder that this user may not read, instead of omitting it.
    """
    with contextlib.suppress(FileNotFoundError):
        for folder in Path(common_dir, "worktrees").iterdir():
            if where := worktree_path_of(folder, strict=strict):
                yield where, folder


def worktree_path_of(folder: Path, *, strict: bool = False) -> Path | None:
    """Return the path of the worktree that a git folder belongs to.

    Return `None` if the folder's `gitdir` file can't be read.
    """
    link = read_line(folder / "gitdir", strict=strict)
    return (
        Path(os.path.normpath(folder / link)).parent if link else None
    )  # the link is relative with worktree.useRelativePaths


def is_linked(path: Path, folder: Path) -> bool:
    """Return whether the `.git` of the worktree at `path` points to its git folder.

    A program may have changed it.
    """
    link = read_gitfile(path / ".git")
    if link is None or (path / ".git").is_symlink():
        return False
    return os.path.realpath(link) == os.path.realpath(folder)


def is_folder(path: Path) -> bool:
    """Return whether a folder exists at `path`. A symlink to a folder doesn't count."""
    return not is_gone(path) and stat.S_ISDIR(path.lstat().st_mode)


def is_locked(common_dir: str, path: Path) -> bool:
    """Return whether the worktree at `path` is locked with `git worktree lock`."""
    folder = git_folder(common_dir, path)
    return folder is not None and (folder / "locked").exists()


def find_irregular_files(top: Path) -> list[Path]:
    """Return the pipes and other irregular files at which git would block."""
    named = (Path(above, name) for above, _, names in os.walk(top) for name in _OPENED.intersection(names))
    return sorted(
        file for file in named if not (file.is_symlink() or file.is_file())
    )  # git doesn't follow symlinks of these names


def remove_pipes(top: Path) -> list[str]:
    """Remove the files at which git would block.

    Return their names, relative to the worktree. No program may be running in the worktree.
    """
    found = find_irregular_files(top)
    for file in found:
        file.unlink(missing_ok=True)
    return [str(file.relative_to(top)) for file in found]
