"""Sparse checkouts: worktrees that have only a part of their commit's files."""

import os
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import read_regular
from forkjoin.git import git
from forkjoin.git.file_names import split_names
from forkjoin.git.worktrees.worktree_folder import git_folder

#: Options for a git call that should write all files, even in a sparse worktree.
WHOLE = ("-c", "core.sparseCheckout=false")

_PATTERNS = "info/sparse-checkout"
_KEYS = r"^(core\.sparsecheckout(cone)?|index\.sparse|extensions\.worktreeconfig)$"


async def follow(common_dir: str, folder: Path, checkout: Path | None) -> None:
    """Make a new worktree as sparse as a checkout, or whole if none is given."""
    like = await to_thread.run_sync(_folder_of, common_dir, checkout) if checkout else None
    settings = await _read_settings(like) if like else {}
    if like is None or settings.get("core.sparsecheckout") != "true":
        await to_thread.run_sync(lambda: (folder / _PATTERNS).unlink(missing_ok=True))
        return
    await to_thread.run_sync(_copy_patterns, like, folder)
    if settings.pop("extensions.worktreeconfig", None) == "true":  # else all worktrees have the same
        for key, value in settings.items():
            await git.output(folder, "config", "--worktree", key, value, extra={"GIT_DIR": str(folder)})


async def is_sparse(folder: Path) -> bool:
    """Return whether the worktree of this git folder is sparse."""
    return (await _read_settings(folder)).get("core.sparsecheckout") == "true"


def make_whole(folder: Path) -> None:
    """Remove a worktree's sparse patterns and its own settings."""
    for name in (_PATTERNS, "config.worktree"):
        (folder / name).unlink(missing_ok=True)


def _folder_of(common_dir: str, checkout: Path) -> Path:
    return git_folder(common_dir, checkout) or Path(common_dir)


async def _read_settings(folder: Path) -> dict[str, str]:
    """Return the settings that make a worktree sparse.

    Return an empty result if it has no sparse patterns.
    """
    if not await to_thread.run_sync((folder / _PATTERNS).is_file):
        return {}
    asked = ("config", "-z", "--type=bool", "--get-regexp", _KEYS)
    _, out, _ = await git.run(folder, *asked, extra={"GIT_DIR": str(folder)})
    entries = [entry.partition("\n") for entry in split_names(os.fsdecode(out))]
    return {key: value for key, _, value in entries}


def _copy_patterns(like: Path, folder: Path) -> None:
    (folder / _PATTERNS).parent.mkdir(exist_ok=True)
    (folder / _PATTERNS).write_bytes(read_regular(like / _PATTERNS) or b"")
