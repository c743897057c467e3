"""The file about.json of an attempt, from which a lost record is restored."""

import json
from pathlib import Path
from typing import Any

from forkjoin.core.paths import Home
from support.harness import git


def write_about(home: Home, repository: Path, agent: dict[str, Any]) -> None:
    """Write the about.json of an agent's first attempt.

    `agent` is the agent's entry in the result of list_agents.
    """
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
