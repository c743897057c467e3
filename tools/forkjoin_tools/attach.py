"""attach: a person goes on with an agent's conversation. No lead is offered this."""

from forkjoin.agents.attach import attach as attach_to
from mcp_types import CallToolResult

from forkjoin_tools.tool_call import AgentRow, Id, ToolCall, row_fields
from forkjoin_tools.tool_definition import Arguments, tool


class Attach(Arguments):
    id: Id


class Attached(AgentRow):
    argv: tuple[str, ...]
    worktree: str
    environment: dict[str, str]  #: without what is no UTF-8, which JSON can't carry


@tool()
async def attach(call: ToolCall, arguments: Attach) -> CallToolResult:
    """Keep an agent for whoever calls, as long as they are connected, and tell how they go on with its conversation."""
    agent, going = await attach_to(call.services, call.caller, await call.find(arguments.id))
    carried = {name: value for name, value in going.environment.items() if _is_text(name + value)}
    told = Attached(**row_fields(agent), argv=going.argv, worktree=agent.worktree.path, environment=carried)
    return CallToolResult(content=[], structured_content=told.model_dump(mode="json"))  # no key is hidden: it is run


def _is_text(value: str) -> bool:
    return value == value.encode(errors="replace").decode()
