"""The refs that a worktree's HEAD leads to, read from files.

`git worktree list` and similar commands read the HEAD of every worktree. If an agent replaces its HEAD with a named
pipe, these commands block.
"""

import os
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import read_regular
from forkjoin.git.refs import find_symbolic_target

#: Bytes of a ref's file that are read.
_REF_LIMIT = 4096


async def follow_head(common_dir: str, git_dir: Path) -> list[str]:
    """Return the refs on the way from HEAD to its branch, the branch last.

    Return an empty list if HEAD is detached.

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
        ref = _read_target(git_dir / ref) or _read_target(common_dir / ref)  # a worktree also has refs of its own
    return found


def _read_target(file: Path) -> str | None:
    """Return the target of a symbolic ref, or `None` if the file is none.

    The ref may be a symlink.
    """
    try:
        if file.is_symlink() and (target := os.readlink(file)).startswith("refs/"):  # noqa: PTH115 - keeps its spelling
            return target  # as git writes it with core.preferSymlinkRefs
        data = os.fsdecode(read_regular(file, _REF_LIMIT) or b"")
    except PermissionError:
        raise  # the target is unknown
    except OSError:
        return None
    return data.removeprefix("ref:").strip() if data.startswith("ref:") else None
