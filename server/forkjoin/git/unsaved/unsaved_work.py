"""Work that only an agent's worktree has, in nested repositories, submodules and files that git overlooks."""

import itertools
import os
import stat
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError, reason_of
from forkjoin.core.regular_file import read_regular
from forkjoin.git import git
from forkjoin.git.changed_paths import SUBMODULE
from forkjoin.git.file_names import printable, split_names
from forkjoin.git.folder_archive import archive_folders
from forkjoin.git.refs import list_refs
from forkjoin.git.unsaved.remotes import find_remotes
from forkjoin.git.unsaved.submodule_folders import RepositoryFolders, find_submodule_folders
from forkjoin.git.unsaved.unpushed_commits import (
    COMMIT_LIMIT,
    WORKTREE_REFS,
    Tips,
    find_tips,
    list_unsaved_commits,
    walk_files,
)
from forkjoin.git.unsaved.untrusted_repository_reader import (
    RepositoryReader,
    UnreadableError,
    find_alternates,
    open_untrusted,
)
from forkjoin.git.worktrees.hidden_files import show
from forkjoin.git.worktrees.nested_repositories import Nested, Within, find_nested, find_within, walk
from forkjoin.git.worktrees.staging import EMPTY_TREES
from forkjoin.git.worktrees.worktree_folder import find_irregular_files, git_folder, is_folder
from forkjoin.git.worktrees.worktree_repair import MODULES

#: A submodule's mode in an index (gitformat-index(5)).
_GITLINK = (0o160000).to_bytes(4, "big")
#: Untracked files that don't count: a package manager marks a complete clone with them.
_IGNORED_FILES = frozenset({".cargo-ok"})
_IN_SUBMODULES_PLACE = "files in the place of a submodule"
#: Seconds by which a file's time may lag behind the clock.
_CLOCK_LAG_S = 0.02
_STATUS = ("--porcelain=v2", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=all")


@dataclass(frozen=True, slots=True)
class UnsavedWork:
    """Work in a worktree that would be lost with it."""

    name: str  #: a path in the worktree, or a ref
    description: str
    folders: tuple[Path, ...]  #: folders and files that contain all of it
    commits: tuple[str, ...] = ()  #: its commits that are objects of the agent's own repository

    def __str__(self) -> str:
        return f"{printable(self.name)} ({self.description})"


async def find_unsaved_work(common_dir: str, worktree: Path, base: str) -> list[UnsavedWork]:
    """Find work that would be lost with an agent's worktree.

    This is work that no commit of the agent's branch can have.

    Args:
        common_dir: The common git folder of the agent's repository.
        worktree: The agent's worktree.
        base: The commit that the agent started from. The submodule commits that it names are not the agent's.
    """
    within = await to_thread.run_sync(find_within, common_dir, worktree)
    nested, unreadable = await to_thread.run_sync(find_nested, within)
    base_commits = await _find_base_commits(common_dir, base, nested)
    trees = await to_thread.run_sync(lambda: {os.path.realpath(one.tree) for one in nested if one.tree})
    found = await _find_hidden_files(within, trees) + await _find_private_refs(within, base)
    for one in nested:
        found += await _inspect(within, one, {base, base_commits.get(one.name, base)}, trees)
    for folder in unreadable:
        name = folder.relative_to(worktree) if folder.is_relative_to(worktree) else folder
        found.append(UnsavedWork(str(name), "a folder that can't be read", (folder,)))
    return found


async def archive_unsaved(common_dir: str, worktree: Path, found: Sequence[UnsavedWork], name: str) -> str:
    """Archive unsaved work under refs/forkjoin/kept/nested/<name>. Return the ref.

    Raises:
        CallerError: The work can't be archived.
    """
    folders = {folder for work in found for folder in work.folders}
    tops = [folder for folder in folders if folders.isdisjoint(folder.parents)]
    commits = {commit for work in found for commit in work.commits}
    message = f"Work that was only in {worktree.name}: {', '.join(map(str, found))}"
    paths = {_path_in_archive(common_dir, worktree, top): top for top in tops}
    return await archive_folders(common_dir, paths, commits, f"nested/{name}", message)


def find_late_files(common_dir: str, worktree: Path, since: float) -> list[UnsavedWork]:
    """Find files that were created or changed during a removal. Blocks.

    The files are in the worktree or in its submodules.

    Args:
        common_dir: The common git folder of the agent's repository.
        worktree: The worktree.
        since: When the removal began, in seconds since 1970.
    """
    folder = git_folder(common_dir, worktree)
    tops = filter(is_folder, [worktree, *([folder / MODULES] if folder else [])])
    walked = [(above, name) for top in tops for above, *inside in os.walk(top) for name in itertools.chain(*inside)]
    late = tuple(file for above, name in walked if _is_late(file := Path(above, name), since - _CLOCK_LAG_S))
    others = f", with {len(late) - 1} others" if len(late) > 1 else ""
    return [UnsavedWork(late[0].name, f"put there while it was being removed{others}", late)] if late else []


def _is_late(file: Path, since: float) -> bool:
    try:
        found = os.lstat(file)
    except OSError:  # it was deleted, or its folder can't be read
        return False
    # Deleting another hard link of a file changes its ctime.
    changed_at = found.st_ctime if found.st_nlink == 1 else found.st_mtime
    return changed_at >= since and not stat.S_ISDIR(found.st_mode)


def _path_in_archive(common_dir: str, worktree: Path, folder: Path) -> str:
    """Return a folder's path in the archive.

    It starts with the worktree's name, `git-folder` or `elsewhere`.
    """
    if folder.is_relative_to(worktree):
        return str(folder.relative_to(worktree.parent))
    real, top = Path(os.path.realpath(folder)), os.path.realpath(common_dir)
    if real.is_relative_to(top):
        return str(Path("git-folder", real.relative_to(top)))
    return str(Path("elsewhere", *real.parts[1:]))  # e.g. the git folder of another repository's worktree


async def _find_base_commits(common_dir: str, base: str, nested: Sequence[Nested]) -> dict[str, str]:
    """Return the submodule commits that `base` names, by path.

    Only submodules that are nested repositories count.
    """
    names = [one.name for one in nested if one.tree and not Path(one.name).is_absolute()]
    if not names:
        return {}
    arguments = ("ls-tree", "-z", "--full-tree", base, "--", *names)
    try:
        rows = split_names(await git.output(common_dir, *arguments, extra={"GIT_LITERAL_PATHSPECS": "1"}))
    except GitError:
        return {}
    entries = (row.partition("\t")[::2] for row in rows)
    return {path: entry.split(" ")[2] for entry, path in entries if entry.startswith(f"{SUBMODULE} ")}


async def _inspect(within: Within, nested: Nested, saved: Set[str], trees: Set[str]) -> list[UnsavedWork]:
    """Return the unsaved work of one nested repository or worktree.

    Args:
        within: The folders that are deleted with the agent's worktree.
        nested: The repository.
        saved: Commits that are saved elsewhere.
        trees: The real paths of the worktrees of all nested repositories.
    """
    folders, common_dir = _folders_of(nested), within.common_dir
    try:
        remotes = await find_remotes(within, nested)
        alternates = [nested.common] if nested.shares_agents_objects else []
        alternates += await to_thread.run_sync(find_alternates, nested.common, common_dir)
        async with open_untrusted(nested.folder, nested.common, alternates) as reader:
            tips = await find_tips(reader, nested, remotes)
            tips = Tips(tips.only_here, tips.saved.union(tip for tip in saved if len(tip) == reader.id_length))
            commits = await list_unsaved_commits(reader, tips.only_here, tips.saved)
            paths = await _count_uncommitted(reader, nested.tree) if nested.tree else 0
            location = {**reader.environment, "GIT_WORK_TREE": str(nested.tree)}
            hidden = await _find_in_gitlinks(reader.folder, nested.tree, location, trees) if nested.tree else []
            shared_tips = sorted(tips.only_here.intersection(commits)) if nested.shares_agents_objects else []
        if commits and (modules := await to_thread.run_sync(_find_modules, common_dir, nested)):
            commits = await _list_missing_commits(nested, tips, modules)
    except (UnreadableError, GitError) as error:
        return [UnsavedWork(nested.name, f"a repository that can't be read: {reason_of(error)[:200]}", folders)]
    found = [
        UnsavedWork(f"{nested.name}/{path}", _IN_SUBMODULES_PLACE, (nested.tree / path,))
        for path in hidden
        if nested.tree
    ]
    if commits or paths:
        found.append(UnsavedWork(nested.name, _count_words(len(commits), paths), folders, tuple(shared_tips)))
    return found


def _folders_of(nested: Nested) -> tuple[Path, ...]:
    """Return the folders that contain all of a repository that would be deleted."""
    stays = not nested.is_deleted_with_worktree and nested.folder == nested.common
    folders = [nested.tree, None if stays and nested.tree else nested.folder]
    folders += [Path(os.path.normpath(nested.common))] if nested.is_deleted_with_worktree else []
    return tuple(folder for folder in folders if folder)


def _count_words(commits: int, paths: int) -> str:
    more = "+" if commits == COMMIT_LIMIT else ""
    parts = [f"{commits}{more} commit{'s' if commits != 1 else ''}"] if commits else []
    parts += [f"{paths} uncommitted path{'s' if paths != 1 else ''}"] if paths else []
    return " and ".join(parts)


def _find_modules(common_dir: str, nested: Nested) -> list[Path]:
    """Return the git folders of the checkout's own submodule. Blocks."""
    top = Path(os.path.realpath(common_dir))
    found = find_submodule_folders(RepositoryFolders(top, top.parent), nested.name, nested.name)
    folder = Path(os.path.realpath(nested.folder))
    if folder.is_relative_to(top / "worktrees"):  # <top>/worktrees/<worktree>/modules/<name>
        counterpart = top.joinpath(*folder.relative_to(top / "worktrees").parts[1:])
        found += [counterpart] if (counterpart / "HEAD").is_file() else []
    return [module for module in found if not nested.folder.samefile(module)]


async def _list_missing_commits(nested: Nested, tips: Tips, modules: Sequence[Path]) -> list[str]:
    """Return commits of a submodule that the checkout's own submodule lacks."""
    saved = set[str]()
    for module in modules:
        async with open_untrusted(module, module) as reader:
            saved |= set((await reader.output("for-each-ref", "--format=%(objectname)")).split())
    async with open_untrusted(nested.folder, nested.common, modules) as reader:
        return await list_unsaved_commits(reader, tips.only_here, tips.saved | saved)


async def _count_uncommitted(reader: RepositoryReader, tree: Path) -> int:
    """Return the number of paths that differ from HEAD.

    Untracked files count, ignored files and repositories don't.
    """
    if pipes := await to_thread.run_sync(find_irregular_files, tree):
        raise UnreadableError(f"{printable(str(pipes[0]))} is neither a file nor a folder")
    attributes = {"GIT_ATTR_SOURCE": EMPTY_TREES[reader.id_length]}
    location = {**reader.environment, "GIT_WORK_TREE": str(tree), **attributes}
    await show(tree, location)
    lines = split_names(await git.output(tree, "status", *_STATUS, extra=location))
    return sum(not _is_ignored(line) for line in lines)


def _is_ignored(status_line: str) -> bool:
    """Return whether a line of `git status` doesn't count as unsaved work.

    It may be about a repository, or about a package manager's mark.
    """
    is_untracked = status_line.startswith("? ")
    return is_untracked and (status_line.endswith("/") or Path(status_line[2:]).name in _IGNORED_FILES)


# -- refs that only the worktree's own git folder has


async def _find_private_refs(within: Within, base: str) -> list[UnsavedWork]:
    """Return the worktree's own refs whose commits no other ref has.

    Each worktree has some refs for itself (git-worktree(1)).
    """
    if within.folder is None or not await to_thread.run_sync(_may_have_private_refs, within.folder):
        return []
    try:
        lines = await list_refs(within.folder, "--format=%(refname) %(objectname) %(*objectname)", *WORKTREE_REFS)
        tips = {ref: peeled or tip for ref, tip, peeled in (line.split(" ") for line in lines)}
        arguments = ("rev-list", "--ignore-missing", "--single-worktree", "--stdin", "--not", "--all", base)
        stdin = "".join(f"{tip}\n" for tip in tips.values()).encode()
        unsaved = set((await git.output(within.common_dir, *arguments, stdin=stdin) if tips else "").split())
    except GitError as error:
        return [UnsavedWork("refs", f"refs that can't be read: {error.last_line[:200]}", (within.folder / "refs",))]
    return [UnsavedWork(ref, "commits that no branch has", (), (tip,)) for ref, tip in tips.items() if tip in unsaved]


def _may_have_private_refs(folder: Path) -> bool:
    """Return whether a worktree's git folder may have refs of its own.

    This is faster than a call of git.
    """
    return any(walk_files(folder / "refs")) or (folder / "reftable").is_dir()


# -- files that git doesn't look at


async def _find_hidden_files(within: Within, trees: Set[str]) -> list[UnsavedWork]:
    """Return files that git doesn't look at in the agent's own worktree.

    They are in the place of a submodule that is no repository, or in a worktree unknown to git.
    """
    if not await to_thread.run_sync(is_folder, within.worktree):
        return []
    if within.folder is None:
        has_files = await to_thread.run_sync(_has_files, within.worktree)
        description = "files of a worktree that git no longer knows"
        return [UnsavedWork(".", description, (within.worktree,))] if has_files else []
    location = {"GIT_DIR": str(within.folder), "GIT_WORK_TREE": str(within.worktree)}
    hidden = await _find_in_gitlinks(within.folder, within.worktree, location, trees)
    return [UnsavedWork(path, _IN_SUBMODULES_PLACE, (within.worktree / path,)) for path in hidden]


async def _find_in_gitlinks(folder: Path, tree: Path, location: Mapping[str, str], trees: Set[str]) -> list[str]:
    """Return paths of submodules where `tree` has files but no repository.

    Args:
        folder: The git folder with the index.
        tree: The worktree of the index.
        location: Variables that name both to git.
        trees: The real paths of the worktrees of all nested repositories.
    """
    if not await to_thread.run_sync(_may_have_gitlinks, folder):
        return []
    rows = split_names(await git.output(tree, "ls-files", "-z", "--stage", extra=location))
    paths = sorted({row.partition("\t")[2] for row in rows if row.startswith(f"{SUBMODULE} ")})
    return await to_thread.run_sync(
        lambda: [path for path in paths if os.path.realpath(tree / path) not in trees and _has_files(tree / path)]
    )


def _may_have_gitlinks(folder: Path) -> bool:
    """Return whether an index may have a submodule. This is faster than a call of git."""
    files = [folder / "index", *folder.glob("sharedindex.*")]
    return any(_GITLINK in (read_regular(file) or b"") for file in files)


def _has_files(top: Path) -> bool:
    """Return whether a folder contains a file, or a folder that can't be read.

    False for a symlink.
    """
    return is_folder(top) and any(
        names is None or any(not is_folder(above / name) for name in names) for above, names in walk(top)
    )
