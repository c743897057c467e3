"""Repair of an idle worktree's git folder, so that git can be called there."""

import os
import re
from pathlib import Path

from forkjoin.core.regular_file import read_regular
from forkjoin.git.file_names import printable_list
from forkjoin.git.git_folder import is_irregular, is_oversized, resolve_common_dir
from forkjoin.git.worktrees.delete_path import delete_path
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree

#: The contents that git accepts in HEAD: a symbolic ref, or the id of a commit.
_HEAD = re.compile(rb"(ref:\s*refs/\S.*|[0-9a-f]{40}|[0-9a-f]{64})\n?", re.DOTALL)
#: The folder with submodules' git folders. Symlinks in it are accepted: the user's git template may have some.
MODULES = "modules"


def repair_git_folder(place: RegisteredWorktree, branch: str) -> list[str]:
    """Remove pipes and symlinks from a worktree's git folder, and repair its HEAD.

    Blocks. Also point the git folder to the repository again, and remove pipes in place of the agent's branch.

    Args:
        place: A worktree in which no program runs.
        branch: The agent's branch, to which a damaged HEAD is reset.

    Returns:
        Warnings for the lead, one for each kind of damage.
    """
    warnings: list[str] = []
    ref = Path(place.common_dir, "refs", "heads", branch)
    reflog = Path(place.common_dir, "logs", "refs", "heads", branch)
    strange = [*_find_strange(place.folder), *filter(is_irregular, (ref, reflog))]
    if reflog.is_symlink() and reflog not in strange:  # git would append to the target of the symlink
        strange.append(reflog)
    for file in strange:
        delete_path(file)
    if strange:
        names = [os.path.relpath(file, place.common_dir) for file in strange]
        warnings.append(
            f"The agent put entries that git can't use in a git folder. They were removed: {printable_list(names)}."
        )
    if resolve_common_dir(place.folder) != os.path.realpath(place.common_dir):
        _put(place.folder / "commondir", place.common_dir)
        warnings.append("The agent pointed the git folder of its worktree to another repository. This was repaired.")
    head = place.folder / "HEAD"
    if not head.is_symlink() and not _HEAD.fullmatch(read_regular(head, 4096) or b""):
        has_reftable = Path(place.common_dir, "reftable").is_dir()
        _put(head, "ref: refs/heads/.invalid" if has_reftable else f"ref: refs/heads/{branch}")
        warnings.append("HEAD of the agent's worktree was damaged. HEAD points to the agent's branch again.")
    return warnings


def _find_strange(top: Path) -> list[Path]:
    """Return the pipes, sockets, devices, symlinks and huge files in a git folder.

    Omit symlinks that may be there: HEAD as a link to a ref, and links in the git folders of submodules.
    """
    found: list[Path] = []
    for above, folders, files in os.walk(top):
        is_module = MODULES in Path(above).relative_to(top).parts
        for file in (Path(above, name) for name in (*folders, *files)):
            is_symbolic = file == top / "HEAD" and str(file.readlink() if file.is_symlink() else "").startswith("refs/")
            is_large = is_oversized(top, os.path.relpath(file, top))
            if is_large or is_irregular(file) or (file.is_symlink() and not is_module and not is_symbolic):
                found.append(file)
    return found


def _put(file: Path, line: str) -> None:
    delete_path(file)
    file.write_bytes(os.fsencode(f"{line}\n"))
