"""Names of new agents' branches, and paths of their worktrees."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from forkjoin.core.agent_spec import slug
from forkjoin.git.refs import find_tip


async def find_naming_scheme(common_dir: str, worktrees: Path) -> Callable[[int, str], tuple[str, str]]:
    """Return a function that names an agent's branch and worktree.

    The function takes the agent's number and name. It returns the branch name and the worktree's path.

    Args:
        common_dir: The common git folder of the agents' repository.
        worktrees: The folder for the worktrees of all repositories.
    """
    # git allows no branch below another branch.
    prefix = "forkjoin-" if await find_tip(common_dir, "refs/heads/forkjoin") else "forkjoin/"
    folder = worktrees / _folder_name(common_dir)

    def name_agent(number: int, name: str) -> tuple[str, str]:
        return f"{prefix}a{number}-{name}", str(folder / f"a{number}-{name}")

    return name_agent


def _folder_name(common_dir: str) -> str:
    """Return the name of the folder for one repository's worktrees.

    The name contains a hash, so that no two repositories share the folder.
    """
    top = Path(common_dir)
    name = slug(top.parent.name if top.name == ".git" else top.name) or "repository"
    return f"{name}-{hashlib.sha256(common_dir.encode(errors='replace')).hexdigest()[:8]}"
