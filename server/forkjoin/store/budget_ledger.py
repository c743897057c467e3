"""Money in the records: what agents may spend, were given and have spent, each and together."""

from collections.abc import Iterable, Mapping

from forkjoin.core.model import Agent, Budget
from forkjoin.store.database import Queries
from forkjoin.store.transaction import Transactions


class Ledger(Transactions):
    """The part of the store that budgets use."""

    async def budgets(self, projects: Iterable[int] = ()) -> list[Budget]:
        """What was spent, and may be, together with each agent that has not ended; and in each of these projects."""
        return [Budget(**row) for row in await self._rows("budgets", projects=tuple(projects))]

    async def project_budgets(self, project: int) -> list[Budget]:
        """What was spent, and may be, in a project and by its leads; of very many, the limited and largest."""
        return [Budget(**row) for row in await self._rows("project_budgets", project=project)]

    async def has_budget(self, project: int, lead: str) -> bool:
        """Whether anything was spent, or may be, together under this lead."""
        return bool(await self._one(int, "has_budget", project=project, lead=lead))

    async def set_limit(self, project: int, lead: str, limit_usd: float | None) -> None:
        """Set how much may be spent together; none: as the settings say."""
        await self._set("set_limit", project=project, lead=lead, limit_usd=limit_usd)

    async def count_anew(self, project: int, lead: str) -> None:
        """Let what was spent together before count no more."""
        await self._set("count_anew", project=project, lead=lead)

    @Transactions.step()
    def give(self, q: Queries, given: Mapping[int, float]) -> None:
        """Record how much each of these agents may spend, in all, of what its budgets have."""
        for number, usd in given.items():
            q.give(number=number, usd=usd)

    @Transactions.step()
    def spend_grant(self, q: Queries, agent: Agent) -> None:
        """Count all that the agent was given as spent, where nothing is known of what its newest attempt has cost."""
        q.add_grant(agent=agent.number, attempt=agent.attempt)
        count_spending(q, agent)

    async def last_model(self, agent: Agent) -> str:
        """The model that the last call of the agent's newest attempt was made of, as far as that is known."""
        return await self._one(str, "last_model", agent=agent.number, attempt=agent.attempt) or ""

    async def unpriced(self, agent: Agent) -> list[str]:
        """Models of which the agent's calls were counted as nothing, since no price is known."""
        return [row["model"] for row in await self._rows("unpriced", agent=agent.number)]


def count_spending(q: Queries, agent: Agent) -> bool:
    """Sum up what the agent has spent, and count what is new of it against the budgets that it is under.

    Returns:
        Whether little is left of what it was given, so that there is something to decide.
    """
    before: float = q.cost(agent=agent.number)
    q.sum_costs(agent=agent.number)
    spent: float = q.cost(agent=agent.number) - before
    for lead in {*agent.leads, ""} if spent else ():
        q.add_to_budget(project=agent.project, lead=lead, usd=spent)
    return bool(q.has_little(agent=agent.number))
