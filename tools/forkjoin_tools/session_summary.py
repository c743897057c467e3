"""The tool `brief` of the command line: a summary of agents for the start of a session."""

from forkjoin.core.model import Merge
from pydantic import BaseModel

from forkjoin_tools.tool_call import AgentRow, ToolCall, row_fields
from forkjoin_tools.tool_definition import Arguments, tool

#: Maximal agents in a summary.
_MOST_AGENTS = 20


class SummaryRow(AgentRow):
    merge: Merge
    task: str  #: the beginning of the task


class SessionSummary(BaseModel):
    agents: list[SummaryRow]
    more: int | None = None  #: number of further agents


@tool(name="brief", reads_only=True)
async def summarize_session(call: ToolCall, arguments: Arguments) -> SessionSummary:  # noqa: ARG001
    """Return the agents that are under way, unmerged, or otherwise need attention."""
    found, total = await call.store.agents.needing_attention(call.project, _MOST_AGENTS)
    tasks = await call.store.agents.task_beginnings(agent.number for agent in found)
    rows = [SummaryRow(**row_fields(agent), merge=agent.merge, task=tasks.get(agent.number, "")) for agent in found]
    return SessionSummary(agents=rows, more=total - len(rows) or None)
