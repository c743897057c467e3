"""A worktree's own git folder, found among the git folders that its repository lists.

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

#: The name of the ignore file in a worktree's git folder. The file lists the paths shared with the worktree.
_IGNORE = "forkjoin-ignore"
#: The files that git opens in every folder of a worktree. If such a file is a named pipe, git blocks on it.
_FILES_GIT_OPENS = frozenset({".gitignore", ".gitattributes", ".gitmodules"})


@dataclass(frozen=True, slots=True)
class RegisteredWorktree:
    """A linked worktree that is registered in its repository."""

    common_dir: str
    folder: Path  #: the worktree's own git folder, `<common_dir>/worktrees/<name>`
    path: Path  #: the folder of the worktree's files
    has_ignore_file: bool = False

    @property
    def ignore_file(self) -> Path:
        """The ignore file, because of which shared files don't count as an agent's work."""
        return self.folder / _IGNORE

    @property
    def variables(self) -> dict[str, str]:
        """The variables that point git to this worktree."""
        return {"GIT_DIR": str(self.folder), "GIT_COMMON_DIR": self.common_dir, "GIT_WORK_TREE": str(self.path)}

    async def git(self, *arguments: str, stdin: bytes | None = None, extra: Mapping[str, str] | None = None) -> str:
        """Run git in this worktree, with its ignore file, as `git.output` does.

        Return git's stdout.
        """
        ignore = ("-c", f"core.excludesFile={self.ignore_file}") if self.has_ignore_file else ()
        return await git.output(self.path, *ignore, *arguments, stdin=stdin, extra={**self.variables, **(extra or {})})


async def find_registered_worktree(common_dir: str, path: Path) -> RegisteredWorktree | None:
    """Return the worktree that is registered at `path`, or `None` if none is.

    A registered worktree is returned even if its files are gone.
    """

    def find() -> RegisteredWorktree | None:
        folder = git_folder(common_dir, path)
        return RegisteredWorktree(common_dir, folder, path, (folder / _IGNORE).is_file()) if folder else None

    return await to_thread.run_sync(find)


async def find_worktree_with_files(common_dir: str, path: Path) -> RegisteredWorktree | None:
    """Return the worktree that is registered at `path`, if its folder exists."""
    place = await find_registered_worktree(common_dir, path)
    has_files = await to_thread.run_sync(is_folder, path)
    return place if has_files else None


def git_folder(common_dir: str, path: Path) -> Path | None:
    """Return the git folder of the worktree registered at `path`, or `None`. Blocks.

    The worktree's files may be gone. Each git folder names the `.git` of its worktree in a file `gitdir`
    (gitrepository-layout(5)).
    """
    wanted = resolve_parent(path)
    likely = Path(common_dir, "worktrees", path.name)  # git prefers the name of the path
    if worktree_path_of(likely) == wanted:
        return likely
    return next((folder for where, folder in list_git_folders(common_dir) if where == wanted), None)


def git_folder_of_checkout(common_dir: str, checkout: Path) -> Path:
    """Return the git folder of a checkout, which may be the main worktree. Blocks."""
    return git_folder(common_dir, checkout) or Path(common_dir)


def resolve_parent(path: Path) -> Path:
    """Return `path` with symlinks in its parent folders resolved.

    The last part of `path` is not resolved, because an agent can replace its worktree by a symlink.
    """
    return Path(os.path.realpath(path.parent), path.name)


def find_nested_worktrees(common_dir: str, path: Path) -> list[tuple[Path, Path]]:
    """Return the path and the git folder of each registered worktree below `path`.

    Blocks. Return an empty list if `path` is a symlink.
    """
    top = resolve_parent(path)
    nested = ((where, folder) for where, folder in list_git_folders(common_dir) if top in where.parents)
    return [] if top.is_symlink() else list(nested)


def list_git_folders(common_dir: str, *, strict: bool = False) -> Iterator[tuple[Path, Path]]:
    """Yield the path and the git folder of each linked worktree. Blocks.

    Args:
        strict: Whether to raise PermissionError for a git folder that this user may not read, instead of omitting it.
    """
    with contextlib.suppress(FileNotFoundError):
        for folder in Path(common_dir, "worktrees").iterdir():
            if where := worktree_path_of(folder, strict=strict):
                yield where, folder


def worktree_path_of(folder: Path, *, strict: bool = False) -> Path | None:
    """Return the path of the worktree that a git folder belongs to. Blocks.

    Return `None` if the folder's `gitdir` file can't be read.

    Args:
        folder: The worktree's git folder.
        strict: As for `list_git_folders`.
    """
    link = read_line(folder / "gitdir", strict=strict)
    # With worktree.useRelativePaths, git writes the link relative to the git folder.
    return Path(os.path.normpath(folder / link)).parent if link else None


def is_linked(path: Path, folder: Path) -> bool:
    """Return whether the `.git` of the worktree at `path` points to `folder`. Blocks.

    An agent's program may have changed `.git`. A symlink counts as changed.
    """
    link = read_gitfile(path / ".git")
    if link is None or (path / ".git").is_symlink():
        return False
    return os.path.realpath(link) == os.path.realpath(folder)


def is_folder(path: Path) -> bool:
    """Return whether a folder exists at `path`. A symlink to a folder doesn't count."""
    return not is_gone(path) and stat.S_ISDIR(path.lstat().st_mode)


def is_locked(common_dir: str, path: Path) -> bool:
    """Return whether the worktree at `path` is locked with `git worktree lock`.

    Blocks.
    """
    folder = git_folder(common_dir, path)
    return folder is not None and (folder / "locked").exists()


def find_irregular_files(top: Path) -> list[Path]:
    """Return the files below `top` on which git would block, such as named pipes.

    Blocks.
    """
    # A symlink is harmless: git follows no symlink of these names.
    named = (Path(above, name) for above, _, names in os.walk(top) for name in _FILES_GIT_OPENS.intersection(names))
    return sorted(file for file in named if not (file.is_symlink() or file.is_file()))


def remove_pipes(top: Path) -> list[str]:
    """Remove the files in a worktree on which git would block. Blocks.

    The caller ensures that no program runs in the worktree.

    Returns:
        The removed files' paths, relative to `top`.
    """
    found = find_irregular_files(top)
    for file in found:
        file.unlink(missing_ok=True)
    return [str(file.relative_to(top)) for file in found]
