"""Ending: stop_agents and remove_worktrees."""

from forkjoin.agent.remove import remove
from forkjoin.agent.stop import stop
from forkjoin.model import FINAL, Agent, State
from pydantic import BaseModel, Field

from forkjoin_tools.desk import Desk, Ids
from forkjoin_tools.strict import Arguments, StrictTool, make_tool


def tools() -> list[StrictTool]:
    return [
        make_tool(stop_agents, destroys=True, repeatable=True),
        make_tool(remove_worktrees, destroys=True, repeatable=True),
    ]


class Stop(Arguments):
    ids: Ids


class Stopped(BaseModel):
    id: str
    name: str
    state: State
    note: str | None = None  #: what keeps it from being over


class StopAnswer(BaseModel):
    agents: list[Stopped]


async def stop_agents(desk: Desk, arguments: Stop) -> StopAnswer:
    """Stop agents with every process they started, and wait until they are gone. Work that was there is committed on
    their branches and kept; queued ones never start; those that had ended stay as they were."""
    agents = await stop(desk.rooms, await desk.find_all(arguments.ids))
    return StopAnswer(agents=[_stopped(agent) for agent in agents])


def _stopped(agent: Agent) -> Stopped:
    note = None if agent.state in FINAL else agent.last_event
    return Stopped(id=agent.id, name=agent.name, state=agent.state, note=note)


class Remove(Arguments):
    ids: Ids
    discard_unmerged: bool = Field(False, description="Also those with unmerged work.")


class Removed(BaseModel):
    id: str
    name: str
    kept_as: str | None = None  #: the ref under which unmerged work stays reachable


class RemoveAnswer(BaseModel):
    removed: list[Removed]


async def remove_worktrees(desk: Desk, arguments: Remove) -> RemoveAnswer:
    """Take away the worktrees and branches of agents that have ended and are merged (or changed nothing). Unmerged work
    is refused unless discard_unmerged, and even then stays reachable in git under refs/forkjoin/kept/."""
    agents = await desk.find_all(arguments.ids)
    kept = await remove(desk.rooms, agents, discard_unmerged=arguments.discard_unmerged)
    return RemoveAnswer(removed=[Removed(id=a.id, name=a.name, kept_as=kept[a.number]) for a in agents])
