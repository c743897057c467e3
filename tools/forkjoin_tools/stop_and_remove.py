"""stop_agents and remove_worktrees."""

from forkjoin.agents.remove import remove_agents
from forkjoin.agents.stop import stop
from forkjoin.core.model import FINAL
from pydantic import BaseModel, Field

from forkjoin_tools.reply_size import first_lines, fit_rows
from forkjoin_tools.tool_call import AgentRow, Ids, ToolCall, row_fields
from forkjoin_tools.tool_definition import Arguments, tool

#: Bytes of the agents in one result.
_ROWS_BYTES = 40_000
#: Maximal warnings in one result.
_WARNINGS = 20


class Stop(Arguments):
    ids: Ids


class Stopped(AgentRow):
    note: str | None = None  #: why the agent has not ended yet


class StopAnswer(BaseModel):
    agents: list[Stopped]
    more: int | None = None  #: how many agents did not fit


@tool(destroys=True)
async def stop_agents(call: ToolCall, arguments: Stop) -> StopAnswer:
    """Stop agents and every process they started.

    Blocks until these are gone. Their work is committed to their branches and kept. Queued agents never start; ended
    ones don't change.
    """
    agents = await stop(call.services, await call.find_all(arguments.ids))
    rows = [Stopped(**row_fields(agent), note=None if agent.state in FINAL else agent.last_event) for agent in agents]
    fitting = fit_rows(rows, _ROWS_BYTES)
    return StopAnswer(agents=fitting, more=len(rows) - len(fitting) or None)


class Remove(Arguments):
    ids: Ids
    discard_unmerged: bool = Field(False, description="Also remove unmerged work.")


class RemovedAgent(BaseModel):
    id: str
    name: str
    kept_as: str | None = None  #: the ref under which unmerged work stays reachable


class RemoveAnswer(BaseModel):
    removed: list[RemovedAgent]
    more: int | None = None  #: how many agents did not fit
    warnings: list[str] | None = None  #: failed teardowns, and where work in nested repositories is kept


@tool(destroys=True)
async def remove_worktrees(call: ToolCall, arguments: Remove) -> RemoveAnswer:
    """Remove worktrees and branches of ended agents.

    Unmerged work is an error unless discard_unmerged; even then git keeps it under refs/forkjoin/kept/.
    """
    agents = await call.find_all(arguments.ids)
    environment = call.services.environments.find_for_caller(call.caller)
    kept, warnings = await remove_agents(
        call.services, agents, discard_unmerged=arguments.discard_unmerged, environment=environment
    )
    rows = [RemovedAgent(id=a.id, name=a.name, kept_as=kept[a.number]) for a in agents]
    fitting = fit_rows(rows, _ROWS_BYTES)
    return RemoveAnswer(
        removed=fitting, more=len(rows) - len(fitting) or None, warnings=first_lines(warnings, _WARNINGS) or None
    )
