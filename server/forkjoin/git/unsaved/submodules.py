"""Copies of submodule commits in the user's repository, made before a branch that names the commits is merged.

A linked worktree has its own git folders for its submodules. They are inside its git folder, and are deleted with it.
So each submodule commit that a branch names is copied to the submodule's git folder in `modules/` in the repository's
git folder, where `git submodule update` in the user's checkout finds it. A ref under refs/forkjoin/kept/ keeps it
there. If `modules/` has no git folder for the submodule yet, one is created.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError, reason_of
from forkjoin.core.regular_file import read_regular
from forkjoin.git import git
from forkjoin.git.changed_paths import SUBMODULE, PathChange, parse_raw_diff
from forkjoin.git.file_names import printable, split_names
from forkjoin.git.git_folder import common_dir_path
from forkjoin.git.objects import sync_objects
from forkjoin.git.refs import update_refs
from forkjoin.git.unsaved.nested_repositories import NestedRepository
from forkjoin.git.unsaved.submodule_folders import (
    RepositoryFolders,
    find_copies,
    find_main_and_worktrees,
    find_name_problem,
    find_submodule_folders,
)
from forkjoin.git.unsaved.unpushed_commits import Tips, find_repository_tips, list_unsaved_commits
from forkjoin.git.unsaved.untrusted_repository_reader import (
    RepositoryReader,
    UnreadableError,
    open_untrusted,
    write_config,
)
from forkjoin.git.worktrees.staging import EMPTY_TREES

#: Bytes that are read of the file that lists the commits at which a shallow history ends.
_SHALLOW_LIMIT = 1024 * 1024
_LIST_PATHS = ("-z", "--get-regexp", r"^submodule\..*\.path$")


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """Options of `save_submodule_commits`."""

    slug: str  #: the id and name of the agent, e.g. `a1-name`, for the names of refs that keep commits
    dry_run: bool = False  #: whether to check only that each commit exists somewhere, and to copy nothing
    checkout: str | None = None  #: the worktree in which the target is checked out; `None` if it is in none


async def save_submodule_commits(
    common_dir: str, tip: str, changes: Sequence[PathChange], options: SaveOptions
) -> str | None:
    """Copy the submodule commits that a branch names to the repository.

    If the target is checked out in a linked worktree, the commits are also copied to the git folder of that worktree,
    because git looks for them only there.

    Args:
        common_dir: The common git folder of the repository.
        tip: The commit of the branch. Its .gitmodules gives the submodules' names.
        changes: The submodules that the branch adds or changes.
        options: The options.

    Returns:
        `None`, or a clause that says why the commits can't be copied, for a sentence about the branch.
    """
    names = await _read_names(common_dir, tip, {})
    main, worktrees = await to_thread.run_sync(find_main_and_worktrees, common_dir)
    try:
        problem = await _save_all(main, worktrees, names, changes, options)
        target = next((one for one in worktrees if options.checkout and one.tree == Path(options.checkout)), None)
        if problem or target is None:
            return problem
        others = [main, *(one for one in worktrees if one != target)]
        return await _save_all(target, others, names, changes, options)
    except (UnreadableError, GitError, OSError) as error:
        return f"the commits of its submodules can't be copied to the repository: {reason_of(error)[:300]}"


async def _read_names(where: Path | str, commit: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the submodules' names by their paths, from the .gitmodules of a commit.

    Return an empty dict if git can't read .gitmodules.

    Args:
        where: The git folder of the repository with the commit.
        commit: The id of the commit.
        extra: Environment variables for git.
    """
    arguments = ("config", f"--blob={commit}:.gitmodules", *_LIST_PATHS)
    _, out, _ = await git.run(where, *arguments, extra=extra)
    rows = (row.partition("\n") for row in split_names(out.decode(errors="surrogateescape")))
    return {path: key.removeprefix("submodule.").removesuffix(".path") for key, _, path in rows}


async def _save_all(
    owner: RepositoryFolders,
    others: Sequence[RepositoryFolders],
    names: Mapping[str, str],
    changes: Sequence[PathChange],
    options: SaveOptions,
) -> str | None:
    """Copy submodule commits to the git folders of a repository's submodules.

    Args:
        owner: The repository, worktree or submodule that gets the commits.
        others: The repositories, worktrees or submodules in whose submodules the commits are looked for.
        names: The submodules' names by their paths.
        changes: The submodules that are added or changed.
        options: As for `save_submodule_commits`.

    Returns:
        The first problem, as `save_submodule_commits` returns it, or `None`.
    """
    for change in changes:
        name = names.get(change.path, change.path)
        if problem := await to_thread.run_sync(find_name_problem, owner.git_dir, name):
            return f"its submodule {printable(change.path)} is called {printable(name)}, {problem}"
        if problem := await _save_one(owner, others, name, change, options):
            return problem
    return None


async def _save_one(
    owner: RepositoryFolders,
    others: Sequence[RepositoryFolders],
    name: str,
    change: PathChange,
    options: SaveOptions,
) -> str | None:
    """Copy the commit of one submodule, and the commits of the submodules in it.

    `name` is the submodule's name. The other arguments and the result are those of `_save_all`.
    """
    path, commit = change.path, change.new[1]
    folders = await to_thread.run_sync(find_submodule_folders, owner, name, path)
    module = folders[0] if folders else None
    copies = await to_thread.run_sync(lambda: list(find_copies(others, name, path)))
    has_commit = module is not None and await _has_commit(module, commit, [module])
    source = None if has_commit else await _find_source(copies, commit)
    if not has_commit and source is None:
        return (
            f"commit {commit[:10]} of its submodule {printable(path)} is in no repository here; fetch it in the "
            "submodule (git submodule update --init, git fetch), or point the branch at one that is here"
        )
    if options.dry_run:
        return None
    tree = owner.tree / path if owner.tree else None
    if module:
        return await _copy_and_keep(source, RepositoryFolders(module, tree), copies, change, options)
    assert source
    with tempfile.TemporaryDirectory(prefix="forkjoin-", dir=owner.git_dir) as folder:
        made = Path(folder, "module")
        await to_thread.run_sync(_make_git_folder, made, common_dir_path(source.git_dir))
        problem = await _copy_and_keep(source, RepositoryFolders(made, tree), copies, change, options)
        if problem is None:
            await sync_objects(str(made))
            await to_thread.run_sync(_move, made, owner.git_dir / "modules" / name)
    return problem


async def _find_source(copies: Sequence[RepositoryFolders], commit: str) -> RepositoryFolders | None:
    """Return the first of several copies of a submodule that has a commit, or `None`."""
    for copy in copies:
        if await _has_commit(copy.git_dir, commit):
            return copy
    return None


async def _has_commit(git_dir: Path, commit: str, alternates: Sequence[Path] = ()) -> bool:
    try:
        async with open_untrusted(git_dir, common_dir_path(git_dir), alternates) as reader:
            return await reader.has_commit(commit)
    except UnreadableError:
        return False


# -- copying


def _make_git_folder(made: Path, like: Path) -> None:
    """Make an empty git folder for a submodule. Blocks.

    It gets the object format of `like`. If the history in `like` is shallow, it will end at the same commits.
    """
    for folder in (made, made / "objects" / "pack", made / "objects" / "info", made / "refs" / "heads"):
        folder.mkdir(parents=True, exist_ok=True)
    (made / "HEAD").write_text("ref: refs/heads/main\n")
    if shallow := read_regular(like / "shallow", _SHALLOW_LIMIT):
        (made / "shallow").write_bytes(shallow)
    write_config(made, like)


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)


async def _copy_and_keep(
    source: RepositoryFolders | None,
    module: RepositoryFolders,
    copies: Sequence[RepositoryFolders],
    change: PathChange,
    options: SaveOptions,
) -> str | None:
    """Copy the commit of a submodule, and create a ref that keeps it.

    Do the same for the commits of the submodules in it.

    Args:
        source: The copy of the submodule that has the commit, or `None` if `module` has it already.
        module: The copy of the submodule that gets the commit.
        copies: All other copies of the submodule.
        change: The change of the submodule.
        options: As for `save_submodule_commits`.

    Returns:
        The first problem, as `save_submodule_commits` returns it, or `None`.
    """
    commits = [change.new[1]]
    if source:
        commits += await _copy_commit(source, module.git_dir, change.new[1])
    async with open_untrusted(module.git_dir, module.git_dir, [module.git_dir]) as reader:
        if source:  # rev-list fails if an object of the copied history is missing
            await reader.output("rev-list", "--objects", "--quiet", *commits, "--not", "--all")
        lines = [f"update refs/forkjoin/kept/{options.slug}-{commit[:12]} {commit}" for commit in commits]
        await update_refs(reader.folder, lines, "forkjoin: kept", extra=reader.environment)
        inner = await _find_inner_changes(reader, change)
        names = await _read_names(reader.folder, change.new[1], reader.environment) if inner else {}
    return await _save_all(module, copies, names, inner, options)


async def _copy_commit(source: RepositoryFolders, module: Path, commit: str) -> list[str]:
    """Copy a commit with its history to a submodule's git folder.

    If the source will be deleted with a worktree, also copy the other commits that exist only there.

    Args:
        source: The copy of the submodule that has the commit.
        module: The git folder that gets the commit.
        commit: The id of the commit.

    Returns:
        The tips of the other commits that were copied.
    """
    common = common_dir_path(source.git_dir)
    async with open_untrusted(source.git_dir, common, [module]) as reader:
        nested = NestedRepository("", source.git_dir, common, None, is_deleted_with_worktree=True)
        is_deleted = source.is_deleted_with_worktree
        tips = await find_repository_tips(reader, nested) if is_deleted else Tips(frozenset(), frozenset())
        unsaved = tips.only_here.intersection(await list_unsaved_commits(reader, tips.only_here, tips.saved))
        ends = (await reader.output("merge-base", "--independent", commit, *sorted(unsaved))).split()
        others = [tip for tip in ends if tip != commit]
        await _copy_pack(reader, module, [commit, *others])
    return others


async def _copy_pack(source: RepositoryReader, module: Path, commits: Sequence[str]) -> None:
    """Copy the objects of commits that a submodule's git folder lacks, as one pack.

    Their whole history is copied.

    `git index-pack` checks each object.

    Args:
        source: A reader of the copy that has the commits.
        module: The git folder that gets the objects.
        commits: The ids of the commits.
    """
    async with open_untrusted(module, module) as target:
        existing = (await target.output("for-each-ref", "--format=%(objectname)")).split()
        revisions = "".join([*(f"{commit}\n" for commit in commits), *(f"^{commit}\n" for commit in existing)])
        with tempfile.TemporaryDirectory(prefix="forkjoin-", dir=module) as folder:
            options = ("-q", "--revs", "--non-empty", "--delta-base-offset", f"{folder}/pack")
            arguments = ("-c", "pack.useBitmaps=false", "pack-objects", *options)
            packs = await source.output(*arguments, stdin=revisions.encode())
            for name in packs.split():
                pack, index = Path(folder, f"pack-{name}.pack"), Path(folder, "checked.idx")
                await target.output("index-pack", "-o", str(index), str(pack))
                await to_thread.run_sync(_move, pack, module / "objects" / "pack" / pack.name)
                await to_thread.run_sync(_move, index, module / "objects" / "pack" / f"pack-{name}.idx")


async def _find_inner_changes(reader: RepositoryReader, change: PathChange) -> list[PathChange]:
    """Return the submodules that the change of a submodule adds or changes in it.

    Args:
        reader: A reader of the submodule, which has the new commit.
        change: The change of the submodule.
    """
    has_old = change.old[0] == SUBMODULE and await reader.has_commit(change.old[1])
    old = change.old[1] if has_old else EMPTY_TREES[reader.id_length]
    listing = await reader.output("diff-tree", "-r", "-z", "--raw", "--no-renames", old, change.new[1])
    return [inner for inner in parse_raw_diff(listing) if inner.new[0] == SUBMODULE]
