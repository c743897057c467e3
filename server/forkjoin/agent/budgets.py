"""The budgets of leads and repositories, as a person has set them, else as the settings say: infinite is none."""

import dataclasses
import math
from collections.abc import Sequence

from forkjoin.model import Agent, Budget
from forkjoin.rooms import Rooms


async def find_budgets(rooms: Rooms, agents: Sequence[Agent]) -> list[Budget]:
    """The budgets that have been spent of, and those that these agents are under."""
    recorded = {(one.project, one.lead): one for one in await rooms.store.budgets()}
    under = {key: Budget(*key, None) for a in agents for key in ((a.project, a.lead), (a.project, ""))}
    return [_complete(rooms, one) for one in (under | recorded).values()]


def _complete(rooms: Rooms, budget: Budget) -> Budget:
    said = rooms.settings.budget.lead_usd if budget.lead else rooms.settings.budget.repository_usd
    limit = said if budget.limit_usd is None else budget.limit_usd
    return dataclasses.replace(budget, limit_usd=limit if limit != math.inf else None)
