"""Git folders of submodules, in the repository's own git folder, in its checkout and in its other worktrees."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from forkjoin.git.git_folder import follow_git_link
from forkjoin.git.worktrees.worktree_folder import list_git_folders


@dataclass(frozen=True, slots=True)
class RepositoryFolders:
    """The git folder and the files of a repository or worktree with submodules, or of a submodule."""

    git_dir: Path
    tree: Path | None  #: the folder with the files; `None` if there is none, or it doesn't matter
    is_deleted_with_worktree: bool = False  #: whether the git folder is deleted if the linked worktree around it is


def find_main_and_worktrees(common_dir: str) -> tuple[RepositoryFolders, list[RepositoryFolders]]:
    """Return the folders of a repository itself, and of each of its linked worktrees.

    Blocks.
    """
    top = Path(common_dir)
    main = RepositoryFolders(top, top.parent if top.name == ".git" else None)
    linked = [
        RepositoryFolders(git_dir, tree, is_deleted_with_worktree=True)
        for tree, git_dir in list_git_folders(common_dir)
    ]
    return main, linked


def find_name_problem(git_dir: Path, name: str) -> str | None:
    """Return why a submodule's name is unsafe in a path, or `None` if it is safe.

    Blocks.     git refuses such names too.

    Args:
        git_dir: The git folder of the repository with the submodule.
        name: The submodule's name.

    Returns:
        A clause that continues the sentence "The submodule is called NAME, …".
    """
    parts = re.split(r"[/\\]", name)
    if not name or name.startswith("/") or ".." in parts or "\0" in name:
        return "which leads out of the git folder"
    folder = git_dir
    for part in ("modules", *parts):
        folder /= part
        if folder.is_symlink():
            return "where a symlink stands in the git folder"
    above = [git_dir.joinpath("modules", *parts[:n]) for n in range(1, len(parts))]
    return (
        "which is within the git folder of another submodule" if any((one / "HEAD").exists() for one in above) else None
    )


def find_submodule_folders(owner: RepositoryFolders, name: str, path: str) -> list[Path]:
    """Return the git folders that a repository has for a submodule. Blocks.

    They are in `modules/` or, if an old version of git made them, among the submodule's files.

    Args:
        owner: The repository with the submodule.
        name: The submodule's name.
        path: The submodule's path in the owner's files.

    Returns:
        Two paths at most. An empty list if the submodule was never initialized there.
    """
    inside = owner.tree / path / ".git" if owner.tree else None
    candidates = [owner.git_dir / "modules" / name, *([inside] if inside and not inside.is_symlink() else [])]
    return [folder for folder in candidates if (folder / "HEAD").is_file()]


def find_copies(owners: Sequence[RepositoryFolders], name: str, path: str) -> Iterator[RepositoryFolders]:
    """Yield the git folders that several worktrees have for a submodule. Blocks.

    Args:
        owners: The worktrees, or a repository itself.
        name: The submodule's name.
        path: The submodule's path in the worktrees' files.
    """
    for owner in owners:
        git_dir = None
        with contextlib.suppress(PermissionError):  # a folder that this user can't read is of no use
            git_dir = follow_git_link(owner.tree / path / ".git") if owner.tree else None
        if owner.tree and git_dir:
            real = Path(os.path.realpath(git_dir))
            is_inside = any(real.is_relative_to(os.path.realpath(top)) for top in (owner.git_dir, owner.tree))
            yield RepositoryFolders(git_dir, owner.tree / path, owner.is_deleted_with_worktree and is_inside)
        for folder in find_submodule_folders(RepositoryFolders(owner.git_dir, None), name, path):
            yield RepositoryFolders(folder, None, owner.is_deleted_with_worktree)
