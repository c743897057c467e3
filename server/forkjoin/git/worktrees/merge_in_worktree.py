"""A merge that is under way in a worktree: put in place there, conflicts and all, and found when its program has ended.

git keeps it in the worktree's git folder: MERGE_HEAD is what is merged, AUTO_MERGE the tree that git made of it.
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
from forkjoin.git.worktrees.worktree import delete_path, lock_worktree_list
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, git_folder

#: The person's own ways of merging that are not heeded: both sides, and what they had in common, are to be seen.
_SEEN = ("-c", "merge.conflictStyle=zdiff3", "-c", "rerere.enabled=false")
_MERGE = ("merge", "--quiet", "--no-commit", "--no-ff", "--strategy=ort", "--no-autostash", "--no-verify-signatures")

#: Lines between which git puts both sides; their length is an attribute, conflict-marker-size.
_BEGIN, _END = re.compile(rb"^<{7,} ", re.MULTILINE), re.compile(rb"^>{7,} [^\r\n]*", re.MULTILINE)

#: Bytes of a file that are looked at for what marks a conflict, and how many files.
_BYTES, _FILES = 32 * 1024 * 1024, 1_000
#: Files that are named of those that a merge lacks.
_NAMED = 5


async def begin(common_dir: str, path: Path, theirs: str, message: str) -> None:
    """Merge a commit into what is in the worktree at `path`, and leave that uncommitted. Doing so twice is harmless.

    Nothing else may have been in that worktree: what a merge has left there that was cut off is taken away.
    """
    folder = git_folder(common_dir, path)
    assert folder
    async with lock_worktree_list(common_dir) as held:  # a git that outlives the daemon holds it, too
        delete_path(folder / "index.lock")
        await git.output(path, "reset", "--quiet", "--hard", pass_fds=(held,))
        await git.output(path, "clean", "--quiet", "-ffd", pass_fds=(held,))
        who = await find_fallback_identity(common_dir)
        await git.run(path, *_SEEN, *_MERGE, theirs, extra=who, pass_fds=(held,), ok_codes=(0, 1))
    if (folder / "MERGE_HEAD").exists():
        (folder / "MERGE_MSG").write_text(message)


async def find_merged_commit(place: RegisteredWorktree) -> str | None:
    """The commit that is being merged in a worktree; none where there is no such, or are several."""
    said = await to_thread.run_sync(read_line, place.folder / "MERGE_HEAD")
    return await resolve_commit(place.common_dir, said) if said and "\n" not in said else None


def end(place: RegisteredWorktree) -> None:
    """Let git know of no merge there any more."""
    for name in ("MERGE_HEAD", "MERGE_MSG", "MERGE_MODE", "AUTO_MERGE"):
        delete_path(place.folder / name)


async def find_unresolved(place: RegisteredWorktree, unmerged: Sequence[str]) -> list[str]:
    """Which of these paths, in conflict by the index, are so in truth: as git has left them, or with its marks in them.

    The others were edited, or deleted, and only not added. A submodule is in conflict until it is added.
    """
    if not unmerged:
        return []
    changed = ("-c", "diff.autoRefreshIndex=true", "diff", "--name-only", "--no-renames", "--ignore-submodules=all")
    try:
        edited = set(split_names(await place.git(*changed, "-z", "AUTO_MERGE", "--")))
    except GitRefusedError:  # it was merged in another way
        edited = set[str]()
    return [name for name in unmerged if name not in edited or await _is_marked_there(place, name)]


async def _is_marked_there(place: RegisteredWorktree, name: str) -> bool:
    file = place.path / name
    data = b"" if file.is_symlink() else await to_thread.run_sync(read_regular, file, _BYTES)
    sides = [await read_blob(place.path, f":{side}:{name}", _BYTES, place.variables) for side in (2, 3)]
    return _is_marked(data or b"", sides)


async def describe_unresolved(
    common_dir: str, ours: str, theirs: str, tip: str, conflicts: Sequence[str] = ()
) -> str | None:
    """Why what is at `tip` is no merge of both, without any marks of that, if it is not.

    Args:
        conflicts: Files that are known to conflict still.
    """
    if files := list(dict.fromkeys((*conflicts, *await _find_left(common_dir, ours, theirs, tip)))):
        return f"these files still conflict: {printable_list(files)}"
    for side, what in ((theirs, "the merge of"), (ours, "what that was to be merged into,")):
        if not await is_ancestor(common_dir, side, tip):
            return f"{what} {side[:10]} is not on its branch"
    return None


async def find_dropped_changes(common_dir: str, sides: Mapping[str, str], tip: str) -> list[str]:
    """Return a sentence for each side of a merge whose changes or new files the result at `tip` may leave out.

    Args:
        sides: What the two sides are called, by their commits.
    """
    ours, theirs = sides
    base = (await git.output(common_dir, "merge-base", ours, theirs)).partition("\n")[0]
    said: list[str] = []
    for side, other in ((ours, theirs), (theirs, ours)):
        done = await changes_between(common_dir, base, side)
        since = await changes_between(common_dir, side, tip)
        moved = {change.new[1] for change in since if change.kind == "A"}
        gone = {change.path for change in since if change.kind == "D" and change.old[1] not in moved}
        lost = [change.path for change in done if change.kind == "A" and change.path in gone]
        from_other = {change.path for change in await changes_between(common_dir, other, tip)}
        if done and from_other.isdisjoint(change.path for change in done):
            files = printable_list([change.path for change in done], _NAMED)
            said.append(
                f"All that {sides[side]} changed is as on the other side, in: {files}. Check that this is right."
            )
        elif lost:
            said.append(
                f"It lacks files that {sides[side]} added: {printable_list(lost, _NAMED)}. Check that this is right."
            )
    return said


async def _find_left(common_dir: str, ours: str, theirs: str, tip: str) -> list[str]:
    """The files in which `ours` and `theirs` conflict, and that have the marks of it at `tip` still."""
    found: list[str] = []
    for file in (await try_merge(common_dir, ours, theirs)).conflicts[:_FILES]:
        data = await read_blob(common_dir, f"{tip}:{file}", _BYTES)
        if _is_marked(data, ()) and _is_marked(
            data, [await read_blob(common_dir, f"{it}:{file}", _BYTES) for it in (ours, theirs)]
        ):
            found.append(file)
    return found


def _is_marked(data: bytes, sides: Iterable[bytes]) -> bool:
    """Whether there are marks of a conflict in it, beside those that are in one of the sides by right."""
    known = {line for side in sides for line in _END.findall(side)}
    return bool(_BEGIN.search(data)) and any(line not in known for line in _END.findall(data))
