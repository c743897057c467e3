"""The records of events, and of how far attempts' outputs have been read."""

from collections.abc import Sequence
from dataclasses import asdict

from forkjoin.core.event import FAILED, Event, RecordedEvent, TurnEnded
from forkjoin.core.model import Agent
from forkjoin.store import rows
from forkjoin.store.budgets import count_spending
from forkjoin.store.database import Records
from forkjoin.store.lifecycle import log_event
from forkjoin.store.queries import Queries


class Events(Records):
    """The part of the store for events."""

    async def add(
        self,
        agent: Agent,
        events: Sequence[tuple[Event, int]],
        progress: rows.Progress | None = None,
        costs: Sequence[rows.Cost] = (),
    ) -> None:
        """Record events of the agent's newest attempt.

        Waiters are woken only if the agent has little left of the money that it was given.

        Args:
            events: Each event with the offset of its line in the attempt's output, or -1 if it has no line.
            progress: How far the output has been read.
            costs: The costs of model calls that this part of the output reports.
        """
        attempt = {"agent": agent.number, "attempt": agent.attempt}

        def act(q: Queries) -> bool:
            cost_changed = bool(costs)
            for event, offset in events:
                log_event(q, agent, event, offset)
                if event.kind == "turn_ended" and event.cost_usd is not None:
                    cost_changed = True
                    q.set_cost(**attempt, cost_usd=event.cost_usd)
                    q.delete_spent(**attempt)
            for cost in costs:
                q.add_spent(**attempt, **asdict(cost))
            if progress:
                q.set_progress(**attempt, offset=progress.offset, turn_end=progress.turn_end)
            return cost_changed and count_spending(q, agent)

        if await self._database.write("Events.add", act, durable=False, announce=False):
            self._database.changes.announce()

    async def progress(self, agent: Agent) -> rows.Progress:
        """Return the position up to which the newest attempt's output was read."""
        found = await self._database.read_one(
            lambda row: rows.Progress(**row), "progress", agent=agent.number, attempt=agent.attempt
        )
        return found or rows.Progress(0, None)

    async def page(self, agent: int, after: int, limit: int) -> list[RecordedEvent]:
        """Return the agent's first `limit` events with a larger number than `after`."""
        found = await self._database.read_rows("events_after", agent=agent, after=after, limit=limit)
        return [RecordedEvent(**row) for row in found]

    async def last_number(self, agent: int) -> int:
        """Return the number of the agent's last event, or 0 if it has no events."""
        return await self._database.read_one(int, "last_event_number", agent=agent) or 0

    async def count_reports(self, agent: int) -> int:
        """Count the progress reports that the agent made with forkjoin's own tools."""
        return await self._database.read_one(int, "count_reports", agent=agent) or 0

    async def denials(self, agent: Agent) -> tuple[str, ...]:
        """Return the texts of actions that the newest attempt's program was denied."""
        found = await self._database.read_rows("denials", agent=agent.number, attempt=agent.attempt)
        return tuple(row["text"] for row in found)

    async def refusals(self, agent: Agent) -> tuple[str, ...]:
        """Return the texts of actions that forkjoin refused to the newest attempt.

        Each text is returned once.
        """
        found = await self._database.read_rows("refusals", agent=agent.number, attempt=agent.attempt)
        return tuple(row["text"] for row in found)

    async def last_turn(self, agent: Agent) -> TurnEnded | None:
        """Return how the newest attempt's last finished turn ended, or None.

        Only `ok` and the first `TEXT_LIMIT` bytes of `output` are recorded. The other fields have their defaults.
        """
        found = await self._database.read("last_turn", agent=agent.number, attempt=agent.attempt)
        return found and TurnEnded(not found["failed"], found["text"].removeprefix(FAILED if found["failed"] else ""))

    async def is_in_turn(self, agent: Agent) -> bool:
        """Return whether the newest attempt has begun a turn that has not ended."""
        last = await self._database.read_one(str, "last_of_turns", agent=agent.number, attempt=agent.attempt)
        return last == "started"

    async def has_answered(self, agent: Agent) -> bool:
        """Return whether a model has answered the agent's task.

        Only then is there a conversation to resume.
        """
        return bool(await self._database.read_one(int, "has_answered", agent=agent.number))
