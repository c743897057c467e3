"""spawn_agents and spawn_agent."""

from collections.abc import Sequence

from forkjoin.agents.budget_limits import find_budgets
from forkjoin.agents.candidates import MAX_AGENTS_PER_CALL
from forkjoin.agents.spawn import spawn
from forkjoin.core.agent_spec import Name, Spec, SpecParts, Text
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.scheduling.budget import BudgetGate
from forkjoin.scheduling.path_overlap import find_overlaps
from forkjoin.scheduling.scheduler import SchedulerInput, plan_waves, queue_order
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forkjoin_tools.reply_size import first_lines
from forkjoin_tools.spec_schema import list_agents_alone, list_all_fields, list_common_fields
from forkjoin_tools.tool_call import AgentRow, ToolCall, row_fields
from forkjoin_tools.tool_definition import Arguments, describe_errors, tool

#: Maximal pairs of agents with overlapping paths that are reported.
_MOST_OVERLAPS = 20


class OneAgent(Spec, Arguments):
    """The arguments of spawn_agent: a spec."""

    model_config = ConfigDict(json_schema_extra=list_all_fields)


class _Entry(SpecParts):
    """One entry of `agents`: a spec in which any field may be left to the defaults."""

    model_config = ConfigDict(json_schema_extra=list_common_fields)

    task: Text | None = None
    name: Name | None = None


class ManyAgents(SpecParts, Arguments):
    """The arguments of spawn_agents: an entry per agent, and defaults for the fields that an entry leaves out."""

    model_config = ConfigDict(json_schema_extra=list_agents_alone)

    task: Text | None = None
    agents: list[_Entry] = Field(min_length=1, max_length=MAX_AGENTS_PER_CALL)
    dry_run: bool = Field(
        False,
        description="Only report start order, overlapping `paths`, missing verify.",
    )


class Spawned(AgentRow):
    branch: str
    queue_position: int | None = None


class SpawnedOne(Spawned):
    candidates: list[Spawned] | None = None  #: all candidates, beginning with this agent; `None` if there is only one
    note: str | None = None


class SpawnedAll(BaseModel):
    agents: list[Spawned]
    waves: list[list[str]] | None = None  #: ids in the order of starts, if not all start at once; names in a dry run
    overlaps: list[str] | None = None  #: pairs of agents whose `paths` overlap
    without_verify: list[str] | None = None  #: names; in a dry run
    to_reserve_usd: float | None = None  #: in a dry run with limited budgets
    note: str | None = None


@tool(always_loaded=True)
async def spawn_agents(call: ToolCall, arguments: ManyAgents) -> SpawnedAll:
    """Start coding agents in the background, one per entry of `agents`.

    Returns their ids at once. Each works in its own new git worktree, outside your checkout, on its own branch; what
    it leaves uncommitted is committed. Excess agents queue. Fields next to `agents` are defaults for all entries.
    spawn_agent lists rarer fields (model, budget, candidates, permissions), valid here too. If one entry is invalid,
    none starts. Next: wait_agents.
    """
    specs = [_complete_entry(arguments, item, n) for n, item in enumerate(arguments.agents)]
    return await _spawn(call, specs, keep=not arguments.dry_run)


@tool()
async def spawn_agent(call: ToolCall, arguments: OneAgent) -> SpawnedOne:
    """Start one coding agent.

    Returns at once. For several use spawn_agents, which also describes task, name, base, after and verify.
    """
    all_ = await _spawn(call, [arguments], keep=True)
    several = all_.agents if len(all_.agents) > 1 else None
    return SpawnedOne(**all_.agents[0].model_dump(), candidates=several, note=all_.note)


def _complete_entry(defaults: ManyAgents, item: _Entry, number: int) -> Spec:
    """Return the spec of an entry, with missing fields taken from the defaults.

    A default `after` or `base` that names the entry itself is left out.

    Raises:
        CallerError: The spec is invalid, e.g. without a task.
    """
    common = defaults.model_dump(exclude_unset=True, exclude={"agents", "dry_run"})
    common["after"] = tuple(name for name in defaults.after if name != item.name)
    common["base"] = defaults.base if defaults.base != item.name else None
    try:
        return Spec.model_validate(common | item.model_dump(exclude_unset=True))
    except ValidationError as error:
        errors = error.errors()
        for problem in errors:
            problem["loc"] = ("agents", number, *problem["loc"])
        raise CallerError(describe_errors("spawn_agents", errors, ManyAgents)) from None


async def _spawn(call: ToolCall, specs: Sequence[Spec], *, keep: bool) -> SpawnedAll:
    spawned = await spawn(call.services, call.caller, specs, keep=keep)
    agents = {agent.number: agent for agent in spawned.agents}
    live = [agent for agent in await call.store.agents.live() if agent.number not in agents] + spawned.agents
    inputs = SchedulerInput(live, call.reconciler.schedule.max_running)
    places = {number: place for place, number in enumerate(queue_order(inputs), 1)}
    waves = [[agents[number] for number in wave] for wave in plan_waves(inputs, agents.keys())]
    if not keep:
        return SpawnedAll(
            agents=[],
            waves=[[agent.name for agent in wave] for wave in waves],
            overlaps=_overlaps(spawned.agents) or None,
            without_verify=[agent.name for agent in spawned.agents if not agent.spec.verify] or None,
            to_reserve_usd=await _to_reserve(call, spawned.agents) or None,
            note=f"Nothing was spawned: this was a dry run. {spawned.note or ''}".strip(),
        )
    return SpawnedAll(
        agents=[
            Spawned(**row_fields(a), branch=a.worktree.branch, queue_position=places.get(a.number))
            for a in spawned.agents
        ],
        waves=[[agent.id for agent in wave] for wave in waves] if len(waves) > 1 else None,
        overlaps=_overlaps(spawned.agents) or None,
        note=spawned.note,
    )


async def _to_reserve(call: ToolCall, agents: Sequence[Agent]) -> float:
    """Return the USD that would be reserved for the agents.

    This includes the agents that they may spawn.
    """
    budgets = BudgetGate((), await find_budgets(call.services, agents), call.services.settings.budget.reserve_usd)
    nested = sum(agent.spec.nesting.budget_usd or 0 for agent in agents if agent.spec.nesting)
    return nested + sum(budgets.needed_usd(agent)[0] for agent in agents)


def _overlaps(agents: Sequence[Agent]) -> list[str]:
    found = find_overlaps({agent.candidates.name or agent.name: agent.spec.paths for agent in agents})
    return first_lines([f"{agent} and {other}: {path}" for agent, other, path in found], _MOST_OVERLAPS)
