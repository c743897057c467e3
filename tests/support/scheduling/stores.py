"""Stores that never wait: the store's own code over a table in memory, and over SQLite.

The table imitates the named queries that scheduling uses. Its rows are agents, so its user must patch `rows.agent` to
return them unchanged.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from forkjoin.core.model import FINAL, Agent, Merge, PauseKind, State
from forkjoin.core.session import Call
from forkjoin.store.database import Changes, Database
from forkjoin.store.lifecycle import Lifecycle
from forkjoin.store.rows import NewAgent
from forkjoin.store.store import Store
from support.agent_records import change, make_agent

T = TypeVar("T")


class Table:
    """The named queries, over a dictionary of agents."""

    def __init__(self) -> None:
        self.agents: dict[int, Agent] = {}
        self.limits: dict[tuple[int, str], float] = {}
        self.spent: defaultdict[tuple[int, str], float] = defaultdict(float)
        self.costs: defaultdict[int, float] = defaultdict(float)
        self.priced: set[tuple[int, int]] = set()  #: attempts with known costs
        self.memory: dict[tuple[int, str], int] = {}

    def agent_numbered(self, number: int) -> Agent | None:
        return self.agents.get(number)

    def agent(self, number: int) -> Agent:
        return self.agents[number]

    def agents_numbered(self, numbers: tuple[int, ...]) -> list[Agent]:
        return [self.agents[number] for number in numbers if number in self.agents]

    def live_below(self, numbers: tuple[int, ...]) -> list[Agent]:
        return []

    def live_agents(self) -> list[Agent]:
        return [agent for agent in self.agents.values() if agent.state not in FINAL]

    def ended_agents(self, numbers: tuple[int, ...]) -> list[dict[str, Any]]:
        found = [self.agents[number] for number in numbers if number in self.agents]
        return [{"number": agent.number, "state": agent.state} for agent in found if agent.state in FINAL]

    def move_agent(self, number: int, from_: State, attempt: int, was_frozen: bool, was_ending: bool, **to: Any) -> int:
        agent = self.agents[number]
        was = PauseKind.FROZEN if was_frozen else PauseKind.ENDING if was_ending else PauseKind.RESTING
        if (agent.state, agent.attempt, agent.pause.kind) != (from_, attempt, was):
            return 0
        self.agents[number] = change(
            agent,
            state=to["to"],
            started=to["started"] if agent.timing.started is None else agent.timing.started,
            ended=agent.timing.ended if to["ended"] is None else to["ended"],
            kind=PauseKind.FROZEN if to["frozen"] else PauseKind.ENDING if to["ending"] else PauseKind.RESTING,
            reason=to["pause_reason"],
            details=to["paused_why"],
            not_before=to["not_before"],
            retried=agent.history.retried + to["counts"],
        )
        return 1

    def begin_attempt(self, number: int) -> None:
        self.agents[number] = change(self.agents[number], attempt=self.agents[number].attempt + 1)

    def ask_stop(self, number: int) -> None:
        self.agents[number] = change(self.agents[number], stop_asked=True)

    def set_merge(self, number: int, merge: Merge) -> None:
        self.agents[number] = change(self.agents[number], merge=merge)

    # -- money

    def budgets(self, projects: tuple[int, ...]) -> list[dict[str, Any]]:
        keys = {*self.limits, *self.spent, *((number, "") for number in projects)}
        return [
            {"project": key[0], "lead": key[1], "limit_usd": self.limits.get(key), "spent_usd": self.spent[key]}
            for key in sorted(keys)
        ]

    def set_limit(self, project: int, lead: str, limit_usd: float) -> None:
        self.limits[project, lead] = limit_usd

    def set_agents(self, numbers: tuple[int, ...], **fields: Any) -> None:
        given = {name: value for name, value in fields.items() if value is not None}
        for number in numbers:
            self.agents[number] = change(self.agents[number], **given)

    def give(self, number: int, usd: float) -> None:
        self.agents[number] = change(self.agents[number], reserved_usd=usd, wind_up=False)

    def add_spent(self, agent: int, attempt: int, part: str, model: str, cost_usd: float | None) -> None:
        self.costs[agent] += cost_usd or 0
        self.priced |= {(agent, attempt)} if cost_usd else set()

    def add_grant(self, agent: int, attempt: int) -> None:
        left = self.agents[agent].money.reserved_usd - self.agents[agent].money.spent_usd
        self.costs[agent] += max(0, left) if (agent, attempt) not in self.priced else 0

    def has_little(self, agent: int) -> bool:
        return True

    def cost(self, agent: int) -> float:
        return self.agents[agent].money.spent_usd

    def sum_costs(self, agent: int) -> None:
        self.agents[agent] = change(self.agents[agent], cost_usd=self.costs[agent])

    def add_to_budget(self, project: int, lead: str, usd: float) -> None:
        self.spent[project, lead] += usd

    # -- memory

    def peaks(self) -> list[dict[str, Any]]:
        return [{"project": key[0], "program": key[1], "bytes": size} for key, size in self.memory.items()]

    def set_peak(self, project: int, program: str, bytes: int) -> None:  # noqa: A002
        self.memory[project, program] = bytes

    def result(self, agent: int) -> None:
        """Return no result: the histories contain no warnings of earlier attempts."""

    def ignore(self, **values: object) -> None:
        """Do nothing: no decision depends on this query."""

    add_event = set_last_event = add_result = add_message = take_back_mail = give_mail = withdraw_requests = ignore
    delete_refs_before = ignore

    def waiting_mail(self, agent: int) -> list[dict[str, Any]]:
        return []

    def requests_of(self, agents: tuple[int, ...]) -> list[dict[str, Any]]:
        return []


class DirectDatabase(Database):
    """A SQLite database whose queries run in the caller's thread."""

    async def in_thread(self, act: Callable[[], T]) -> T:
        return act()


class TableDatabase(Database):
    """A database whose queries run on a `Table`."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.table = Table()

    async def read(self, query: str, **values: object) -> Any:
        return getattr(self.table, query)(**values)

    async def read_rows(self, query: str, **values: object) -> list[Any]:
        return [*getattr(self.table, query)(**values)]

    async def write(
        self,
        name: str,
        act: Callable[[Any], T],
        *,
        durable: bool = True,
        announce: bool = True,
        commit: bool = True,
    ) -> T:
        result = act(self.table)
        self.changes.announce()
        return result


class TableLifecycle(Lifecycle):
    """A lifecycle that adds spawned agents to the table."""

    def __init__(self, database: TableDatabase) -> None:
        super().__init__(database)
        self._agents = database.table.agents

    async def spawn(
        self,
        new: Sequence[NewAgent],
        place: Callable[[int, str], tuple[str, str]],
        call: Call,
        *,
        commit: bool = True,
    ) -> list[Agent]:
        for request in new:
            agent = make_agent(
                len(self._agents) + 1, lead=request.lead, account=request.account, after=request.after.older
            )
            budget_usd = request.spec.budget_usd
            spawned = change(
                agent, name=request.name, spec=request.spec, environment=request.environment, budget_usd=budget_usd
            )
            self._agents[agent.number] = spawned
        self._database.changes.announce()
        return list(self._agents.values())[-len(new) :]


class TableStore(Store):
    def __init__(self) -> None:
        database = TableDatabase()
        super().__init__(database)
        self.lifecycle = TableLifecycle(database)
