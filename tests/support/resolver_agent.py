"""A scripted agent. It runs its task, or a test's script if its worktree has an unfinished merge."""

from pathlib import Path
from typing import Any

from forkjoin.core.paths import Home
from support.harness import Lead, git

_PROGRAM = """
if [ -e "$(git rev-parse --git-path MERGE_HEAD)" ]; then
    cat > "$FORKJOIN_HOME/brief-$FORKJOIN_AGENT"
    . "$FORKJOIN_HOME/resolve.sh"
else
    exec sh "$FORKJOIN_TASK_FILE"
fi
"""

#: Tasks of agents. The work of each conflicts with the work of the others.
ONE, TWO, THREE = ("echo 1 > shared.txt # first", "echo 2 > shared.txt # second", "echo 3 > shared.txt # third")
#: Resolves the conflict: keeps both sides, one below the other.
BOTH = "sed -i -e '/^<<<<<<< /d' -e '/^||||||| /,/^=======$/d' -e '/^>>>>>>> /d' shared.txt"
COMMITTED = f"{BOTH}; git add shared.txt; git commit -q --no-edit"


def let_agents_resolve(home: Home) -> None:
    """Make the agent `sh` the scripted agent, for sessions opened from now on."""
    (home.state / "agent.sh").write_text(_PROGRAM)
    config = home.config_file.read_text()
    home.config_file.write_text(config.replace('["sh"]', f'["sh", "{home.state}/agent.sh"]'))
    resolve_by(home, COMMITTED)


def resolve_by(home: Home, script: str) -> None:
    (home.state / "resolve.sh").write_text(script)


async def conflict(lead: Lead, *tasks: str, **how: Any) -> list[str]:
    """Run and merge agents with these tasks, all but the first in conflict.

    Return the ids of their resolvers after the resolvers have ended.
    """
    ids = await lead.run(*tasks)
    answer = await lead.call("merge_worktree", ids=ids, on_conflict="agent", **how)
    assert [one["id"] for one in answer["merged"]] == ids[:1], answer
    resolving = [one["resolving"] for one in answer["conflicted"]]
    await lead.results(*resolving)
    return resolving


async def merge_states(lead: Lead, *ids: str) -> list[str]:
    return [(await lead.call("get_result", id=one))["merge"] for one in ids]


def parents(repository: Path, revision: str) -> list[str]:
    return git(repository, "log", "-1", "--format=%P", revision).split()
