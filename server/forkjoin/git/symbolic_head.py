"""The refs that a worktree's HEAD leads to, read from files and not by git.

`git worktree list` and similar commands read the HEAD of every worktree. If an agent replaces its HEAD with a named
pipe, these commands block.
"""

import contextlib
import os
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import read_line
from forkjoin.git.refs import find_symbolic_target


async def follow_head(common_dir: str, git_dir: Path) -> list[str]:
    """Return the refs on the way from HEAD to its branch, the branch last.

    Return an empty list if HEAD is detached. In a reftable, only the last of the refs is found.

    Raises:
        PermissionError: This user may not read one of the refs.
    """
    if await to_thread.run_sync(Path(common_dir, "reftable").is_dir):
        found = await find_symbolic_target(git_dir, "HEAD")
        return [found] if found else []
    return await to_thread.run_sync(_follow, Path(common_dir), git_dir)


def _follow(common_dir: Path, git_dir: Path) -> list[str]:
    found: list[str] = []
    ref = _read_target(git_dir / "HEAD")
    while ref and ref not in found:
        found.append(ref)
        ref = _read_target(git_dir / ref) or _read_target(
            common_dir / ref
        )  # some refs, such as refs/bisect/bad, belong to one worktree
    return found


def _read_target(file: Path) -> str | None:
    """Return the target of the symbolic ref in a file, or `None` without one."""
    # With core.preferSymlinkRefs, git makes a symbolic ref as a symlink.
    with contextlib.suppress(FileNotFoundError):
        if file.is_symlink() and (target := os.readlink(file)).startswith("refs/"):  # noqa: PTH115 - keeps its spelling
            return target
    line = read_line(file, strict=True) or ""
    return line.removeprefix("ref:").strip() if line.startswith("ref:") else None
