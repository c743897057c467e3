"""Unsaved work: what only an agent's worktree has in nested repositories, submodules and files that git overlooks."""

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
from forkjoin.git.unsaved.nested_repositories import (
    NestedRepository,
    RemovedFolders,
    find_nested,
    find_removed_folders,
    walk,
)
from forkjoin.git.unsaved.remotes import find_remotes
from forkjoin.git.unsaved.submodule_folders import RepositoryFolders, find_submodule_folders
from forkjoin.git.unsaved.unpushed_commits import (
    COMMIT_LIMIT,
    WORKTREE_REFS,
    Tips,
    find_repository_tips,
    list_unsaved_commits,
    walk_files,
)
from forkjoin.git.unsaved.untrusted_repository_reader import (
    RepositoryReader,
    UnreadableError,
    find_alternates,
    open_untrusted,
)
from forkjoin.git.worktrees.hidden_files import remove_marks
from forkjoin.git.worktrees.staging import EMPTY_TREES
from forkjoin.git.worktrees.worktree_folder import find_irregular_files, git_folder, is_folder
from forkjoin.git.worktrees.worktree_repair import MODULES

#: The mode of a submodule in an index, as bytes (gitformat-index(5)).
_GITLINK = (0o160000).to_bytes(4, "big")
#: Names of untracked files that don't count as work: a package manager marks a complete clone with such a file.
_IGNORED_FILES = frozenset({".cargo-ok"})
_IN_SUBMODULES_PLACE = "files in the place of a submodule"
#: Seconds by which the times of files may be behind the system clock.
_CLOCK_LAG_S = 0.02
_STATUS = ("--porcelain=v2", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=all")


@dataclass(frozen=True, slots=True)
class UnsavedWork:
    """Work that would be lost if an agent's worktree were removed."""

    name: str  #: for messages: a path in the worktree, an absolute path, or a ref
    description: str  #: for messages, e.g. "1 commit and 2 uncommitted paths"
    folders: tuple[Path, ...]  #: the folders and files that contain the work
    commits: tuple[str, ...] = ()  #: the commits of the work that are objects of the agent's own repository

    def __str__(self) -> str:
        return f"{printable(self.name)} ({self.description})"


async def find_unsaved_work(common_dir: str, worktree: Path, base: str) -> list[UnsavedWork]:
    """Find work that would be lost if an agent's worktree were removed.

    Only work that an autocommit can't put on the agent's branch is found.

    Args:
        common_dir: The common git folder of the agent's repository.
        worktree: The agent's worktree.
        base: The commit that the agent started from. The submodule commits that it names count as saved.
    """
    removed = await to_thread.run_sync(find_removed_folders, common_dir, worktree)
    nested, unreadable = await to_thread.run_sync(find_nested, removed)
    base_commits = await _find_base_commits(common_dir, base, nested)
    trees = await to_thread.run_sync(lambda: {os.path.realpath(one.tree) for one in nested if one.tree})
    found = await _find_hidden_files(removed, trees) + await _find_private_refs(removed, base)
    for one in nested:
        found += await _inspect(removed, one, {base, base_commits.get(one.name, base)}, trees)
    for folder in unreadable:
        name = folder.relative_to(worktree) if folder.is_relative_to(worktree) else folder
        found.append(UnsavedWork(str(name), "a folder that can't be read", (folder,)))
    return found


async def archive_unsaved(common_dir: str, worktree: Path, found: Sequence[UnsavedWork], name: str) -> str:
    """Archive unsaved work in a commit that a ref keeps. Return the ref.

    Args:
        common_dir: The common git folder of the agent's repository, which gets the commit.
        worktree: The agent's worktree.
        found: The unsaved work.
        name: The name of the ref below refs/forkjoin/kept/nested/.

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
    """Find the files that were created or changed during an interrupted removal.

    Blocks. The worktree and the git folders of its submodules are searched.

    Args:
        common_dir: The common git folder of the agent's repository.
        worktree: The worktree.
        since: When the removal began, in seconds since 1970.

    Returns:
        A list with one item for all these files, or an empty list if there are none.
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
    except OSError:  # the file was deleted, or this user can't read its folder
        return False
    # The removal itself changes the ctime of a file when it deletes another hard link of that file.
    changed_at = found.st_ctime if found.st_nlink == 1 else found.st_mtime
    return changed_at >= since and not stat.S_ISDIR(found.st_mode)


def _path_in_archive(common_dir: str, worktree: Path, folder: Path) -> str:
    """Return the path that a folder gets in an archive.

    It starts with the worktree's name if the folder is in the worktree, with `git-folder` if it is in the repository's
    git folder, else with `elsewhere`.
    """
    if folder.is_relative_to(worktree):
        return str(folder.relative_to(worktree.parent))
    real, top = Path(os.path.realpath(folder)), os.path.realpath(common_dir)
    if real.is_relative_to(top):
        return str(Path("git-folder", real.relative_to(top)))
    return str(Path("elsewhere", *real.parts[1:]))  # e.g. the git folder of another repository's worktree


async def _find_base_commits(common_dir: str, base: str, nested: Sequence[NestedRepository]) -> dict[str, str]:
    """Return the submodule commits that `base` names, by the submodules' paths.

    Only submodules that are among the nested repositories are looked for. Return an empty dict if git can't read
    `base`.
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


async def _inspect(
    removed: RemovedFolders, nested: NestedRepository, saved: Set[str], trees: Set[str]
) -> list[UnsavedWork]:
    """Return the unsaved work of one nested repository or worktree.

    Args:
        removed: The folders that are deleted with the agent's worktree.
        nested: The nested repository or worktree.
        saved: Commits that are saved outside of the agent's worktree.
        trees: The real paths of the folders with the files of all nested repositories.
    """
    folders, common_dir = _folders_of(nested), removed.common_dir
    try:
        remotes = await find_remotes(removed, nested)
        alternates = [nested.common] if nested.shares_agents_objects else []
        alternates += await to_thread.run_sync(find_alternates, nested.common, common_dir)
        async with open_untrusted(nested.folder, nested.common, alternates) as reader:
            tips = await find_repository_tips(reader, nested, remotes)
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
        found.append(UnsavedWork(nested.name, _describe_counts(len(commits), paths), folders, tuple(shared_tips)))
    return found


def _folders_of(nested: NestedRepository) -> tuple[Path, ...]:
    """Return the folders of a nested repository that are deleted with the worktree."""
    stays = not nested.is_deleted_with_worktree and nested.folder == nested.common
    folders = [nested.tree, None if stays and nested.tree else nested.folder]
    folders += [Path(os.path.normpath(nested.common))] if nested.is_deleted_with_worktree else []
    return tuple(folder for folder in folders if folder)


def _describe_counts(commits: int, paths: int) -> str:
    """Describe unsaved work, e.g. "1 commit and 2 uncommitted paths".

    A "+" after the number of commits means that there may be more.
    """
    more = "+" if commits == COMMIT_LIMIT else ""
    parts = [f"{commits}{more} commit{'s' if commits != 1 else ''}"] if commits else []
    parts += [f"{paths} uncommitted path{'s' if paths != 1 else ''}"] if paths else []
    return " and ".join(parts)


def _find_modules(common_dir: str, nested: NestedRepository) -> list[Path]:
    """Return the git folders that the repository itself has for a submodule. Blocks.

    `nested` is the submodule in the agent's worktree. Return an empty list if the nested repository is no submodule, or
    the repository itself has none.
    """
    top = Path(os.path.realpath(common_dir))
    found = find_submodule_folders(RepositoryFolders(top, top.parent), nested.name, nested.name)
    folder = Path(os.path.realpath(nested.folder))
    if folder.is_relative_to(top / "worktrees"):  # then it is <top>/worktrees/<worktree>/modules/<name>
        counterpart = top.joinpath(*folder.relative_to(top / "worktrees").parts[1:])
        found += [counterpart] if (counterpart / "HEAD").is_file() else []
    return [module for module in found if not nested.folder.samefile(module)]


async def _list_missing_commits(nested: NestedRepository, tips: Tips, modules: Sequence[Path]) -> list[str]:
    """Return the commits of a submodule that the repository's own copies of it lack.

    Args:
        nested: The submodule in the agent's worktree.
        tips: Its tips.
        modules: The git folders that the repository itself has for the submodule.
    """
    saved = set[str]()
    for module in modules:
        async with open_untrusted(module, module) as reader:
            saved |= set((await reader.output("for-each-ref", "--format=%(objectname)")).split())
    async with open_untrusted(nested.folder, nested.common, modules) as reader:
        return await list_unsaved_commits(reader, tips.only_here, tips.saved | saved)


async def _count_uncommitted(reader: RepositoryReader, tree: Path) -> int:
    """Return the number of paths in a nested repository that differ from HEAD.

    Untracked files count. Ignored files and repositories in it don't.

    Args:
        reader: A reader of the repository.
        tree: The folder with the repository's files.

    Raises:
        UnreadableError: git would block on a named pipe among the files.
    """
    if pipes := await to_thread.run_sync(find_irregular_files, tree):
        raise UnreadableError(f"{printable(str(pipes[0]))} is neither a file nor a folder")
    attributes = {"GIT_ATTR_SOURCE": EMPTY_TREES[reader.id_length]}
    location = {**reader.environment, "GIT_WORK_TREE": str(tree), **attributes}
    await remove_marks(tree, location)
    lines = split_names(await git.output(tree, "status", *_STATUS, extra=location))
    return sum(not _is_ignored(line) for line in lines)


def _is_ignored(status_line: str) -> bool:
    """Return whether a line of `git status` doesn't count as work.

    It doesn't if the path is untracked and is a repository, which is looked at separately, or a file in
    `_IGNORED_FILES`.
    """
    is_untracked = status_line.startswith("? ")
    return is_untracked and (status_line.endswith("/") or Path(status_line[2:]).name in _IGNORED_FILES)


# -- refs that only the worktree's own git folder has


async def _find_private_refs(removed: RemovedFolders, base: str) -> list[UnsavedWork]:
    """Return the commits that only private refs of the agent's worktree have.

    Private refs are those that a worktree has for itself (see `WORKTREE_REFS`).

    Args:
        removed: The folders that are deleted with the agent's worktree.
        base: The commit that the agent started from. Its history counts as saved.
    """
    if removed.folder is None or not await to_thread.run_sync(_may_have_private_refs, removed.folder):
        return []
    try:
        lines = await list_refs(removed.folder, "--format=%(refname) %(objectname) %(*objectname)", *WORKTREE_REFS)
        tips = {ref: peeled or tip for ref, tip, peeled in (line.split(" ") for line in lines)}
        arguments = ("rev-list", "--ignore-missing", "--single-worktree", "--stdin", "--not", "--all", base)
        stdin = "".join(f"{tip}\n" for tip in tips.values()).encode()
        unsaved = set((await git.output(removed.common_dir, *arguments, stdin=stdin) if tips else "").split())
    except GitError as error:
        return [UnsavedWork("refs", f"refs that can't be read: {error.last_line[:200]}", (removed.folder / "refs",))]
    return [UnsavedWork(ref, "commits that no branch has", (), (tip,)) for ref, tip in tips.items() if tip in unsaved]


def _may_have_private_refs(folder: Path) -> bool:
    """Return whether a worktree's git folder may have private refs. Blocks.

    This saves a call of git for most worktrees.
    """
    return any(walk_files(folder / "refs")) or (folder / "reftable").is_dir()


# -- files that git doesn't look at


async def _find_hidden_files(removed: RemovedFolders, trees: Set[str]) -> list[UnsavedWork]:
    """Return the files in the agent's own worktree that no autocommit takes.

    They are in the folder of a submodule that is not initialized, or in a worktree that is no longer registered.
    """
    if not await to_thread.run_sync(is_folder, removed.worktree):
        return []
    if removed.folder is None:
        has_files = await to_thread.run_sync(_has_files, removed.worktree)
        description = "files of a worktree that git no longer knows"
        return [UnsavedWork(".", description, (removed.worktree,))] if has_files else []
    location = {"GIT_DIR": str(removed.folder), "GIT_WORK_TREE": str(removed.worktree)}
    hidden = await _find_in_gitlinks(removed.folder, removed.worktree, location, trees)
    return [UnsavedWork(path, _IN_SUBMODULES_PLACE, (removed.worktree / path,)) for path in hidden]


async def _find_in_gitlinks(folder: Path, tree: Path, location: Mapping[str, str], trees: Set[str]) -> list[str]:
    """Return the submodules whose folders contain files, but are no repositories.

    Args:
        folder: The git folder with the index that names the submodules.
        tree: The folder with the files of that index.
        location: The variables that name both folders to git.
        trees: The real paths of the folders with the files of all nested repositories.
    """
    if not await to_thread.run_sync(_may_have_gitlinks, folder):
        return []
    rows = split_names(await git.output(tree, "ls-files", "-z", "--stage", extra=location))
    paths = sorted({row.partition("\t")[2] for row in rows if row.startswith(f"{SUBMODULE} ")})
    return await to_thread.run_sync(
        lambda: [path for path in paths if os.path.realpath(tree / path) not in trees and _has_files(tree / path)]
    )


def _may_have_gitlinks(folder: Path) -> bool:
    """Return whether the index in a git folder may name a submodule. Blocks.

    This saves a call of git for most worktrees.
    """
    files = [folder / "index", *folder.glob("sharedindex.*")]
    return any(_GITLINK in (read_regular(file) or b"") for file in files)


def _has_files(top: Path) -> bool:
    """Return whether there is a file at any depth below `top`. Blocks.

    A folder that this user can't read counts as a file. Return False if `top` is a symlink or no folder.
    """
    return is_folder(top) and any(
        names is None or any(not is_folder(above / name) for name in names) for above, names in walk(top)
    )
