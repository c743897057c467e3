"""The limits of the budgets of leads and repositories: those that a person set, or else those of the settings."""

import dataclasses
import math
from collections.abc import Sequence

from forkjoin.core.model import Agent, Budget
from forkjoin.services import Services


async def find_budgets(services: Services, agents: Sequence[Agent], *projects: int) -> list[Budget]:
    """Return the budgets that limit these agents, all live agents, and these projects.

    An agent is limited by the budgets of all its leads, and by that of the repository.
    """
    keys = [key for agent in agents for key in ((agent.project, lead) for lead in (*agent.leads, ""))]
    keys += [(project, "") for project in projects]
    return _complete(services, keys, await services.store.budgets.of_live_agents(projects))


async def find_project_budgets(services: Services, project: int) -> list[Budget]:
    """Return the budget of a project, and the recorded budgets of leads in it."""
    return _complete(services, [(project, "")], await services.store.budgets.of_project(project))


def _complete(services: Services, keys: Sequence[tuple[int, str]], recorded: Sequence[Budget]) -> list[Budget]:
    """Return all recorded budgets, and an empty budget for each key without a record.

    A budget gets the limit of the settings if no person has set one. An infinite limit becomes `None`.

    Args:
        keys: Pairs of a project number and a lead. The lead "" stands for the repository's budget.
    """
    settings = services.settings.budget

    def limit(budget: Budget) -> float | None:
        by_default = settings.lead_usd if budget.lead else settings.repository_usd
        known = by_default if budget.limit_usd is None else budget.limit_usd
        return None if known == math.inf else known

    found = {key: Budget(*key, None) for key in keys} | {(budget.project, budget.lead): budget for budget in recorded}
    return [dataclasses.replace(budget, limit_usd=limit(budget)) for budget in found.values()]
