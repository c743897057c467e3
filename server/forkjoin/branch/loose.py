"""What an agent's program leaves in its worktree, and what is brought there before it starts."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.branch import git
from forkjoin.error import GitError

#: How many ignored files or folders are named before the rest is only counted.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Left:
    """How an agent's branch stands once its loose work is committed.

    Attributes:
        tip: The branch's commit; none where nothing of it is left.
        loose: How many paths were uncommitted, and are committed now.
        warnings: What the lead should know, each a sentence.
    """

    tip: str | None
    loose: int
    warnings: list[str]


async def commit_loose(
    common_dir: str, worktree: Path, branch: str, message: str, author: Mapping[str, str], keep_as: str
) -> Left:
    """Commit whatever is uncommitted (untracked files too) and see that `branch` has it; doing so twice is harmless.

    Work that `branch` can't take, because the agent moved it elsewhere, is kept under refs/forkjoin/kept/`keep_as`.
    """
    ref = f"refs/heads/{branch}"
    if not await _is_ours(worktree, common_dir):
        return Left(
            await git.tip(common_dir, ref),
            0,
            ["The agent removed or replaced its worktree: only what it had committed on its branch is left."],
        )
    warnings: list[str] = []
    head = await git.resolve(worktree, "HEAD")
    tree, loose = await _stage(worktree, warnings)
    tip = head
    if head is None or await git.tree_of(worktree, head) != tree:
        parents = ["-p", head] if head else []
        tip = await git.git(worktree, "commit-tree", *parents, "-m", message, tree, extra=author)
        warnings.append(f"{loose} uncommitted path{'s were' if loose != 1 else ' was'} committed for the agent.")
        await git.git(worktree, "update-ref", "-m", "forkjoin: loose work", "HEAD", tip, *([head] if head else []))
    assert tip is not None
    warnings += await _bring_home(common_dir, ref, tip, keep_as)
    warnings += await _name_ignored(worktree)
    return Left(await git.tip(common_dir, ref), loose, warnings)


async def _is_ours(worktree: Path, common_dir: str) -> bool:
    """Whether the folder still is a worktree of the repository, and no other one's that the agent put there."""
    if not (worktree / ".git").is_file():
        return False
    code, out, _ = await git.run(worktree, "rev-parse", "--path-format=absolute", "--git-common-dir")
    return code == 0 and Path(out.decode().strip()).resolve() == Path(common_dir)


async def _stage(worktree: Path, warnings: list[str]) -> tuple[str, int]:
    """Stage all that is there; the tree it makes, and how many paths differed from HEAD."""
    lock = Path(await git.git(worktree, "rev-parse", "--path-format=absolute", "--git-path", "index.lock"))
    lock.unlink(missing_ok=True)  # left by a git that was killed: nothing runs in this worktree any more
    status = await git.git(worktree, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames")
    try:
        await git.git(worktree, "add", "--all", "--", ".")
    except GitError as error:
        await git.run(worktree, "add", "--all", "--ignore-errors", "--", ".")
        warnings.append(f"Not all of the uncommitted work could be committed: {error.last_line}")
    return await git.git(worktree, "write-tree"), len(status.rstrip("\0").split("\0")) if status else 0


async def _bring_home(common_dir: str, ref: str, tip: str, keep_as: str) -> list[str]:
    """See that the agent's branch has its last commit, wherever it was made."""
    now = await git.tip(common_dir, ref)
    if now == tip:
        return []
    if now is None:
        await git.update_refs(common_dir, [f"create {ref} {tip}"], "forkjoin: restored")
        return ["The agent's branch was gone; it was made again at the agent's last commit."]
    if await git.is_ancestor(common_dir, now, tip):
        await git.update_refs(common_dir, [f"update {ref} {tip} {now}"], "forkjoin: brought home")
        return ["The agent worked off its branch; the branch was moved to its last commit."]
    if await git.is_ancestor(common_dir, tip, now):
        return []
    kept = f"refs/forkjoin/kept/{keep_as}"
    await git.update_refs(common_dir, [f"update {kept} {tip}"], "forkjoin: kept")
    return [f"The agent's HEAD had left its branch; what was there is kept as {kept}, and is not merged."]


async def _name_ignored(worktree: Path) -> list[str]:
    listing = await git.git(worktree, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
    names = [name for name in listing.split("\0") if name]
    brought = set(await _included(worktree))
    names = [name for name in names if name not in brought]
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"Ignored files stay in the worktree and are not merged: {', '.join(names[:_NAMED])}{more}."]


async def _included(checkout: Path) -> list[str]:
    """The ignored files that `.worktreeinclude`, which reads as a .gitignore does, names in this checkout."""
    if not (checkout / ".worktreeinclude").is_file():
        return []
    listing = await git.git(
        checkout, "ls-files", "-z", "--others", "--ignored", "--exclude-from=.worktreeinclude", "--", "."
    )
    if not listing:
        return []
    # Exit 1 says that none of them is ignored.
    _, out, _ = await git.run(checkout, "check-ignore", "-z", "--stdin", stdin=listing.encode(errors="surrogateescape"))
    return [name for name in out.decode(errors="surrogateescape").split("\0") if name]


async def bring_ignored(checkout: Path, worktree: Path) -> int:
    """Copy what `.worktreeinclude` names (such as .env) from the checkout to a worktree; how many files that were."""
    names = await _included(checkout)
    await to_thread.run_sync(_copy, checkout, worktree, names)
    return len(names)


def _copy(checkout: Path, worktree: Path, names: list[str]) -> None:
    root = worktree.resolve()
    for name in names:
        target = worktree / name
        if not target.parent.resolve().is_relative_to(root):
            continue  # a symlink in the base leads out of the worktree
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() and not target.is_symlink():
            shutil.copy2(checkout / name, target, follow_symlinks=False)
