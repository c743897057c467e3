"""The records of attempts' results."""

from collections.abc import Iterable

from forkjoin.core.model import FINAL, Agent, Merge
from forkjoin.core.result import Result
from forkjoin.store import rows
from forkjoin.store.database import Records, transaction
from forkjoin.store.queries import Queries


class Results(Records):
    """The part of the store for results.

    `Lifecycle.finish` records a result, in the same transaction as the final state.
    """

    async def get(self, agent: int) -> Result | None:
        """Return the newest result of the agent with this number, or None."""
        return await self._database.read_one(rows.RESULT.validate_json, "result", agent=agent)

    async def get_all(self, agents: Iterable[Agent]) -> dict[int, Result]:
        """Return the newest results of these agents, by the agent's number.

        Agents without a result are left out.
        """
        found = await self._database.read_rows("results", numbers=tuple(agent.number for agent in agents))
        return {row["agent"]: rows.RESULT.validate_json(row["result"]) for row in found}

    @transaction()
    def replace(self, q: Queries, agent: Agent, result: Result) -> None:
        """Replace the newest result of an agent whose branch moved after its end.

        Does nothing if the agent is live or has a newer attempt. The branch counts as unmerged again if the result has
        commits, unless the branch is in the merge queue.
        """
        now = q.agent(agent.number)
        if now.state not in FINAL or now.attempt != agent.attempt:
            return
        q.renew_result(agent=agent.number, result=result)
        if now.merge is not Merge.QUEUED:
            q.set_merge(number=agent.number, merge=Merge.UNMERGED if result.commits else Merge.NOTHING)
