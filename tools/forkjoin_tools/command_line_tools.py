"""The tools `attach` and `brief`, which only a person's command line gets."""

from forkjoin.agents.attach import attach as reserve
from forkjoin.core.model import Merge
from mcp_types import CallToolResult
from pydantic import BaseModel

from forkjoin_tools.tool_call import AgentRow, Id, ToolCall, row_fields
from forkjoin_tools.tool_definition import Arguments, tool

#: Maximal agents in a summary.
_MOST_AGENTS = 20

# -- attach


class Attach(Arguments):
    id: Id


class Attached(AgentRow):
    argv: tuple[str, ...]
    worktree: str
    environment: dict[str, str]  #: without variables that are not UTF-8, which JSON can't hold


@tool()
async def attach(call: ToolCall, arguments: Attach) -> CallToolResult:
    """Reserve an agent while the caller is connected. Return how to start it."""
    agent, going = await reserve(call.services, call.caller, await call.find(arguments.id))
    environment = {name: value for name, value in going.environment.items() if _is_utf8(name + value)}
    answer = Attached(**row_fields(agent), argv=going.argv, worktree=agent.worktree.path, environment=environment)
    # Not redacted, because the command line starts the program with it.
    return CallToolResult(content=[], structured_content=answer.model_dump(mode="json"))


def _is_utf8(value: str) -> bool:
    return value == value.encode(errors="replace").decode()


# -- brief


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
