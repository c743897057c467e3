"""brief: a summary of agents for the start of a session. Command line only."""

from forkjoin.core.model import Merge
from pydantic import BaseModel

from forkjoin_tools.tool_call import AgentRow, ToolCall, row_fields
from forkjoin_tools.tool_definition import Arguments, tool

_MOST = 20


class Open(AgentRow):
    merge: Merge
    task: str  #: its beginning


class Brief(BaseModel):
    agents: list[Open]
    more: int | None = None  #: how many there are besides


@tool(reads_only=True)
async def brief(call: ToolCall, arguments: Arguments) -> Brief:  # noqa: ARG001
    """Return the agents that are under way, and those that need something done."""
    found, total = await call.store.agents.needing_attention(call.project, _MOST)
    tasks = await call.store.agents.task_beginnings(agent.number for agent in found)
    told = [Open(**row_fields(agent), merge=agent.merge, task=tasks.get(agent.number, "")) for agent in found]
    return Brief(agents=told, more=total - len(told) or None)
