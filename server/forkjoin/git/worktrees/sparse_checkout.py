"""Sparse checkouts: worktrees that have only a part of their commit's files."""

import os
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import read_regular
from forkjoin.git import git
from forkjoin.git.file_names import split_names
from forkjoin.git.worktrees.worktree_folder import git_folder_of_checkout

#: The options with which git writes all files, even in a sparse worktree.
NOT_SPARSE = ("-c", "core.sparseCheckout=false")

_PATTERNS = "info/sparse-checkout"
#: Files in a worktree's git folder that would make git omit files of a commit, or work in another folder.
OWN_SETTINGS = (_PATTERNS, "config.worktree")
_KEYS = r"^(core\.sparsecheckout(cone)?|index\.sparse|extensions\.worktreeconfig)$"


async def copy_from(common_dir: str, checkout: Path | None, folder: Path) -> None:
    """Make a new worktree as sparse as a checkout.

    Args:
        common_dir: The common git folder of the repository.
        checkout: The checkout, or `None` if the worktree should have all files.
        folder: The git folder of the new worktree.
    """
    like = await to_thread.run_sync(git_folder_of_checkout, common_dir, checkout) if checkout else None
    settings = await _read_settings(like) if like else {}
    if like is None or settings.get("core.sparsecheckout") != "true":
        await to_thread.run_sync(lambda: (folder / _PATTERNS).unlink(missing_ok=True))
        return
    await to_thread.run_sync(_copy_patterns, like, folder)
    if settings.pop("extensions.worktreeconfig", None) == "true":  # otherwise the settings apply to all worktrees
        for key, value in settings.items():
            await git.output(folder, "config", "--worktree", key, value, extra={"GIT_DIR": str(folder)})


async def is_sparse(folder: Path) -> bool:
    """Return whether the worktree with this git folder is sparse."""
    return (await _read_settings(folder)).get("core.sparsecheckout") == "true"


def make_whole(folder: Path) -> None:
    """Delete a worktree's sparse patterns and the settings that it has for itself.

    Blocks.
    """
    for name in OWN_SETTINGS:
        (folder / name).unlink(missing_ok=True)


async def _read_settings(folder: Path) -> dict[str, str]:
    """Return the settings that make a worktree sparse, by their names in lower case.

    Return an empty dict if the worktree has no sparse patterns.

    Args:
        folder: The git folder of the worktree.
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
