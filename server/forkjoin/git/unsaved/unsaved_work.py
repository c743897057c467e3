"""Work that only an agent's worktree has: in nested repositories and submodules."""

import itertools
import os
import stat
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError
from forkjoin.core.regular_file import read_regular
from forkjoin.git import git
from forkjoin.git.changed_paths import SUBMODULE
from forkjoin.git.file_names import printable, split_names
from forkjoin.git.folder_archive import archive_folders
from forkjoin.git.refs import list_refs
from forkjoin.git.unsaved.remotes import find_remotes
from forkjoin.git.unsaved.unpushed_commits import (
    COMMIT_LIMIT,
    WORKTREE_REFS,
    Tips,
    find_tips,
    list_unsaved_commits,
    walk_files,
)
from forkjoin.git.unsaved.untrusted_repository_reader import (
    UnreadableError,
    UntrustedRepository,
    find_alternates,
    open_untrusted,
)
from forkjoin.git.worktrees.hidden_files import show
from forkjoin.git.worktrees.nested_repositories import Nested, Within, find_nested, find_within, walk
from forkjoin.git.worktrees.staging import EMPTY_TREES
from forkjoin.git.worktrees.worktree_folder import find_pipes, git_folder, is_folder
from forkjoin.git.worktrees.worktree_repair import MODULES

#: How a submodule's mode stands in an index (gitformat-index(5)).
_GITLINK = (0o160000).to_bytes(4, "big")
#: Files that a package manager puts into a clone to say that it is whole.
_MARKS = frozenset({".cargo-ok"})
_PLACE = "files in the place of a submodule"
#: Seconds by which the time of a file may be behind the clock.
_LAG_S = 0.02
_FORM = ("--porcelain=v2", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=all")


@dataclass(frozen=True, slots=True)
class UnsavedWork:
    """A folder of a worktree with work that is nowhere else."""

    name: str
    what: str
    folders: tuple[Path, ...]  #: what has all of it
    commits: tuple[str, ...] = ()  #: those of them that are objects of the agent's own repository

    def __str__(self) -> str:
        return f"{printable(self.name)} ({self.what})"


async def find_unsaved_work(common_dir: str, worktree: Path, base: str) -> list[UnsavedWork]:
    """Find the work that would be lost with an agent's worktree and that its branch can't have.

    Args:
        base: The commit that the agent began at; the submodules' commits that it names are somebody else's.
    """
    within = await to_thread.run_sync(find_within, common_dir, worktree)
    nested, closed = await to_thread.run_sync(find_nested, within)
    named = await _named_by(common_dir, base, nested)
    trees = await to_thread.run_sync(lambda: {os.path.realpath(one.tree) for one in nested if one.tree})
    found = await _find_hidden(within, trees) + await _find_private(within, base)
    for one in nested:
        found += await _look(within, one, {base, named.get(one.name, base)}, trees)
    names = (one.relative_to(worktree) if one.is_relative_to(worktree) else one for one in closed)
    found += [
        UnsavedWork(str(name), "a folder that can't be read", (one,)) for name, one in zip(names, closed, strict=True)
    ]
    return found


async def archive_unsaved(common_dir: str, worktree: Path, found: Sequence[UnsavedWork], name: str) -> str:
    """Archive this work as a tar file under refs/forkjoin/kept/. Return the ref.

    Raises:
        CallerError: It can't be kept, for the reason given.
    """
    folders = {folder for one in found for folder in one.folders}
    tops = [one for one in folders if folders.isdisjoint(one.parents)]
    commits = {commit for one in found for commit in one.commits}
    message = f"Work that was only in {worktree.name}: {', '.join(map(str, found))}"
    named = {_call(common_dir, worktree, top): top for top in tops}
    return await archive_folders(common_dir, named, commits, f"nested/{name}", message)


def find_late_files(common_dir: str, worktree: Path, since: float) -> list[UnsavedWork]:
    """Find the files that came into a worktree or its submodules, or changed, since its own began to go. Blocks."""
    folder = git_folder(common_dir, worktree)
    tops = filter(is_folder, [worktree, *([folder / MODULES] if folder else [])])
    walked = [(above, name) for top in tops for above, *inside in os.walk(top) for name in itertools.chain(*inside)]
    late = tuple(file for above, name in walked if _is_late(file := Path(above, name), since - _LAG_S))
    others = f", with {len(late) - 1} others" if len(late) > 1 else ""
    return [UnsavedWork(late[0].name, f"put there while it was being removed{others}", late)] if late else []


def _is_late(file: Path, since: float) -> bool:
    try:
        found = os.lstat(file)
    except OSError:  # it went, or its folder can't be read
        return False
    when = found.st_ctime if found.st_nlink == 1 else found.st_mtime  # as other links to it go, its ctime changes
    return when >= since and not stat.S_ISDIR(found.st_mode)


def _call(common_dir: str, worktree: Path, folder: Path) -> str:
    """Return a folder's path in the tar file, which says where it is in the worktree, the git folder, or elsewhere."""
    if folder.is_relative_to(worktree):
        return str(folder.relative_to(worktree.parent))
    real, top = Path(os.path.realpath(folder)), os.path.realpath(common_dir)
    if real.is_relative_to(top):
        return str(Path("git-folder", real.relative_to(top)))
    return str(Path("elsewhere", *real.parts[1:]))  # such as the git folder of another repository's worktree


async def _named_by(common_dir: str, base: str, nested: Sequence[Nested]) -> dict[str, str]:
    """The commits that `base` names for those of these that are its submodules, by their paths."""
    names = [one.name for one in nested if one.tree and not Path(one.name).is_absolute()]
    if not names:
        return {}
    asked = ("ls-tree", "-z", "--full-tree", base, "--", *names)
    try:
        rows = split_names(await git.output(common_dir, *asked, extra={"GIT_LITERAL_PATHSPECS": "1"}))
    except GitError:
        return {}
    parted = (row.partition("\t")[::2] for row in rows)
    return {path: how.split(" ")[2] for how, path in parted if how.startswith(f"{SUBMODULE} ")}


async def _look(within: Within, nested: Nested, known: Set[str], trees: Set[str]) -> list[UnsavedWork]:
    """What would be lost of one repository, or worktree; `known` are commits that are elsewhere, too."""
    folders, common_dir = _folders(nested), within.common_dir
    try:
        remotes = await find_remotes(within, nested)
        also = [nested.common] if nested.shares_agents_objects else []
        also += await to_thread.run_sync(find_alternates, nested.common, common_dir)
        async with open_untrusted(nested.folder, nested.common, also) as lens:
            tips = await find_tips(lens, nested, remotes)
            tips = Tips(tips.own, tips.elsewhere.union(one for one in known if len(one) == lens.id_length))
            commits = await list_unsaved_commits(lens, tips.own, tips.elsewhere)
            paths = await _find_loose(lens, nested.tree) if nested.tree else 0
            here = {**lens.environment, "GIT_WORK_TREE": str(nested.tree)}
            hidden = await _find_in_gitlinks(lens.folder, nested.tree, here, trees) if nested.tree else []
            tops = sorted(tips.own.intersection(commits)) if nested.shares_agents_objects else []
        if commits and (modules := await to_thread.run_sync(_find_modules, common_dir, nested)):
            commits = await _find_missing(nested, tips, modules)
    except (UnreadableError, GitError) as error:
        why = error.last_line if isinstance(error, GitError) else str(error)
        return [UnsavedWork(nested.name, f"a repository that can't be read: {why[:200]}", folders)]
    found = [UnsavedWork(f"{nested.name}/{path}", _PLACE, (nested.tree / path,)) for path in hidden if nested.tree]
    return found + (
        [UnsavedWork(nested.name, _say(len(commits), paths), folders, tuple(tops))] if commits or paths else []
    )


def _folders(nested: Nested) -> tuple[Path, ...]:
    """The folders that have all of a repository that goes."""
    stays = not nested.is_deleted_with_worktree and nested.folder == nested.common
    folders = [nested.tree, None if stays and nested.tree else nested.folder]
    folders += [Path(os.path.normpath(nested.common))] if nested.is_deleted_with_worktree else []
    return tuple(one for one in folders if one)


def _say(commits: int, paths: int) -> str:
    more = "+" if commits == COMMIT_LIMIT else ""
    parts = [f"{commits}{more} commit{'s' if commits != 1 else ''}"] if commits else []
    parts += [f"{paths} uncommitted path{'s' if paths != 1 else ''}"] if paths else []
    return " and ".join(parts)


def _find_modules(common_dir: str, nested: Nested) -> list[Path]:
    """Find the git folders that the user's checkout may have of this submodule of a worktree. Blocks."""
    top = Path(os.path.realpath(common_dir))
    folder = Path(os.path.realpath(nested.folder))
    likely = [top / "modules" / nested.name, top.parent / nested.name / ".git"]
    if folder.is_relative_to(top / "worktrees"):
        likely.append(top.joinpath(*folder.relative_to(top / "worktrees").parts[1:]))
    return [one for one in likely if (one / "HEAD").is_file() and not nested.folder.samefile(one)]


async def _find_missing(nested: Nested, tips: Tips, modules: Sequence[Path]) -> list[str]:
    """The commits of a worktree's submodule that no ref of the checkout's own one has."""
    there = set[str]()
    for module in modules:
        async with open_untrusted(module, module) as lens:
            there |= set((await lens.git("for-each-ref", "--format=%(objectname)")).split())
    async with open_untrusted(nested.folder, nested.common, modules) as lens:
        return await list_unsaved_commits(lens, tips.own, tips.elsewhere | there)


async def _find_loose(lens: UntrustedRepository, tree: Path) -> int:
    """How many paths differ from HEAD, new ones too, but neither ignored files nor further repositories."""
    if pipes := await to_thread.run_sync(find_pipes, tree):
        raise UnreadableError(f"{printable(str(pipes[0]))} is neither a file nor a folder")
    here = {**lens.environment, "GIT_WORK_TREE": str(tree), "GIT_ATTR_SOURCE": EMPTY_TREES[lens.id_length]}
    await show(tree, here)
    lines = split_names(await git.output(tree, "status", *_FORM, extra=here))
    return len(
        [one for one in lines if not (one.startswith("? ") and (one.endswith("/") or Path(one[2:]).name in _MARKS))]
    )


# -- what only the worktree's own git folder has


async def _find_private(within: Within, base: str) -> list[UnsavedWork]:
    """Refs that are the worktree's alone (git-worktree(1)) with commits that no other ref has."""
    if within.folder is None or not await to_thread.run_sync(_has_private, within.folder):
        return []
    try:
        lines = await list_refs(within.folder, "--format=%(refname) %(objectname) %(*objectname)", *WORKTREE_REFS)
        tips = {ref: peeled or tip for ref, tip, peeled in (line.split(" ") for line in lines)}
        asked = ("rev-list", "--ignore-missing", "--single-worktree", "--stdin", "--not", "--all", base)
        stdin = "".join(f"{tip}\n" for tip in tips.values()).encode()
        own = set((await git.output(within.common_dir, *asked, stdin=stdin) if tips else "").split())
    except GitError as error:
        return [UnsavedWork("refs", f"refs that can't be read: {error.last_line[:200]}", (within.folder / "refs",))]
    return [UnsavedWork(ref, "commits that no branch has", (), (tip,)) for ref, tip in tips.items() if tip in own]


def _has_private(folder: Path) -> bool:
    """Whether there may be such refs: quicker than git, which is asked only then."""
    return any(walk_files(folder / "refs")) or (folder / "reftable").is_dir()


# -- files that git doesn't look at


async def _find_hidden(within: Within, trees: Set[str]) -> list[UnsavedWork]:
    """Files where the index has a submodule that is no repository; and those of a worktree that git knows no more."""
    if not await to_thread.run_sync(is_folder, within.worktree):
        return []
    if within.folder is None:
        there = await to_thread.run_sync(_has_files, within.worktree)
        return [UnsavedWork(".", "files of a worktree that git no longer knows", (within.worktree,))] if there else []
    here = {"GIT_DIR": str(within.folder), "GIT_WORK_TREE": str(within.worktree)}
    hidden = await _find_in_gitlinks(within.folder, within.worktree, here, trees)
    return [UnsavedWork(path, _PLACE, (within.worktree / path,)) for path in hidden]


async def _find_in_gitlinks(folder: Path, tree: Path, here: Mapping[str, str], trees: Set[str]) -> list[str]:
    """The paths where an index has a submodule, and a tree has files that are in none of the repositories' `trees`."""
    if not await to_thread.run_sync(_has_gitlinks, folder):
        return []
    rows = split_names(await git.output(tree, "ls-files", "-z", "--stage", extra=here))
    paths = sorted({row.partition("\t")[2] for row in rows if row.startswith(f"{SUBMODULE} ")})
    return await to_thread.run_sync(
        lambda: [one for one in paths if os.path.realpath(tree / one) not in trees and _has_files(tree / one)]
    )


def _has_gitlinks(folder: Path) -> bool:
    """Whether an index may have a submodule: quicker than git, which is asked only then."""
    files = [folder / "index", *folder.glob("sharedindex.*")]
    return any(_GITLINK in (read_regular(file) or b"") for file in files)


def _has_files(top: Path) -> bool:
    """Whether there is a file in a folder that is no symlink."""
    return is_folder(top) and any(
        names is None or any(not is_folder(above / name) for name in names) for above, names in walk(top)
    )
