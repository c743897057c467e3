"""The records of landings, and of calls that must not be done twice."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from forkjoin.core.model import Agent, Merge, MergeJob, MergeJobState
from forkjoin.core.session import Call
from forkjoin.store import rows
from forkjoin.store.database import Queries
from forkjoin.store.new_agents import add_agents
from forkjoin.store.transaction import Transactions


class Landings(Transactions):
    """The part of the store that tells of landings."""

    @Transactions.step()
    def add_landing(self, q: Queries, landing: rows.NewMergeJob, call: Call) -> MergeJob:
        """Record a landing."""
        number: int = q.add_landing(**asdict(landing), created=time.time())
        if not landing.dry_run:
            for agent in landing.agents:
                q.queue_merge(number=agent)
        remember(q, call, {"landing": number})
        return rows.landing(q.landing(number=number))

    async def landing(self, number: int) -> MergeJob:
        return rows.landing(await self._read("landing", number=number))

    async def open_landings(self) -> list[MergeJob]:
        """Landings that are not done, in the order they were asked for."""
        return [rows.landing(row) for row in await self._rows("open_landings")]

    async def set_landing(self, landing: MergeJob, state: MergeJobState, move: str | None = None) -> None:
        """Record how far a landing is, and what it is about to move."""
        await self._set("set_landing", number=landing.number, state=state, move=move)

    @Transactions.step()
    def end_landing(
        self,
        q: Queries,
        landing: MergeJob,
        merges: Mapping[int, Merge],
        undone: Iterable[int],
        answer: Callable[[Sequence[int]], str],
        new: Sequence[rows.NewAgent] = (),
        place: rows.Place = lambda _number, _name: ("", ""),
    ) -> None:
        """Record how its branches fared, whose are merged no more, new agents, and the answer, by their numbers.

        A branch of which nothing is told, and that no other landing has, is unmerged again.
        """
        numbers = add_agents(q, self.first_port, new, place) if new else []
        q.end_landing(number=landing.number, answer=answer(numbers))
        q.delete_verdicts(landing=landing.number)
        for number, merge in merges.items():
            q.set_landed(number=number, merge=merge)
        for number in undone:
            q.set_undone(number=number)
        q.unqueue_merges(agents=tuple(landing.agents))

    async def verdict(self, landing: int, commit: str) -> str | None:
        """Why verify failed on a commit, in this landing; '' where it passed, none where it has not been run."""
        return await self._one(str, "verdict", landing=landing, tip=commit)

    async def set_verdict(self, landing: int, commit: str, why: str) -> None:
        await self._set("set_verdict", quiet=True, landing=landing, tip=commit, why=why)

    async def moves(self, project: int, target: str) -> list[MergeJob]:
        """The landings that moved a target, and were not undone, the newest first."""
        return [rows.landing(row) for row in await self._rows("moves", project=project, target=target)]

    async def squashed_into(self, agent: Agent) -> list[str]:
        """The commits that an agent's branch was squashed into."""
        return [row["made"] for row in await self._rows("squashes", id=agent.id)]

    async def squashed_at(self, agent: Agent, landing: MergeJob) -> tuple[str | None, str] | None:
        """Where its branch was when it was squashed into this landing's target last, if that was noted, and the commit
        made of it.
        """
        where = {"project": landing.project, "target": landing.target}
        return await self._one(lambda row: (row["tip"], row["made"]), "squashed_at", id=agent.id, **where)

    async def revert_of(self, agent: Agent) -> tuple[str, str] | None:
        """The target and the commit in which the last merge of its branch was reverted; none where it was not."""
        found = await self._read("revert_of", id=agent.id)
        return (found["target"], found["made"]) if found and found["made"] else None

    async def merges(self, project: int, target: str) -> list[MergeJob]:
        """As `moves`, with those that were undone."""
        return [rows.landing(row) for row in await self._rows("merges", project=project, target=target)]

    async def resolvers(self, project: int, target: str) -> list[Agent]:
        """Those that are at a conflict with this target, or have resolved it and are not merged yet, newest first."""
        return await self._agents("resolvers", project=project, target=target)

    async def answered(self, call: Call) -> dict[str, Any] | None:
        """What was recorded for this call, if it was made before."""
        return await self._one(json.loads, "call", relay=call.relay, request=call.request)


def remember(q: Queries, call: Call, answer: dict[str, Any]) -> None:
    """Record the answer to a call, with what it has changed."""
    if call.relay:
        q.add_call(relay=call.relay, request=call.request, answer=answer, at=time.time())
