"""The deletion of old records. Age is counted in days on which a daemon ran."""

import time
from collections.abc import Iterable

from forkjoin.core.model import Agent
from forkjoin.store.database import Records, transaction
from forkjoin.store.mcp_tasks import KEPT_S
from forkjoin.store.queries import Queries

#: Days that the answer to a call is kept after its relay has disconnected.
_CALL_DAYS = 7


class Retention(Records):
    """The part of the store that deletes old records."""

    @transaction(announce=False)
    def count_day(self, q: Queries, date: str) -> int:
        """Count this date if it is new, and return the number of dates counted so far.

        That number is recorded with agents that have ended without unmerged work, unless they have one already.
        """
        q.see_day(date=date)
        day: int = q.days()
        q.settle(day=day)
        return day

    async def settled_agents(self, day: int) -> list[Agent]:
        """Return the agents that have had no unmerged work since that day.

        Agents that an open merge job or a live agent still needs are left out.
        """
        return await self._database.read_agents("settled_agents", day=day)

    @transaction()
    def delete_agent(self, q: Queries, number: int) -> None:
        """Delete an agent's record. The agent's number is never used again."""
        for delete in (q.delete_task, q.delete_results, q.delete_progress, q.delete_events, q.delete_agent):
            delete(agent=number)

    @transaction(announce=False)
    def prune(self, q: Queries, day: int, relays: Iterable[str]) -> None:
        """Delete records that nothing can refer to any more.

        Args:
            day: The number of days counted so far.
            relays: The relays that are connected.
        """
        q.delete_told()
        q.delete_landings()
        q.delete_budgets()
        q.delete_deferred(before=time.time() - KEPT_S)
        q.delete_calls(day=day - _CALL_DAYS, relays=tuple(relays))
