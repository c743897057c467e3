"""Money: set_budget for the lead, and budget for the person alone."""

import math
from dataclasses import replace
from typing import Annotated, Literal

from forkjoin.agents.budgets import find_budgets, find_project_budgets
from forkjoin.core.agent_spec import Dollars
from forkjoin.core.error import CallerError
from forkjoin.core.model import FINAL, Agent, Budget
from forkjoin.scheduling.budget import BudgetGate, format_usd, sum_reserved
from pydantic import BaseModel, Field

from forkjoin_tools.tool_call import AgentRow, Id, ToolCall, Usd, row_fields
from forkjoin_tools.tool_definition import Arguments, tool

# -- set_budget


class SetBudget(Arguments):
    id: Id
    budget_usd: Annotated[Dollars, Field(description="In total, including what it has spent.")]


class Funded(AgentRow):
    budget_usd: float
    spent_usd: Usd


@tool()
async def set_budget(call: ToolCall, arguments: SetBudget) -> Funded:
    """Set the most an agent may spend, including what it grants to agents it spawns. A raise resumes an agent that
    paused at its limit. Only a person can raise the session's and the repository's budget, which bound it."""
    agent = await call.find(arguments.id)
    limit_usd, spent_usd = await _find_granted(call, agent)
    if (own_usd := arguments.budget_usd - limit_usd) <= 0:
        raise CallerError(
            f"{agent.label} was granted {format_usd(limit_usd)} for its own agents, of which budget_usd must leave "
            f"something to itself: give more than that. Nothing was changed; a person sets it with: "
            f"forkjoin budget --lead {agent.as_lead}"
        )
    await _check(call, agent, own_usd)
    await call.store.agents.update(agent, budget_usd=own_usd)
    return Funded(**row_fields(agent), budget_usd=arguments.budget_usd, spent_usd=agent.money.spent_usd + spent_usd)


async def _find_granted(call: ToolCall, agent: Agent) -> tuple[float, float]:
    """What those may spend in all that the agent spawns, and have spent."""
    if not (agent.spec.nesting and agent.spec.nesting.budget_usd):
        return 0.0, 0.0
    known = await find_budgets(call.services, [agent])
    return next(((one.limit_usd or 0.0, one.spent_usd) for one in known if one.lead == agent.as_lead), (0.0, 0.0))


async def _check(call: ToolCall, agent: Agent, budget_usd: float) -> None:
    if agent.state in FINAL:
        raise CallerError(f"{agent.label} has ended ({agent.state}) and spends no more; nothing was changed.")
    wanted = replace(agent, money=replace(agent.money, budget_usd=budget_usd))
    live = [wanted if one.number == agent.number else one for one in await call.store.agents.live()]
    step_usd = call.services.settings.budget.reserve_usd
    hold = BudgetGate(live, await find_budgets(call.services, live), step_usd).hold(wanted)
    if hold and budget_usd > max(agent.money.budget_usd or 0, agent.money.spent_usd):
        raise CallerError(f"{agent.label} can't have {format_usd(budget_usd)}: {hold.why}. Nothing was changed.")


# -- budget


class SetLimit(Arguments):
    budget_usd: Dollars | Literal["unlimited", "default"] | None = None
    lead: str | None = None
    anew: bool = False


class Shared(BaseModel):
    """What the agents of a lead, or of the whole repository, may spend together."""

    lead: str | None = None
    limit_usd: float | None = None
    spent_usd: Usd
    reserved_usd: Usd


class Shares(BaseModel):
    budgets: list[Shared]


@tool()
async def budget(call: ToolCall, arguments: SetLimit) -> Shares:
    """Tell what this repository's agents have spent and may, and set it. A person's: no lead is offered this."""
    lead = arguments.lead or ""
    if arguments.budget_usd is not None or arguments.anew:
        await _check_may_set(call, lead)
    if arguments.budget_usd is not None:
        words: dict[object, float | None] = {"unlimited": math.inf, "default": None}
        limit = arguments.budget_usd if isinstance(arguments.budget_usd, float) else words[arguments.budget_usd]
        await call.store.budgets.set_limit(call.project, lead, limit)
    if arguments.anew:
        await call.store.budgets.reset_spent(call.project, lead)
    live = await call.store.agents.live()
    all_ = await find_budgets(call.services, live)
    return Shares(budgets=[_share(one, live, all_) for one in await find_project_budgets(call.services, call.project)])


async def _check_may_set(call: ToolCall, lead: str) -> None:
    if "CLAUDECODE" in call.caller.session.hello.environment:
        raise CallerError("A lead can't raise what it may spend; a person can, in a terminal of their own.")
    known = sorted(one.lead for one in await find_project_budgets(call.services, call.project) if one.lead)
    if lead and lead not in known and not await call.store.budgets.exists(call.project, lead):
        leads = ", ".join(known[:20]) or "none"
        raise CallerError(f"No lead {lead[:80]!r} in this repository has spent anything; these have: {leads}.")


def _share(budget: Budget, live: list[Agent], all_: list[Budget]) -> Shared:
    return Shared(
        lead=budget.lead or None,
        limit_usd=budget.limit_usd,
        spent_usd=budget.spent_usd,
        reserved_usd=sum_reserved(budget, live, all_),
    )
