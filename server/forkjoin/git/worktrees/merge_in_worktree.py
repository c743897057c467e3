"""Merges with conflicts in a worktree: they are begun for a resolver, and examined after its program has ended.

git records a merge in progress in the worktree's git folder: MERGE_HEAD contains the id of the merged commit, and
AUTO_MERGE the tree that git wrote to the worktree, with conflict markers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import GitRefusedError
from forkjoin.core.regular_file import read_line, read_regular
from forkjoin.git import git
from forkjoin.git.changed_paths import changes_between
from forkjoin.git.commit_identity import find_fallback_identity
from forkjoin.git.file_names import printable_list, split_names
from forkjoin.git.merge_tree import try_merge
from forkjoin.git.objects import read_blob
from forkjoin.git.refs import is_ancestor, resolve_commit
from forkjoin.git.worktrees.delete_path import delete_path
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, git_folder
from forkjoin.git.worktrees.worktree_list_lock import lock_worktree_list

#: Overrides of the user's configuration: a conflict must show both sides and their base, and rerere
#: must not resolve it.
_CONFLICT_STYLE = ("-c", "merge.conflictStyle=zdiff3", "-c", "rerere.enabled=false")
_MERGE = ("merge", "--quiet", "--no-commit", "--no-ff", "--strategy=ort", "--no-autostash", "--no-verify-signatures")

#: The markers before and after a conflict. The attribute conflict-marker-size sets their length.
_BEGIN, _END = re.compile(rb"^<{7,} ", re.MULTILINE), re.compile(rb"^>{7,} [^\r\n]*", re.MULTILINE)

#: The most bytes of a file that are searched for conflict markers.
_MAX_BYTES = 32 * 1024 * 1024
#: The most files that are searched for conflict markers.
_MAX_FILES = 1_000
#: How many files a warning names.
_NAMED_FILES = 5


async def begin(common_dir: str, path: Path, theirs: str, message: str) -> None:
    """Begin to merge a commit into HEAD of a worktree, without a commit.

    This is idempotent. The caller ensures that no agent has worked in the worktree yet. All uncommitted changes there
    are discarded: an interrupted call left them.

    Args:
        common_dir: The common git folder of the repository.
        path: The worktree.
        theirs: The commit.
        message: The message of the merge commit, for the resolver's `git commit`.
    """
    folder = git_folder(common_dir, path)
    assert folder
    async with lock_worktree_list(common_dir) as held:  # git inherits the lock, in case git outlives the daemon
        delete_path(folder / "index.lock")
        await git.output(path, "reset", "--quiet", "--hard", pass_fds=(held,))
        await git.output(path, "clean", "--quiet", "-ffd", pass_fds=(held,))
        who = await find_fallback_identity(common_dir)
        await git.run(path, *_CONFLICT_STYLE, *_MERGE, theirs, extra=who, pass_fds=(held,), ok_codes=(0, 1))
    if (folder / "MERGE_HEAD").exists():
        (folder / "MERGE_MSG").write_text(message)


async def find_merged_commit(place: RegisteredWorktree) -> str | None:
    """Return the commit that the merge in progress in a worktree merges into HEAD.

    Return `None` if no merge, or a merge of several commits, is in progress.
    """
    line = await to_thread.run_sync(read_line, place.folder / "MERGE_HEAD")
    return await resolve_commit(place.common_dir, line) if line and "\n" not in line else None


def end(place: RegisteredWorktree) -> None:
    """End the merge in progress, without changing any file. Blocks."""
    for name in ("MERGE_HEAD", "MERGE_MSG", "MERGE_MODE", "AUTO_MERGE"):
        delete_path(place.folder / name)


async def find_unresolved(place: RegisteredWorktree, unmerged: Sequence[str]) -> list[str]:
    """Return the paths whose conflicts are unresolved.

    A conflict counts as resolved, although the path was not added to the index, if the file was edited or deleted and
    has no conflict markers. A submodule is unresolved until it is added.

    Args:
        place: The worktree.
        unmerged: The paths that have conflicts in the index.
    """
    if not unmerged:
        return []
    changed = ("-c", "diff.autoRefreshIndex=true", "diff", "--name-only", "--no-renames", "--ignore-submodules=all")
    try:
        edited = set(split_names(await place.git(*changed, "-z", "AUTO_MERGE", "--")))
    except GitRefusedError:  # there is no AUTO_MERGE, because the merge was not made with the strategy `ort`
        edited = set[str]()
    return [name for name in unmerged if name not in edited or await _has_markers_in_worktree(place, name)]


async def _has_markers_in_worktree(place: RegisteredWorktree, name: str) -> bool:
    """Return whether a file has conflict markers that neither side has in the index."""
    file = place.path / name
    data = b"" if file.is_symlink() else await to_thread.run_sync(read_regular, file, _MAX_BYTES)
    sides = [await read_blob(place.path, f":{side}:{name}", _MAX_BYTES, place.variables) for side in (2, 3)]
    return _has_markers(data or b"", sides)


async def describe_unresolved(
    common_dir: str, ours: str, theirs: str, tip: str, conflicts: Sequence[str] = ()
) -> str | None:
    """Return why `tip` is not a resolved merge of two commits, or `None` if it is.

    Args:
        common_dir: The common git folder of the repository.
        ours: The commit that the resolver started from.
        theirs: The commit that the resolver merged.
        tip: The commit of the resolver's branch.
        conflicts: Files that are known to have conflicts, in addition to those found at `tip`.
    """
    if files := list(dict.fromkeys((*conflicts, *await _find_marked_files(common_dir, ours, theirs, tip)))):
        return f"these files still conflict: {printable_list(files)}"
    for side, what in ((theirs, "the merge of"), (ours, "the commit merged into,")):
        if not await is_ancestor(common_dir, side, tip):
            return f"{what} {side[:10]} is not on its branch"
    return None


async def find_dropped_changes(common_dir: str, sides: Mapping[str, str], tip: str) -> list[str]:
    """Return warnings if a merge lacks all changes, or some new files, of one side.

    Args:
        common_dir: The common git folder of the repository.
        sides: The two merged commits, each with its name for the warning.
        tip: The result of the merge.
    """
    ours, theirs = sides
    base = (await git.output(common_dir, "merge-base", ours, theirs)).partition("\n")[0]
    warnings: list[str] = []
    for side, other in ((ours, theirs), (theirs, ours)):
        changes = await changes_between(common_dir, base, side)
        undone = await changes_between(common_dir, side, tip)
        moved = {change.new[1] for change in undone if change.kind == "A"}
        deleted = {change.path for change in undone if change.kind == "D" and change.old[1] not in moved}
        lost = [change.path for change in changes if change.kind == "A" and change.path in deleted]
        from_other = {change.path for change in await changes_between(common_dir, other, tip)}
        if changes and from_other.isdisjoint(change.path for change in changes):
            files = printable_list([change.path for change in changes], _NAMED_FILES)
            warnings.append(
                f"All that {sides[side]} changed is as on the other side, in: {files}. Check that this is right."
            )
        elif lost:
            files = printable_list(lost, _NAMED_FILES)
            warnings.append(f"It lacks files that {sides[side]} added: {files}. Check that this is right.")
    return warnings


async def _find_marked_files(common_dir: str, ours: str, theirs: str, tip: str) -> list[str]:
    """Return the files in conflict of two commits that have markers at `tip`."""
    found: list[str] = []
    for file in (await try_merge(common_dir, ours, theirs)).conflicts[:_MAX_FILES]:
        data = await read_blob(common_dir, f"{tip}:{file}", _MAX_BYTES)
        if _has_markers(data, ()) and _has_markers(
            data, [await read_blob(common_dir, f"{side}:{file}", _MAX_BYTES) for side in (ours, theirs)]
        ):
            found.append(file)
    return found


def _has_markers(data: bytes, sides: Iterable[bytes]) -> bool:
    """Return whether a file has conflict markers that no side has as its content."""
    known = {line for side in sides for line in _END.findall(side)}
    return bool(_BEGIN.search(data)) and any(line not in known for line in _END.findall(data))
