"""The target of a worktree's HEAD, read from its files.

git reads the HEAD of all worktrees to tell of one: where an agent put a pipe in place of its own, git would wait there.
"""

import os
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import read_regular
from forkjoin.git.refs import find_symbolic_target

#: Bytes of a symbolic ref.
_LIMIT = 4096


async def follow_head(common_dir: str, git_dir: Path) -> list[str]:
    """Return the ref that HEAD leads to, last, and the symbolic refs on the way; empty if HEAD is detached or gone."""
    if await to_thread.run_sync(Path(common_dir, "reftable").is_dir):
        found = await find_symbolic_target(git_dir, "HEAD")
        return [found] if found else []
    return await to_thread.run_sync(_follow, Path(common_dir), git_dir)


def _follow(common_dir: Path, git_dir: Path) -> list[str]:
    found: list[str] = []
    ref = _leads_to(git_dir / "HEAD")
    while ref and ref not in found:
        found.append(ref)
        ref = _leads_to(git_dir / ref) or _leads_to(common_dir / ref)  # a worktree has refs of its own, too
    return found


def _leads_to(file: Path) -> str | None:
    """Return what a symbolic ref points to, which may be a symlink (core.preferSymlinkRefs)."""
    try:
        if file.is_symlink() and (target := os.readlink(file)).startswith("refs/"):  # noqa: PTH115 - as it is written
            return target
        data = os.fsdecode(read_regular(file, _LIMIT) or b"")
    except PermissionError:
        raise  # it may lead anywhere
    except OSError:
        return None
    return data.removeprefix("ref:").strip() if data.startswith("ref:") else None
