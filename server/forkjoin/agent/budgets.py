"""The budgets of leads and repositories, as a person has set them, else as the settings say."""

import dataclasses
import math
from collections.abc import Sequence

from forkjoin.model import Agent, Budget
from forkjoin.rooms import Rooms


async def find_budgets(rooms: Rooms, agents: Sequence[Agent], *projects: int) -> list[Budget]:
    """The budgets that these agents are under, or others that have not ended, and those of these projects."""
    recorded = await rooms.store.budgets(projects)
    keys = [key for one in agents for key in ((one.project, one.lead), (one.project, ""))]
    keys += [(project, "") for project in projects]
    return _complete(
        rooms, {key: Budget(*key, None) for key in keys} | {(one.project, one.lead): one for one in recorded}
    )


async def find_project_budgets(rooms: Rooms, project: int) -> list[Budget]:
    """The budgets of a project and of its leads."""
    recorded = await rooms.store.project_budgets(project)
    return _complete(
        rooms, {(project, ""): Budget(project, "", None)} | {(one.project, one.lead): one for one in recorded}
    )


def _complete(rooms: Rooms, found: dict[tuple[int, str], Budget]) -> list[Budget]:
    """With the settings' limits where a person has set none; infinite is none."""
    said = rooms.settings.budget
    limits = {True: said.lead_usd, False: said.repository_usd}
    known = {key: limits[bool(key[1])] if one.limit_usd is None else one.limit_usd for key, one in found.items()}
    return [
        dataclasses.replace(one, limit_usd=None if known[key] == math.inf else known[key]) for key, one in found.items()
    ]
