"""The records of agents: looked up, listed and counted."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TypedDict, Unpack

from forkjoin.core.agent_spec import number_of
from forkjoin.core.error import BrokenPromiseError, UnknownAgentError
from forkjoin.core.model import Agent, Removal, State
from forkjoin.store import rows
from forkjoin.store.database import Records, transaction
from forkjoin.store.queries import Queries

#: Characters of a task that a list shows.
_TASK_BEGINNING = 80


class Columns(TypedDict, total=False):
    """The columns of an agent that `Agents.update` may set."""

    base: str
    prepared: bool
    branch: str
    removing: Removal
    removed: float
    budget_usd: float
    wind_up: bool


class Agents(Records):
    """The part of the store that finds agents. `Lifecycle` changes their states."""

    # -- one agent

    async def get(self, number: int) -> Agent:
        """Return the agent's record.

        Raises:
            BrokenPromiseError: There is no agent with this number.
        """
        found = await self._database.read_one(rows.agent, "agent_numbered", number=number)
        if found is None:
            raise BrokenPromiseError(f"a{number} has no record")
        return found

    async def find(self, project: int, id_or_name: str) -> list[Agent]:
        """Return the project's agent with this id or name.

        The name of a candidate group returns all candidates of the group.

        Raises:
            UnknownAgentError: There is no such agent. The error names the newest agents.
        """
        number = number_of(id_or_name)
        if id_or_name and (
            found := await self._database.read_agents("find_agent", number=number, name=id_or_name, project=project)
        ):
            is_one = number is not None or found[0].name == id_or_name
            return found if is_one else await self.candidates(found[0])
        newest = await self._database.read_rows("newest_agents", project=project)
        raise UnknownAgentError(id_or_name, [f"a{row['number']} ({row['name']})" for row in newest])

    async def of_branch(self, project: int, ref: str) -> Agent | None:
        """Return the project's newest agent with this branch, or None.

        Args:
            ref: The branch's full ref name.
        """
        branch = ref.removeprefix("refs/heads/")
        return await self._database.read_one(rows.agent, "agent_of_branch", project=project, branch=branch)

    async def of_token(self, digest: str) -> Agent | None:
        """Return the agent that has a token with this digest, or None."""
        return await self._database.read_one(rows.agent, "agent_of_token", digest=digest)

    async def add_token(self, agent: int, digest: str) -> None:
        """Record the digest of an authentication token of this agent."""
        await self._database.execute("add_token", agent=agent, digest=digest)

    async def update(self, *agents: Agent, **columns: Unpack[Columns]) -> None:
        """Set columns of these agents.

        If the write fails, the log names it after the first column.
        """
        numbers = tuple(agent.number for agent in agents)
        values = dict.fromkeys(Columns.__annotations__) | columns
        await self._database.write(f"set_{next(iter(columns))}", lambda q: q.set_agents(numbers=numbers, **values))

    # -- related agents

    async def get_all(self, numbers: Iterable[int]) -> list[Agent]:
        """Return the agents with these numbers, in the same order.

        Numbers without a record are left out.
        """
        wanted = tuple(numbers)
        known = {agent.number: agent for agent in await self._database.read_agents("agents_numbered", numbers=wanted)}
        return [known[number] for number in wanted if number in known]

    async def candidates(self, agent: Agent) -> list[Agent]:
        """Return all candidates of the agent's group, in order.

        Returns an empty list if the agent is no candidate.
        """
        first = agent.candidates.first
        return await self._database.read_agents("candidates", contest=first) if first else []

    async def live_below(self, agents: Iterable[Agent]) -> list[Agent]:
        """Return the live descendants of these agents."""
        return await self._database.read_agents("live_below", numbers=tuple(agent.number for agent in agents))

    async def with_ancestors(self, number: int) -> list[Agent]:
        """Return the agent, then the agent that spawned it, and so on up."""
        return await self._database.read_agents("ancestors", number=number)

    async def dependencies(self, numbers: Iterable[int]) -> dict[int, set[int]]:
        """Return the direct and indirect dependencies of these agents.

        The result maps the number of each agent to the numbers of its dependencies. Agents without dependencies are
        left out.
        """
        found = defaultdict[int, set[int]](set)
        for row in await self._database.read_rows("agents_before", numbers=tuple(numbers)):
            found[row["number"]].add(row["before"])
        return found

    async def final_states(self, numbers: Iterable[int]) -> dict[int, State]:
        """Return the final states of these agents, leaving out live and deleted agents."""
        found = await self._database.read_rows("ended_agents", numbers=tuple(numbers))
        return {row["number"]: State(row["state"]) for row in found}

    # -- lists

    async def live(self) -> list[Agent]:
        """Return every agent that is in no final state, oldest first."""
        return await self._database.read_agents("live_agents")

    async def needed_environments(self) -> set[str]:
        """Return the digests of the environments of live agents and open merge jobs."""
        return {row["environment"] for row in await self._database.read_rows("needed_environments")}

    async def half_removed(self) -> list[Agent]:
        """Return the agents whose removal has begun and not ended."""
        return await self._database.read_agents("half_removed_agents")

    async def page(
        self,
        project: int,
        *,
        everything: bool,
        states: Collection[State] | None = None,
        below: str | None = None,
        own: int | None = None,
        before: int | None = None,
        limit: int = -1,
    ) -> list[Agent]:
        """Return a page of the project's agents, newest first.

        Args:
            everything: Whether to include agents whose worktree was removed.
            states: Only agents in these states.
            below: Only agents that this lead spawned, directly or through other agents.
            own: The number of an agent that is included although it is not below `below`.
            before: Only agents with a smaller number than this.
            limit: The size of the page; -1 for no limit.
        """
        return await self._database.read_agents(
            "agent_page",
            project=project,
            everything=everything,
            states=tuple(states) if states else None,
            below=below,
            own=own,
            before=before,
            limit=limit,
        )

    async def count(
        self, project: int, *, everything: bool, below: str | None = None, own: int | None = None
    ) -> dict[State, int]:
        """Count the project's agents by state. The arguments are those of `page`."""
        found = await self._database.read_rows(
            "count_agents", project=project, everything=everything, below=below, own=own
        )
        return {State(row["state"]): row["count"] for row in found}

    async def needing_attention(self, project: int, limit: int) -> tuple[list[Agent], int]:
        """Return agents that are live, unmerged or failed, and how many there are.

        At most `limit` agents are returned: live agents first, and the newest first among live and among ended agents.
        Agents whose worktree was removed are left out.
        """
        found = await self._database.read_rows("open_agents", project=project, limit=limit)
        return [rows.agent(row) for row in found], found[0]["total"] if found else 0

    async def unmerged(self, project: int, limit: int, below: str | None = None) -> list[Agent]:
        """Return the newest agents whose branches are unmerged, including live agents.

        Args:
            below: Only agents that this lead spawned, directly or through other agents.
        """
        return await self._database.read_agents("unmerged_agents", project=project, limit=limit, below=below)

    # -- ends that were reported to a lead

    async def untold(self, project: int, lead: str, most: int, *, everyone: bool) -> tuple[list[Agent], int]:
        """Return the agents that a wait without ids waits for, and the number left out.

        These are the lead's live agents, and the ended agents that no earlier wait reported to the lead. Of the ended
        agents, only the first `most` are returned. The others are the number left out.

        Args:
            everyone: Whether to include the agents of all leads of the project.
        """
        found = await self._database.read_rows(
            "untold_agents", project=project, lead=lead, most=most, everyone=everyone
        )
        agents = [rows.agent(row) for row in found]
        ends = max((row["ends"] for row in found), default=0)
        return agents, max(0, ends - most)

    @transaction(announce=False)
    def set_told(self, q: Queries, project: int, lead: str, ends: Iterable[tuple[int, int]]) -> None:
        """Record that the ends of these attempts were reported to the lead.

        Args:
            ends: The attempts, each as (agent, attempt).
        """
        for agent, attempt in ends:
            q.add_told(project=project, lead=lead, agent=agent, attempt=attempt)

    # -- tasks

    async def task(self, number: int) -> str:
        """Return the agent's whole task, or an empty string if there is no record."""
        return await self._database.read_one(str, "task", agent=number) or ""

    async def tasks(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the whole task of each of these agents."""
        return {row["agent"]: row["task"] for row in await self._database.read_rows("tasks", numbers=tuple(numbers))}

    async def task_beginnings(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the beginning of each agent's task, on one line."""
        found = await self._database.read_rows("task_beginnings", numbers=tuple(numbers), length=_TASK_BEGINNING)
        return {row["agent"]: " ".join(row["task"].split()) for row in found}
