"""The recording of agents whose records were lost, from the files of their attempts."""

import time
from collections.abc import Sequence
from dataclasses import asdict

from forkjoin.core.model import State
from forkjoin.core.result import Result
from forkjoin.store import rows
from forkjoin.store.database import Records, transaction
from forkjoin.store.new_agents import record
from forkjoin.store.queries import Queries


class RestoredAgents(Records):
    """The part of the store that records lost agents again."""

    async def known_numbers(self) -> tuple[int, set[int]]:
        """Return the largest agent number ever used, and all numbers with a record."""
        found = await self._database.read_rows("agent_numbers")
        return await self._database.read_one(int, "handed_out") or 0, {row["number"] for row in found}

    @transaction()
    def add(self, q: Queries, lost: Sequence[rows.Restored], highest: int) -> None:
        """Record these agents again, all or none.

        Args:
            highest: No number up to this one is used for a new agent.
        """
        for agent in sorted(lost, key=lambda agent: -agent.number):  # the newest agent keeps a name that several had
            _restore_agent(q, agent)
        q.count_spawned()
        q.begin_numbers()
        q.skip_numbers(number=highest)


def _restore_agent(q: Queries, lost: rows.Restored) -> None:
    """Record an agent as running, or as lost if it was removed.

    The reconciler then finds out whether its program still runs, as after every restart.
    """
    about, now = lost.about, time.time()
    q.add_project(common_dir=about.project)
    project: int = q.project(common_dir=about.project)["number"]
    is_taken = not lost.removed and q.name_holder(project=project, name=about.name) is not None
    columns = {
        "attempt": lost.attempt,
        "project": project,
        "name": f"{about.name[:50]}-{lost.number}" if is_taken else about.name,
        "state": State.LOST if lost.removed else State.PAUSED if lost.asked.ending else State.RUNNING,
        "now": now,
        "removed": now if lost.removed else None,
        "restored": True,
    }
    record(q, lost.number, about.spec, asdict(lost.asked) | dict(about) | columns)
    if lost.removed:
        result = Result(lost.attempt, State.LOST, rows.RESTORED, "", warnings=(rows.RESTORED,))
        q.add_result(agent=lost.number, attempt=lost.attempt, result=result)
