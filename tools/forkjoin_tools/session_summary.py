"""brief: a summary of agents for the start of a session. Command line only."""

from forkjoin.core.model import Merge
from pydantic import BaseModel

from forkjoin_tools.call_context import Desk, Row, row_of
from forkjoin_tools.tool_definition import Arguments, tool

_MOST = 20


class Open(Row):
    merge: Merge
    task: str  #: its beginning


class Brief(BaseModel):
    agents: list[Open]
    more: int | None = None  #: how many there are besides


@tool(reads_only=True)
async def brief(desk: Desk, arguments: Arguments) -> Brief:  # noqa: ARG001
    """Return the agents that are under way, and those that need something done."""
    found, total = await desk.store.agents.needing_attention(desk.project, _MOST)
    tasks = await desk.store.agents.task_beginnings(agent.number for agent in found)
    told = [Open(**row_of(agent), merge=agent.merge, task=tasks.get(agent.number, "")) for agent in found]
    return Brief(agents=told, more=total - len(told) or None)
