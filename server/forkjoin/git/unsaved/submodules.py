"""Submodules: their commits are copied to the checkout before a branch lands.

A linked worktree has git folders of its own for its submodules, within its git folder, and these go with it. So the
commit is copied to `modules/` of the repository, where `git submodule update` finds it in the user's checkout, and kept
there under refs/forkjoin/kept/. A submodule that the checkout does not have yet gets its git folder there.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitError
from forkjoin.core.regular_file import read_regular
from forkjoin.git import git
from forkjoin.git.changed_paths import SUBMODULE, PathChange, parse_raw_diff
from forkjoin.git.file_names import printable, split_names
from forkjoin.git.git_folder import common_dir_path, follow_git_link
from forkjoin.git.objects import sync_objects
from forkjoin.git.refs import update_refs
from forkjoin.git.unsaved.unpushed_commits import Tips, find_tips, list_unsaved_commits
from forkjoin.git.unsaved.untrusted_repository_reader import (
    UnreadableError,
    UntrustedRepository,
    open_untrusted,
    write_config,
)
from forkjoin.git.worktrees.nested_repositories import Nested, is_within
from forkjoin.git.worktrees.staging import EMPTY_TREES
from forkjoin.git.worktrees.worktree_folder import git_folders

#: Bytes of a list of the commits at which a shallow history ends.
_LIMIT = 1024 * 1024
_PATHS = ("-z", "--get-regexp", r"^submodule\..*\.path$")


@dataclass(frozen=True, slots=True)
class _Home:
    """A repository whose submodules are looked for: its git folder, and where its files are."""

    folder: Path
    tree: Path | None
    is_deleted_with_worktree: bool = False  #: whether it goes with a worktree


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """What is to be kept for whom."""

    slug: str  #: of the agent
    dry_run: bool = False  #: only see whether the commits are there
    checkout: str | None = None  #: where the target is checked out, if it is


async def save_submodule_commits(
    common_dir: str, tip: str, changes: Sequence[PathChange], keeping: SaveOptions
) -> str | None:
    """Copy submodule commits to the repository's own submodules, or say why not.

    Those of a linked worktree that the target is checked out in get them, too: git looks for them nowhere else there.

    Args:
        tip: A commit whose .gitmodules tells what the submodules are called.
    """
    names = await _read_names(common_dir, tip, {})
    own, others = await to_thread.run_sync(_find_homes, common_dir)
    try:
        why = await _secure(own, others, names, changes, keeping)
        linked = next((one for one in others if keeping.checkout and one.tree == Path(keeping.checkout)), None)
        if why or linked is None:
            return why
        there = [own, *(one for one in others if one != linked)]
        return await _secure(linked, there, names, changes, keeping)
    except (UnreadableError, GitError, OSError) as error:
        why = error.last_line if isinstance(error, GitError) else str(error)
        return f"the commits of its submodules can't be brought to the repository: {why[:300]}"


def _find_homes(common_dir: str) -> tuple[_Home, list[_Home]]:
    top = Path(common_dir)
    tree = top.parent if top.name == ".git" else None
    return _Home(top, tree), [
        _Home(folder, where, is_deleted_with_worktree=True) for where, folder in git_folders(common_dir)
    ]


async def _read_names(where: Path | str, commit: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The submodules' names by their paths, as a commit has them; empty where it has none, or git can't read them."""
    asked = ("config", f"--blob={commit}:.gitmodules", *_PATHS)
    _, out, _ = await git.run(where, *asked, extra=extra)
    rows = (row.partition("\n") for row in split_names(out.decode(errors="surrogateescape")))
    return {path: key.removeprefix("submodule.").removesuffix(".path") for key, _, path in rows}


async def _secure(
    own: _Home, others: Sequence[_Home], names: Mapping[str, str], changes: Sequence[PathChange], keeping: SaveOptions
) -> str | None:
    for change in changes:
        name = names.get(change.path, change.path)
        if why := await to_thread.run_sync(_why_refused, own.folder, name):
            return f"its submodule {printable(change.path)} is called {printable(name)}, {why}"
        if why := await _secure_one(own, others, name, change, keeping):
            return why
    return None


async def _secure_one(
    own: _Home, others: Sequence[_Home], name: str, change: PathChange, keeping: SaveOptions
) -> str | None:
    """See that one submodule has its commit, and those that it names in turn."""
    path, commit = change.path, change.new[1]
    module = await to_thread.run_sync(_find_own, own, name, path)
    there = await to_thread.run_sync(lambda: list(_find_others(others, name, path)))
    has = module is not None and await _has(module, commit, [module])
    holder = None if has else await _find_holder(there, commit)
    if not has and holder is None:
        return (
            f"commit {commit[:10]} of its submodule {printable(path)} is in no repository here; fetch it in the "
            "submodule (git submodule update --init, git fetch), or point the branch at one that is here"
        )
    if keeping.dry_run:
        return None
    tree = own.tree / path if own.tree else None
    if module:
        return await _bring(holder, _Home(module, tree), there, change, keeping)
    assert holder
    with tempfile.TemporaryDirectory(prefix="forkjoin-", dir=own.folder) as folder:
        made = Path(folder, "module")
        await to_thread.run_sync(_make, made, common_dir_path(holder.folder))
        why = await _bring(holder, _Home(made, tree), there, change, keeping)
        if why is None:
            await sync_objects(str(made))
            await to_thread.run_sync(_put, made, own.folder / "modules" / name)
    return why


# -- where they are


def _why_refused(folder: Path, name: str) -> str | None:
    """Why a submodule's name leads astray, if it does; git refuses such names, too."""
    parts = re.split(r"[/\\]", name)
    if not name or name.startswith("/") or ".." in parts or "\0" in name:
        return "which leads out of the git folder"
    where = folder
    for part in ("modules", *parts):
        where /= part
        if where.is_symlink():
            return "where a symlink stands in the git folder"
    above = (folder.joinpath("modules", *parts[:n]) for n in range(1, len(parts)))
    return "which is within another one's git folder" if any((one / "HEAD").exists() for one in above) else None


def _find_own(own: _Home, name: str, path: str) -> Path | None:
    """The git folder that the checkout has for a submodule: in `modules/`, or, as older ones are, within its files."""
    inside = own.tree / path / ".git" if own.tree else None
    likely = [own.folder / "modules" / name, *([inside] if inside and not inside.is_symlink() else [])]
    return next((one for one in likely if (one / "HEAD").is_file()), None)


def _find_others(homes: Sequence[_Home], name: str, path: str) -> Iterator[_Home]:
    """Other git folders of a submodule, in worktrees."""
    for home in homes:
        folder = None
        with contextlib.suppress(PermissionError):  # what another user has there is no help
            folder = follow_git_link(home.tree / path / ".git") if home.tree else None
        if home.tree and folder:
            tops = (os.path.realpath(top) for top in (home.folder, home.tree))
            within = any(is_within(os.path.realpath(folder), top) for top in tops)
            yield _Home(folder, home.tree / path, is_deleted_with_worktree=home.is_deleted_with_worktree and within)
        if (home.folder / "modules" / name / "HEAD").is_file():
            yield _Home(home.folder / "modules" / name, None, home.is_deleted_with_worktree)


async def _find_holder(homes: Sequence[_Home], commit: str) -> _Home | None:
    for home in homes:
        if await _has(home.folder, commit):
            return home
    return None


async def _has(folder: Path, commit: str, also: Sequence[Path] = ()) -> bool:
    try:
        async with open_untrusted(folder, common_dir_path(folder), also) as lens:
            return await lens.has(commit)
    except UnreadableError:
        return False


# -- bringing them over


def _make(made: Path, like: Path) -> None:
    """Make an empty git folder, as git makes one for a submodule."""
    for folder in (made, made / "objects" / "pack", made / "objects" / "info", made / "refs" / "heads"):
        folder.mkdir(parents=True, exist_ok=True)
    (made / "HEAD").write_text("ref: refs/heads/main\n")
    if shallow := read_regular(like / "shallow", _LIMIT):
        (made / "shallow").write_bytes(shallow)
    write_config(made, like)


def _put(made: Path, module: Path) -> None:
    module.parent.mkdir(parents=True, exist_ok=True)
    made.rename(module)


async def _bring(
    holder: _Home | None, module: _Home, there: Sequence[_Home], change: PathChange, keeping: SaveOptions
) -> str | None:
    """Copy what a submodule is moved to, unless it is there, and keep it; so with the submodules that it names."""
    commits = [change.new[1]]
    if holder:
        commits += await _copy(holder, module.folder, change.new[1])
    async with open_untrusted(module.folder, module.folder, [module.folder]) as lens:
        if holder:  # all that they need came along
            await lens.git("rev-list", "--objects", "--quiet", *commits, "--not", "--all")
        lines = [f"update refs/forkjoin/kept/{keeping.slug}-{one[:12]} {one}" for one in commits]
        await update_refs(lens.folder, lines, "forkjoin: kept", extra=lens.environment)
        inner = await _find_inner(lens, change)
        names = await _read_names(lens.folder, change.new[1], lens.environment) if inner else {}
    return await _secure(module, there, names, inner, keeping)


async def _copy(holder: _Home, module: Path, commit: str) -> list[str]:
    """Copy a commit with its dependencies to a submodule. Return the other new tips."""
    async with open_untrusted(holder.folder, common_dir_path(holder.folder), [module]) as source:
        nested = Nested("", holder.folder, common_dir_path(holder.folder), None, is_deleted_with_worktree=True)
        tips = await find_tips(source, nested) if holder.is_deleted_with_worktree else Tips(frozenset(), frozenset())
        made = tips.own.intersection(await list_unsaved_commits(source, tips.own, tips.elsewhere))
        ends = (await source.git("merge-base", "--independent", commit, *sorted(made))).split()
        more = [one for one in ends if one != commit]
        await _copy_pack(source, module, [commit, *more])
    return more


async def _copy_pack(source: UntrustedRepository, module: Path, commits: Sequence[str]) -> None:
    """Copy missing objects to a submodule as one pack, and check each object."""
    async with open_untrusted(module, module) as target:
        there = (await target.git("for-each-ref", "--format=%(objectname)")).split()
        wanted = "".join([*(f"{one}\n" for one in commits), *(f"^{one}\n" for one in there)])
        with tempfile.TemporaryDirectory(prefix="forkjoin-", dir=module) as folder:
            form = ("-q", "--revs", "--non-empty", "--delta-base-offset", f"{folder}/pack")
            made = await source.git("-c", "pack.useBitmaps=false", "pack-objects", *form, stdin=wanted.encode())
            for one in made.split():
                pack, index = Path(folder, f"pack-{one}.pack"), Path(folder, "checked.idx")
                await target.git("index-pack", "-o", str(index), str(pack))
                await to_thread.run_sync(_put, pack, module / "objects" / "pack" / pack.name)
                await to_thread.run_sync(_put, index, module / "objects" / "pack" / f"pack-{one}.idx")


async def _find_inner(lens: UntrustedRepository, change: PathChange) -> list[PathChange]:
    """The submodules that a submodule's own change adds or moves."""
    is_moved = change.old[0] == SUBMODULE and await lens.has(change.old[1])
    old = change.old[1] if is_moved else EMPTY_TREES[lens.id_length]
    listing = await lens.git("diff-tree", "-r", "-z", "--raw", "--no-renames", old, change.new[1])
    return [one for one in parse_raw_diff(listing) if one.new[0] == SUBMODULE]
