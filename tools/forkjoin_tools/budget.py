"""set_budget, for leads, and budget, for persons only."""

import math
from dataclasses import replace
from typing import Annotated, Literal

from forkjoin.agents.budget_limits import find_budgets, find_project_budgets
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


class AgentBudget(AgentRow):
    budget_usd: float
    spent_usd: Usd


@tool()
async def set_budget(call: ToolCall, arguments: SetBudget) -> AgentBudget:
    """Set the most an agent may spend, including what it grants to agents it spawns.

    A raise resumes an agent that paused at its limit. Only a person can raise the session's and the repository's
    budget, which bound it.
    """
    agent = await call.find(arguments.id)
    limit_usd, spent_usd = await _find_granted(call, agent)
    if (own_usd := arguments.budget_usd - limit_usd) <= 0:
        raise CallerError(
            f"{agent.label} was granted {format_usd(limit_usd)} for its own agents, so budget_usd must be "
            f"more than that. Nothing was changed. A person can change the grant: "
            f"forkjoin budget --lead {agent.as_lead}"
        )
    await _check_agent_budget(call, agent, own_usd)
    await call.store.agents.update(agent, budget_usd=own_usd)
    return AgentBudget(
        **row_fields(agent), budget_usd=arguments.budget_usd, spent_usd=agent.money.spent_usd + spent_usd
    )


async def _find_granted(call: ToolCall, agent: Agent) -> tuple[float, float]:
    """Return the USD that an agent's nested agents may spend, and have spent."""
    if not (agent.spec.nesting and agent.spec.nesting.budget_usd):
        return 0.0, 0.0
    known = await find_budgets(call.services, [agent])
    grants = (budget for budget in known if budget.lead == agent.as_lead)
    return next(((grant.limit_usd or 0.0, grant.spent_usd) for grant in grants), (0.0, 0.0))


async def _check_agent_budget(call: ToolCall, agent: Agent, budget_usd: float) -> None:
    """Raise `CallerError` if the agent can't have this budget now."""
    if agent.state in FINAL:
        raise CallerError(f"{agent.label} has ended ({agent.state}), so it has no budget to set. Nothing was changed.")
    wanted = replace(agent, money=replace(agent.money, budget_usd=budget_usd))
    live = [wanted if other.number == agent.number else other for other in await call.store.agents.live()]
    step_usd = call.services.settings.budget.reserve_usd
    hold = BudgetGate(live, await find_budgets(call.services, live), step_usd).check(wanted)
    if hold and budget_usd > max(agent.money.budget_usd or 0, agent.money.spent_usd):
        raise CallerError(f"{agent.label} can't get {format_usd(budget_usd)}: {hold.reason}. Nothing was changed.")


# -- budget


class SetLimit(Arguments):
    budget_usd: Dollars | Literal["unlimited", "default"] | None = None
    lead: str | None = None
    anew: bool = False


class BudgetRow(BaseModel):
    """What the agents of a lead, or without `lead` of the whole repository, may spend together."""

    lead: str | None = None
    limit_usd: float | None = None
    spent_usd: Usd
    reserved_usd: Usd


class BudgetList(BaseModel):
    budgets: list[BudgetRow]


@tool()
async def budget(call: ToolCall, arguments: SetLimit) -> BudgetList:
    """Return, or set, what the repository's agents may spend. Not offered to leads."""
    lead = arguments.lead or ""
    if arguments.budget_usd is not None or arguments.anew:
        await _check_may_set(call, lead)
    if arguments.budget_usd is not None:
        named: dict[object, float | None] = {"unlimited": math.inf, "default": None}
        limit = arguments.budget_usd if isinstance(arguments.budget_usd, float) else named[arguments.budget_usd]
        await call.store.budgets.set_limit(call.project, lead, limit)
    if arguments.anew:
        await call.store.budgets.reset_spent(call.project, lead)
    live = await call.store.agents.live()
    all_ = await find_budgets(call.services, live)
    return BudgetList(
        budgets=[_budget_row(row, live, all_) for row in await find_project_budgets(call.services, call.project)]
    )


async def _check_may_set(call: ToolCall, lead: str) -> None:
    """Raise `CallerError` if the caller is a lead, or the budget's lead is unknown."""
    if "CLAUDECODE" in call.caller.session.hello.environment:
        raise CallerError("A lead can't change its own limit. A person can, in a terminal of their own.")
    known = sorted(budget.lead for budget in await find_project_budgets(call.services, call.project) if budget.lead)
    if lead and lead not in known and not await call.store.budgets.exists(call.project, lead):
        leads = ", ".join(known[:20]) or "none"
        raise CallerError(f"No lead {lead[:80]!r} has spent anything in this repository. These leads have: {leads}.")


def _budget_row(budget: Budget, live: list[Agent], all_: list[Budget]) -> BudgetRow:
    return BudgetRow(
        lead=budget.lead or None,
        limit_usd=budget.limit_usd,
        spent_usd=budget.spent_usd,
        reserved_usd=sum_reserved(budget, live, all_),
    )
