"""Nested repositories: repositories and worktrees inside an agent's worktree or its git folder.

They are recognized by their files, also in ignored folders, where `git status` doesn't look: a `.git`, a bare
repository, a submodule's git folder, or a registered worktree of the agent's repository.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from forkjoin.core.regular_file import is_gone
from forkjoin.git.git_folder import common_dir_path, follow_git_link
from forkjoin.git.worktrees.worktree import MARK
from forkjoin.git.worktrees.worktree_folder import (
    find_nested_worktrees,
    git_folder,
    is_folder,
    list_git_folders,
    resolve_parent,
)

#: The entries by which a git folder is recognized (gitrepository-layout(5)).
_GIT_FOLDER = frozenset({"HEAD", "objects", "refs"})
#: The entries of a git folder in which no nested repository is looked for.
_SKIPPED = frozenset({"objects", "refs", "logs"})


@dataclass(frozen=True, slots=True)
class NestedRepository:
    """A repository or worktree inside an agent's worktree or its git folder."""

    name: str  #: for messages: the path in the agent's worktree, or an absolute path
    folder: Path  #: the git folder with its HEAD and index
    common: Path  #: the git folder with its objects and refs; the same for a repository that is no linked worktree
    tree: Path | None  #: the folder of its files; `None` if it is bare or its files are gone
    #: Whether its objects and refs are deleted with the agent's worktree. If not, only its HEAD, index and files are.
    is_deleted_with_worktree: bool
    shares_agents_objects: bool = False  #: whether its objects and refs are those of the agent's repository


@dataclass(frozen=True, slots=True)
class RemovedFolders:
    """The folders that are deleted together with an agent's worktree."""

    common_dir: str  #: the common git folder of the agent's repository
    worktree: Path  #: the agent's worktree
    folder: Path | None  #: the git folder of the agent's worktree; `None` if it is not registered
    linked: list[tuple[Path, Path]]  #: the worktrees of the agent's repository below `worktree`, and their git folders
    agents_folders: list[Path]  #: the worktrees of all agents in the agent's repository, and their git folders

    def has(self, path: Path) -> bool:
        """Return whether a path is deleted with the agent's worktree. Blocks."""
        tops = [self.worktree, *([self.folder] if self.folder else []), *(folder for _, folder in self.linked)]
        return _is_within_any(path, tops)

    def is_deleted_with_agents(self, path: Path) -> bool:
        """Return whether a path is deleted with this or another agent's worktree. Blocks."""
        return self.has(path) or _is_within_any(path, self.agents_folders)


def _is_within_any(path: Path, tops: Iterable[Path]) -> bool:
    """Return whether a path is one of several folders, or below one of them."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(resolve_parent(top)) for top in tops)


def find_removed_folders(common_dir: str, worktree: Path) -> RemovedFolders:
    """Return the folders that are deleted together with an agent's worktree. Blocks."""
    agents_folders = [top for both in list_git_folders(common_dir) if os.path.lexists(both[1] / MARK) for top in both]
    linked = find_nested_worktrees(common_dir, worktree)
    return RemovedFolders(common_dir, worktree, git_folder(common_dir, worktree), linked, agents_folders)


#: The nested repositories, by the real path of their git folder, then by that of their files. Several folders of files
#: may have the same git folder: if a worktree is copied, the copy's `.git` leads to it too.
_Found = dict[str, dict[str, NestedRepository]]


def find_nested(removed: RemovedFolders) -> tuple[list[NestedRepository], list[Path]]:
    """Find the nested repositories of an agent's worktree. Blocks.

    Returns:
        The nested repositories, and the folders in which none can be looked for, because this user can't read them.
    """
    found: _Found = {}
    tops = [folder for _, folder in removed.linked]
    for tree, folder in removed.linked:
        _add(found, removed, tree if is_folder(tree) else None, folder)
    if is_folder(removed.worktree):
        tops.insert(0, removed.worktree)
    tops += [removed.folder] if removed.folder else []
    bare: list[Path] = []
    unreadable: list[Path] = []
    for top in tops:
        for above, names in walk(top):
            if names is None:
                unreadable.append(above)
                continue
            try:
                if ".git" in names:
                    _add_link(found, removed, above)
            except PermissionError:
                unreadable.append(above / ".git")
            if names >= _GIT_FOLDER and above.name != ".git":
                bare.append(above)
    for folder in bare:  # after the others: a repository with files comes before the same one without
        _add(found, removed, None, folder)
    return [nested for trees in found.values() for nested in trees.values()], unreadable


def _add_link(found: _Found, removed: RemovedFolders, tree: Path) -> None:
    """Add the repository that the `.git` in a folder is or leads to.

    The git folder of the agent's own worktree is not added.

    Args:
        found: The nested repositories found so far.
        removed: The folders that are deleted with the agent's worktree.
        tree: The folder.
    """
    folder = follow_git_link(tree / ".git")
    if folder is None:
        return
    if tree != removed.worktree:
        _add(found, removed, tree, folder)
    elif removed.folder is None or not folder.samefile(removed.folder):
        # The agent replaced the `.git` of its worktree. The files there belong to the worktree, not to that repository.
        _add(found, removed, None, folder)


def _add(found: _Found, removed: RemovedFolders, tree: Path | None, folder: Path) -> None:
    """Add the repository of a git folder, if part of it is deleted with the worktree.

    Args:
        found: The nested repositories found so far.
        removed: The folders that are deleted with the agent's worktree.
        tree: The folder with the repository's files, or `None`.
        folder: The git folder. Without a HEAD it is ignored.
    """
    if is_gone(folder / "HEAD"):
        return
    common = common_dir_path(folder)
    shares = os.path.realpath(common) == os.path.realpath(removed.common_dir)
    nested = NestedRepository(_name_of(removed, tree, folder), folder, common, tree, removed.has(common), shares)
    if nested.is_deleted_with_worktree or tree or removed.has(folder):
        trees = found.setdefault(os.path.realpath(folder), {})
        if tree or not trees:
            trees.setdefault(os.path.realpath(tree) if tree else "", nested)


def _name_of(removed: RemovedFolders, tree: Path | None, folder: Path) -> str:
    for path in (tree, folder):
        if path and path.is_relative_to(removed.worktree):
            return str(path.relative_to(removed.worktree))
    if removed.folder and folder.is_relative_to(removed.folder):
        return str(folder.relative_to(removed.folder))
    return str(tree or folder)


def walk(top: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """Walk `top` and the folders below it, without following symlinks. Blocks.

    The objects, refs and logs of git folders are skipped. Yield each folder with the names of its entries, or with
    `None` if this user can't read the folder.
    """
    waiting = [str(top)]
    while waiting:
        above = waiting.pop()
        try:
            with os.scandir(above) as entries:
                inside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except FileNotFoundError:  # a program has deleted the folder since its parent was read
            continue
        except OSError:
            yield Path(above), None
            continue
        if inside and not os.access(
            above, os.X_OK, effective_ids=True
        ):  # this user can list the entries, but not open them
            yield Path(above), None
            continue
        names = {name for name, _ in inside}
        skipped = _SKIPPED if names >= _GIT_FOLDER else frozenset[str]()
        waiting += [f"{above}/{name}" for name, is_dir in inside if is_dir and name not in skipped]
        yield Path(above), names
