"""The records of money: agents' limits, reservations and spending."""

from collections.abc import Iterable, Mapping

from forkjoin.core.model import Agent, Budget
from forkjoin.store.database import Records, transaction
from forkjoin.store.queries import Queries


class Budgets(Records):
    """The part of the store for budgets."""

    async def of_live_agents(self, projects: Iterable[int] = ()) -> list[Budget]:
        """Return the budgets that live agents count against.

        Args:
            projects: Projects whose own budgets are returned, too, even without live agents.
        """
        return [Budget(**row) for row in await self._database.read_rows("budgets", projects=tuple(projects))]

    async def of_project(self, project: int) -> list[Budget]:
        """Return at most 100 budgets of a project and its leads.

        Budgets with a limit come first. Then the order is by the money spent, most first.
        """
        return [Budget(**row) for row in await self._database.read_rows("project_budgets", project=project)]

    async def exists(self, project: int, lead: str) -> bool:
        """Return whether this lead has a budget: a limit, or anything spent."""
        return bool(await self._database.read_one(int, "has_budget", project=project, lead=lead))

    async def set_limit(self, project: int, lead: str, limit_usd: float | None) -> None:
        """Set the limit for all agents of this lead.

        Args:
            lead: Empty for the whole project.
            limit_usd: None for the limit of the settings.
        """
        await self._database.execute("set_limit", project=project, lead=lead, limit_usd=limit_usd)

    async def reset_spent(self, project: int, lead: str) -> None:
        """Reset the spending of this lead's agents to 0."""
        await self._database.execute("count_anew", project=project, lead=lead)

    @transaction()
    def reserve(self, q: Queries, reserved: Mapping[int, float]) -> None:
        """Set how much is reserved in all for each of these agents, by number, in USD."""
        for number, usd in reserved.items():
            q.give(number=number, usd=usd)

    @transaction()
    def count_reserved_as_spent(self, q: Queries, agent: Agent) -> None:
        """Count the agent's whole reservation as spent, if its newest attempt has no cost.

        The cost of an attempt is unknown if the program reported none, for example because the program was killed.
        """
        q.add_grant(agent=agent.number, attempt=agent.attempt)
        count_spending(q, agent)

    async def last_model(self, agent: Agent) -> str:
        """Return the model of the newest attempt's last call, or an empty string."""
        return await self._database.read_one(str, "last_model", agent=agent.number, attempt=agent.attempt) or ""

    async def unpriced_models(self, agent: Agent) -> list[str]:
        """Return the models without a known price that the agent called.

        Their calls were counted as 0.
        """
        return [row["model"] for row in await self._database.read_rows("unpriced", agent=agent.number)]


def count_spending(q: Queries, agent: Agent) -> bool:
    """Update the agent's total cost, and add the increase to its budgets.

    Returns:
        Whether little is left of the agent's reservation, so that the scheduler should decide.
    """
    before: float = q.cost(agent=agent.number)
    q.sum_costs(agent=agent.number)
    spent: float = q.cost(agent=agent.number) - before
    for lead in {*agent.leads, ""} if spent else ():
        q.add_to_budget(project=agent.project, lead=lead, usd=spent)
    return bool(q.has_little(agent=agent.number))
