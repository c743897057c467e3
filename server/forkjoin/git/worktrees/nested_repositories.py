"""Repositories and worktrees inside an agent's worktree or its git folder.

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
#: The entries of a git folder that contain no other git folder.
_PLAIN = frozenset({"objects", "refs", "logs"})


@dataclass(frozen=True, slots=True)
class Nested:
    """A nested repository or worktree."""

    name: str  #: its name in messages
    folder: Path  #: its git folder, with HEAD and the index
    common: Path  #: the git folder with objects and refs
    tree: Path | None  #: the folder of its files; `None` if it is bare or its files are gone
    #: Whether its objects and refs are deleted with the agent's worktree. If not, only HEAD, index and files are.
    is_deleted_with_worktree: bool
    shares_agents_objects: bool = False  #: whether its objects and refs are those of the agent's repository


@dataclass(frozen=True, slots=True)
class Within:
    """The folders that are removed together with an agent's worktree."""

    common_dir: str
    worktree: Path
    folder: Path | None  #: its git folder
    linked: list[tuple[Path, Path]]  #: nested worktrees of the agent's repository, with their git folders
    others: list[Path]  #: the worktrees of all agents of its repository, and their git folders

    def has(self, path: Path) -> bool:
        """Return whether a path is removed with the agent's worktree."""
        tops = [self.worktree, *([self.folder] if self.folder else []), *(folder for _, folder in self.linked)]
        return _is_within_any(path, tops)

    def is_deleted_with_agents(self, path: Path) -> bool:
        """Return whether a path is removed with this or another agent's worktree."""
        return self.has(path) or _is_within_any(path, self.others)


def _is_within_any(path: Path, tops: Iterable[Path]) -> bool:
    real = os.path.realpath(path)
    return any(is_within(real, str(resolve_parent(top))) for top in tops)


def is_within(path: str, top: str) -> bool:
    """Return whether one real path equals the other, or is below it."""
    return path == top or path.startswith(f"{top}/")


def find_within(common_dir: str, worktree: Path) -> Within:
    """Return the folders that are removed together with a worktree. Blocks."""
    others = [top for both in list_git_folders(common_dir) if os.path.lexists(both[1] / MARK) for top in both]
    linked = find_nested_worktrees(common_dir, worktree)
    return Within(common_dir, worktree, git_folder(common_dir, worktree), linked, others)


#: By the real path of the git folder, then by that of the files: a copied tree's `.git` leads to the same git folder.
_Found = dict[str, dict[str, Nested]]


def find_nested(within: Within) -> tuple[list[Nested], list[Path]]:
    """Find nested repositories, worktrees and unreadable folders. Blocks."""
    found: _Found = {}
    tops = [folder for _, folder in within.linked]
    for tree, folder in within.linked:
        _add(found, within, tree if is_folder(tree) else None, folder)
    if is_folder(within.worktree):
        tops.insert(0, within.worktree)
    tops += [within.folder] if within.folder else []
    bare: list[Path] = []
    closed: list[Path] = []
    for top in tops:
        for above, names in walk(top):
            if names is None:
                closed.append(above)
                continue
            try:
                if ".git" in names:
                    _add_link(found, within, above)
            except PermissionError:
                closed.append(above / ".git")
            if names >= _GIT_FOLDER and above.name != ".git":
                bare.append(above)
    for folder in bare:  # last, because a repository that a `.git` leads to has files
        _add(found, within, None, folder)
    return [nested for trees in found.values() for nested in trees.values()], closed


def _add_link(found: _Found, within: Within, tree: Path) -> None:
    """Add the repository that a folder's `.git` points to.

    The agent's own git folder is not added.
    """
    folder = follow_git_link(tree / ".git")
    if folder is None:
        return
    if tree != within.worktree:
        _add(found, within, tree, folder)
    elif within.folder is None or not folder.samefile(within.folder):  # the files there are the agent's own
        _add(found, within, None, folder)


def _add(found: _Found, within: Within, tree: Path | None, folder: Path) -> None:
    if is_gone(folder / "HEAD"):
        return
    common = common_dir_path(folder)
    shares = _is_same(common, Path(within.common_dir))
    nested = Nested(_name_of(within, tree, folder), folder, common, tree, within.has(common), shares)
    if nested.is_deleted_with_worktree or tree or within.has(folder):
        trees = found.setdefault(os.path.realpath(folder), {})
        if tree or not trees:
            trees.setdefault(os.path.realpath(tree) if tree else "", nested)


def _name_of(within: Within, tree: Path | None, folder: Path) -> str:
    for path in (tree, folder):
        if path and path.is_relative_to(within.worktree):
            return str(path.relative_to(within.worktree))
    if within.folder and folder.is_relative_to(within.folder):
        return str(folder.relative_to(within.folder))
    return str(tree or folder)


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def walk(top: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """Walk `top` and the folders below it, without following symlinks.

    Yield each folder with the names of its entries, or with `None` if the folder can't be read.
    """
    waiting = [str(top)]
    while waiting:
        above = waiting.pop()
        try:
            with os.scandir(above) as entries:
                inside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except FileNotFoundError:  # deleted meanwhile
            continue
        except OSError:
            yield Path(above), None
            continue
        if inside and not os.access(above, os.X_OK, effective_ids=True):  # its entries can't be opened
            yield Path(above), None
            continue
        names = {name for name, _ in inside}
        plain = _PLAIN if names >= _GIT_FOLDER else frozenset[str]()
        waiting += [f"{above}/{name}" for name, is_dir in inside if is_dir and name not in plain]
        yield Path(above), names
