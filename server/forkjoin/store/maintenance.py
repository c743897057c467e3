"""What the records need over the years: days are counted, old agents go, and lost ones are recorded again."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from forkjoin.core.model import Agent, Result, State
from forkjoin.store import rows
from forkjoin.store.database import Queries
from forkjoin.store.mcp_tasks import KEPT_S
from forkjoin.store.new_agents import record
from forkjoin.store.transaction import Transactions

#: How many of the days seen the answer to a call is kept for a relay that is not there.
_CALL_DAYS = 7


class Upkeep(Transactions):
    """The part of the store that retention and the restoring of agents use."""

    @Transactions.step(quiet=True)
    def see_day(self, q: Queries, date: str) -> int:
        """Count this date, if it is new; the number of dates seen. What has nothing unmerged since, is noted so."""
        q.see_day(date=date)
        day: int = q.days()
        q.settle(day=day)
        return day

    async def settled(self, day: int) -> list[Agent]:
        """The agents that had ended and had nothing unmerged on that day, and ever since."""
        return await self._agents("settled_agents", day=day)

    @Transactions.step()
    def forget_agent(self, q: Queries, number: int) -> None:
        """Delete an agent's record; its number stays used."""
        for delete in (q.delete_task, q.delete_results, q.delete_progress, q.delete_events, q.delete_agent):
            delete(agent=number)

    @Transactions.step(quiet=True)
    def prune(self, q: Queries, day: int, relays: Iterable[str]) -> None:
        """Delete what nobody can ask for any more on that day, where only these relays are connected."""
        q.delete_told()
        q.delete_landings()
        q.delete_budgets()
        q.delete_deferred(before=time.time() - KEPT_S)
        q.delete_calls(day=day - _CALL_DAYS, relays=tuple(relays))

    async def numbers(self) -> tuple[int, set[int]]:
        """The largest number that was handed out, and those of the agents that have a record."""
        return await self._one(int, "handed_out") or 0, {row["number"] for row in await self._rows("agent_numbers")}

    @Transactions.step()
    def restore(self, q: Queries, found: Sequence[rows.Restored], highest: int) -> None:
        """Record these agents again, and see that no number up to `highest` is handed out again; all or none."""
        for one in sorted(found, key=lambda one: -one.number):  # the newest keeps a name that several had
            _restore(q, one)
        q.count_spawned()
        q.begin_numbers()
        q.skip_numbers(number=highest)


def _restore(q: Queries, one: rows.Restored) -> None:
    """Record an agent as under way: what became of it is found out as after a restart. One that is removed stays so."""
    about, now = one.about, time.time()
    q.add_project(common_dir=about.project)
    project: int = q.project(common_dir=about.project)["number"]
    taken = not one.removed and q.name_holder(project=project, name=about.name) is not None
    theirs = {
        "attempt": one.attempt,
        "project": project,
        "name": f"{about.name[:50]}-{one.number}" if taken else about.name,
        "state": State.LOST if one.removed else State.PAUSED if one.asked.ending else State.RUNNING,
        "now": now,
        "removed": now if one.removed else None,
        "restored": True,
    }
    record(q, one.number, about.spec, asdict(one.asked) | dict(about) | theirs)
    if one.removed:
        result = Result(one.attempt, State.LOST, rows.RESTORED, "", warnings=(rows.RESTORED,))
        q.add_result(agent=one.number, attempt=one.attempt, result=result)
