"""What stands in about.json of an agent's attempt, as it is written where the attempt is submitted."""

import json
from pathlib import Path
from typing import Any

from forkjoin.core.paths import Home
from support.harness import git


def write_about(home: Home, repository: Path, agent: dict[str, Any]) -> None:
    """Write it for an agent as list_agents tells of it."""
    (folder,) = home.worktrees.iterdir()
    about = {
        "agent": int(agent["id"][1:]),
        "attempt": 1,
        "name": agent["name"],
        "project": str(repository / ".git"),
        "lead": "session-1",
        "branch": agent["branch"],
        "base": git(repository, "rev-parse", "main"),
        "worktree": str(folder / f"{agent['id']}-{agent['name']}"),
        "checkout": str(repository),
        "conversation": "c",
        "spec": {"agent": "sh", "task": "the task"},
    }
    (home.attempts / f"{agent['id']}-1" / "about.json").write_text(json.dumps(about))
