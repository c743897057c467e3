"""What an agent has done, as its repository and its records tell together."""

from forkjoin.branch import git
from forkjoin.model import Agent
from forkjoin.record.store import Store


async def find_last(store: Store, agent: Agent) -> str | None:
    """The commit at which its last attempt that has ended left its branch; none where there was none."""
    result = await store.result(agent.number)
    return result.commit if result else None


async def find_end(store: Store, common_dir: str, agent: Agent) -> str | None:
    """The commit at which an agent's work ends, whether or not its branch is still there."""
    return await git.tip(common_dir, agent.ref) or await find_last(store, agent)
