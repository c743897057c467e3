"""The tool `attach` of the command line: a person continues an agent's conversation."""

from forkjoin.agents.attach import attach as attach_to
from mcp_types import CallToolResult

from forkjoin_tools.tool_call import AgentRow, Id, ToolCall, row_fields
from forkjoin_tools.tool_definition import Arguments, tool


class Attach(Arguments):
    id: Id


class Attached(AgentRow):
    argv: tuple[str, ...]
    worktree: str
    environment: dict[str, str]  #: without variables that are not UTF-8, which JSON can't hold


@tool()
async def attach(call: ToolCall, arguments: Attach) -> CallToolResult:
    """Reserve an agent for the caller while connected.

    Return how to start its program.
    """
    agent, going = await attach_to(call.services, call.caller, await call.find(arguments.id))
    carried = {name: value for name, value in going.environment.items() if _is_text(name + value)}
    told = Attached(**row_fields(agent), argv=going.argv, worktree=agent.worktree.path, environment=carried)
    return CallToolResult(
        content=[], structured_content=told.model_dump(mode="json")
    )  # not redacted: the command line starts the program with it


def _is_text(value: str) -> bool:
    return value == value.encode(errors="replace").decode()
