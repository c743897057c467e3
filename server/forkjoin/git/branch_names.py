"""What a new agent's branch is called, and where its worktree is to stand."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from forkjoin.core.agent_spec import slug
from forkjoin.git.refs import find_tip


async def find_naming_scheme(common_dir: str, worktrees: Path) -> Callable[[int, str], tuple[str, str]]:
    """What gives the branch and the worktree of a repository's agent, by its number and name."""
    prefix, folder = await _branch_prefix(common_dir), worktrees / _folder(common_dir)

    def place(number: int, name: str) -> tuple[str, str]:
        return f"{prefix}a{number}-{name}", str(folder / f"a{number}-{name}")

    return place


def _folder(common_dir: str) -> str:
    """What the folder is called in which a home keeps the worktrees of a repository."""
    top = Path(common_dir)
    name = slug(top.parent.name if top.name == ".git" else top.name) or "repository"
    return f"{name}-{hashlib.sha256(common_dir.encode(errors='replace')).hexdigest()[:8]}"


async def _branch_prefix(common_dir: str) -> str:
    """`forkjoin/`, unless a branch called `forkjoin` stands where git would need a folder."""
    return "forkjoin-" if await find_tip(common_dir, "refs/heads/forkjoin") else "forkjoin/"
