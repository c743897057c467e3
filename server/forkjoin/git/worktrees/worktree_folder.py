"""Where git keeps a worktree; and that worktree as git is told of it, whatever the worktree's own `.git` says.

A program that has run in it may have left anything there. So its git folder is found from the repository's side and
named outright in every call: neither a `.git` that is gone or replaced nor a repository around it leads git astray.
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

#: In a worktree's git folder: what is shared with it.
_IGNORE = "forkjoin-ignore"
#: What git opens wherever it comes by, were it a pipe.
_OPENED = frozenset({".gitignore", ".gitattributes", ".gitmodules"})


@dataclass(frozen=True, slots=True)
class RegisteredWorktree:
    """A worktree that its repository knows."""

    common_dir: str
    folder: Path  #: its git folder
    path: Path
    ignores: bool = False  #: whether what is shared with it is listed in `ignore`

    @property
    def ignore(self) -> Path:
        """What git is told of as core.excludesFile there, and so is no work of an agent (see share.py)."""
        return self.folder / _IGNORE

    @property
    def variables(self) -> dict[str, str]:
        """What tells git of it."""
        return {"GIT_DIR": str(self.folder), "GIT_COMMON_DIR": self.common_dir, "GIT_WORK_TREE": str(self.path)}

    async def git(self, *arguments: str, stdin: bytes | None = None, extra: Mapping[str, str] | None = None) -> str:
        ignore = ("-c", f"core.excludesFile={self.ignore}") if self.ignores else ()
        return await git.output(self.path, *ignore, *arguments, stdin=stdin, extra={**self.variables, **(extra or {})})


async def find_registered_worktree(common_dir: str, path: Path) -> RegisteredWorktree | None:
    """The worktree at `path`, whatever became of that; none where its repository knows it no more."""
    folder = await to_thread.run_sync(git_folder, common_dir, path)
    if folder is None:
        return None
    return RegisteredWorktree(common_dir, folder, path, ignores=await to_thread.run_sync((folder / _IGNORE).is_file))


def git_folder(common_dir: str, path: Path) -> Path | None:
    """The folder that stands for the worktree at `path` in its repository, whatever became of the worktree itself.

    Its file `gitdir` names the worktree's `.git` (gitrepository-layout(5)).
    """
    wanted = resolve_parent(path)
    likely = Path(common_dir, "worktrees", path.name)  # git calls it after the path, if it can
    if worktree_path_of(likely) == wanted:
        return likely
    return next((folder for where, folder in list_git_folders(common_dir) if where == wanted), None)


def resolve_parent(path: Path) -> Path:
    """Return the real path at which something stands, and not where it leads: an agent can put a symlink there."""
    return Path(os.path.realpath(path.parent), path.name)


def find_nested_worktrees(common_dir: str, path: Path) -> list[tuple[Path, Path]]:
    """Return the other worktrees that stand within the worktree at `path`, and their git folders."""
    top = resolve_parent(path)
    within = ((where, folder) for where, folder in list_git_folders(common_dir) if top in where.parents)
    return [] if top.is_symlink() else list(within)


def list_git_folders(common_dir: str, *, strict: bool = False) -> Iterator[tuple[Path, Path]]:
    """Every worktree but the main one, with its git folder.

    Args:
        strict: Whether to raise PermissionError at one that this user may not read; else it is left out.
    """
    with contextlib.suppress(FileNotFoundError):
        for folder in Path(common_dir, "worktrees").iterdir():
            if where := worktree_path_of(folder, strict=strict):
                yield where, folder


def worktree_path_of(folder: Path, *, strict: bool = False) -> Path | None:
    """Where the worktree stands that this git folder is of."""
    link = read_line(folder / "gitdir", strict=strict)
    return Path(os.path.normpath(folder / link)).parent if link else None  # relative with worktree.useRelativePaths


def is_linked(path: Path, folder: Path) -> bool:
    """Whether the `.git` of the worktree at `path` leads to its git folder, as it does unless somebody meddled."""
    link = read_gitfile(path / ".git")
    if link is None or (path / ".git").is_symlink():
        return False
    return os.path.realpath(link) == os.path.realpath(folder)


def is_folder(path: Path) -> bool:
    """Whether the worktree at `path` is there, and no symlink that somebody put in its place."""
    return not is_gone(path) and stat.S_ISDIR(path.lstat().st_mode)


def is_locked(common_dir: str, path: Path) -> bool:
    """Whether somebody has said `git worktree lock` to the worktree at `path`."""
    folder = git_folder(common_dir, path)
    return folder is not None and (folder / "locked").exists()


def find_irregular_files(top: Path) -> list[Path]:
    """The pipes, and the like, that git would wait at in a worktree."""
    named = (Path(above, name) for above, _, names in os.walk(top) for name in _OPENED.intersection(names))
    return sorted(file for file in named if not (file.is_symlink() or file.is_file()))  # git follows no such symlink


def remove_pipes(top: Path) -> list[str]:
    """Remove them from a worktree in which nothing runs; their names."""
    found = find_irregular_files(top)
    for file in found:
        file.unlink(missing_ok=True)
    return [str(file.relative_to(top)) for file in found]
