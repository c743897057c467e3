"""Stores that nobody has to wait for: the store's own code over a table in memory, and over SQLite.

The table imitates, of the named queries, those that scheduling uses. Its rows are agents already: whoever uses it lets
`rows.agent` take them as they are.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from agents import make_agent
from forkjoin.model import FINAL, Agent, Merge, State
from forkjoin.record.changes import Changes
from forkjoin.record.rows import NewAgent
from forkjoin.record.store import Store
from forkjoin.session import Call

T = TypeVar("T")


class Table:
    """The named queries, over a table of agents."""

    def __init__(self) -> None:
        self.agents: dict[int, Agent] = {}

    def agent_numbered(self, number: int) -> Agent | None:
        return self.agents.get(number)

    def live_agents(self) -> list[Agent]:
        return [agent for agent in self.agents.values() if agent.state not in FINAL]

    def ended_agents(self, numbers: str) -> list[dict[str, Any]]:
        found = [self.agents[number] for number in json.loads(numbers) if number in self.agents]
        return [{"number": agent.number, "state": agent.state} for agent in found if agent.state in FINAL]

    def move_agent(self, number: int, from_: State, attempt: int, was_frozen: bool, **to: Any) -> int:
        agent = self.agents[number]
        if (agent.state, agent.attempt, agent.frozen) != (from_, attempt, was_frozen):
            return 0
        self.agents[number] = replace(
            agent,
            state=to["to"],
            started=to["started"] if agent.started is None else agent.started,
            ended=agent.ended if to["ended"] is None else to["ended"],
            paused_why=to["why"],
            frozen=to["frozen"],
            not_before=to["not_before"],
            retried=agent.retried + to["counts"],
        )
        return 1

    def begin_attempt(self, number: int) -> None:
        self.agents[number] = replace(self.agents[number], attempt=self.agents[number].attempt + 1)

    def ask_stop(self, number: int) -> None:
        self.agents[number] = replace(self.agents[number], stop_asked=True)

    def set_merge(self, number: int, merge: Merge) -> None:
        self.agents[number] = replace(self.agents[number], merge=merge)

    def ignore(self, **values: object) -> None:
        """Nothing that is decided depends on this."""

    add_event = set_last_event = add_result = add_message = ignore


class SQLiteStore(Store):
    async def _in_thread(self, act: Callable[[], T]) -> T:
        return act()


class TableStore(Store):
    def __init__(self) -> None:
        self.changes = Changes()
        self._table = Table()

    async def spawn(
        self, new: Sequence[NewAgent], place: Callable[[int, str], tuple[str, str]], call: Call, *, keep: bool = True
    ) -> list[Agent]:
        for one in new:
            agent = make_agent(len(self._table.agents) + 1, lead=one.lead, account=one.account, after=one.after)
            told = replace(agent, name=one.name, spec=one.spec, environment=one.environment)
            self._table.agents[agent.number] = told
        self.changes.announce()
        return list(self._table.agents.values())[-len(new) :]

    async def _read(self, query: str, **values: object) -> Any:
        return getattr(self._table, query)(**values)

    async def _rows(self, query: str, **values: object) -> list[Any]:
        return [*getattr(self._table, query)(**values)]

    async def _write(
        self, name: str, act: Callable[[Any], T], *, durable: bool = True, quiet: bool = False, keep: bool = True
    ) -> T:
        result = act(self._table)
        self.changes.announce()
        return result
