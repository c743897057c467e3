"""Forking: spawn_agent and spawn_agents."""

from collections.abc import Sequence
from typing import Any

from forkjoin.agent.spawn import spawn
from forkjoin.decision.scheduler import in_order
from forkjoin.error import CallerError
from forkjoin.model import NAME_DESCRIPTION, TASK_DESCRIPTION, Name, Spec, SpecParts, Text
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forkjoin_tools.desk import Desk, Row
from forkjoin_tools.strict import Arguments, explain, tool

#: More at once is a mistake, or an attack on the person's purse.
MOST_AT_ONCE = 250


class OneAgent(Spec, Arguments):
    """The arguments of spawn_agent: a spec."""


class _Item(SpecParts):
    """One of several agents: a spec whose parts may stand beside `agents` instead."""

    task: Text | None = Field(None, description=TASK_DESCRIPTION)
    name: Name | None = Field(None, description=NAME_DESCRIPTION)


def _describe_once(schema: dict[str, Any]) -> None:
    """The parts are described in `agents`; beside it they mean the same."""
    for name, part in schema["properties"].items():
        if name != "agents":
            part.pop("description", None)


class ManyAgents(SpecParts, Arguments):
    """The arguments of spawn_agents: specs, and parts that stand for all of them that lack one."""

    model_config = ConfigDict(json_schema_extra=_describe_once)

    task: Text | None = None
    agents: list[_Item] = Field(min_length=1, max_length=MOST_AT_ONCE, description="One entry per agent.")


class Spawned(Row):
    branch: str
    queue_position: int | None = None


class SpawnedOne(Spawned):
    note: str | None = None


class SpawnedAll(BaseModel):
    agents: list[Spawned]
    note: str | None = None


@tool(always_loaded=True)
async def spawn_agents(desk: Desk, arguments: ManyAgents) -> SpawnedAll:
    """Start many coding agents at once, each on its own task in its own git worktree and branch; use it whenever work
    splits into independent parts. Answers at once with ids; the agents run in the background, those beyond the limit
    queue. Then call wait_agents. Parts given beside `agents` are the defaults for all. One bad spec refuses all."""
    return await _spawn(desk, [_complete(arguments, item, n) for n, item in enumerate(arguments.agents)])


@tool(always_loaded=True)
async def spawn_agent(desk: Desk, arguments: OneAgent) -> SpawnedOne:
    """Start one coding agent on a task in its own git worktree and branch. Answers at once; for several, spawn_agents
    in one call is quicker."""
    all_ = await _spawn(desk, [arguments])
    return SpawnedOne(**all_.agents[0].model_dump(), note=all_.note)


def _complete(defaults: ManyAgents, item: _Item, number: int) -> Spec:
    """The spec of one agent, with what it lacks taken from the defaults."""
    parts = defaults.model_dump(exclude_unset=True, exclude={"agents"}) | item.model_dump(exclude_unset=True)
    try:
        return Spec.model_validate(parts)
    except ValidationError as error:
        errors = error.errors()
        for one in errors:
            one["loc"] = ("agents", number, *one["loc"])
        raise CallerError(explain("spawn_agents", errors, {})) from None


async def _spawn(desk: Desk, specs: Sequence[Spec]) -> SpawnedAll:
    spawned = await spawn(desk.rooms, desk.caller, specs)
    queue = {agent.number: place for place, agent in enumerate(in_order(await desk.store.live()), 1)}
    agents = [
        Spawned(id=a.id, name=a.name, state=a.state, branch=a.branch, queue_position=queue.get(a.number))
        for a in spawned.agents
    ]
    return SpawnedAll(agents=agents, note=spawned.note)
