"""The records: SQLite, in one thread, by named queries.

What an answer promises is written with `synchronous = FULL`; events, which the raw logs hold too, with NORMAL. Every
change of an agent or a landing wakes whoever waits for one (`changes`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict, Unpack

from anyio import to_thread

from forkjoin.core.agent_spec import number_of
from forkjoin.core.error import BrokenPromiseError, UnknownAgentError
from forkjoin.core.event import Event, Recorded
from forkjoin.core.model import FINAL, Agent, Merge, MergeJob, Pause, Project, Removal, Result, State
from forkjoin.core.session import Call
from forkjoin.core.settings import Recipe
from forkjoin.store import rows, transitions
from forkjoin.store.budget_ledger import Ledger, count_spending
from forkjoin.store.database import Queries, open_database
from forkjoin.store.findings import Findings
from forkjoin.store.maintenance import Upkeep
from forkjoin.store.mcp_tasks import DeferredCalls
from forkjoin.store.merges import Landings, remember
from forkjoin.store.messages import Mail
from forkjoin.store.new_agents import add_agents
from forkjoin.store.port_blocks import first_port
from forkjoin.store.records_at_start import Starts
from forkjoin.store.requests import Requests
from forkjoin.store.scratch_worktrees import Scratches
from forkjoin.store.transaction import Transactions

#: Characters of a task that a list shows.
_BEGINNING = 80


class Fields(TypedDict, total=False):
    """What of an agent is set by itself; as in its record."""

    base: str
    prepared: bool
    branch: str
    removing: Removal
    removed: float
    budget_usd: float
    wind_up: bool


class Store(Ledger, Upkeep, Landings, Scratches, Mail, Findings, Requests, DeferredCalls, Starts):
    """The records of one home. Make it with `open_store`."""

    # -- projects

    async def project(self, common_dir: str) -> Project:
        """The project of this common git folder, recorded if it is new."""
        found = await self.find_project(common_dir)
        if found is None:
            await self._set("add_project", common_dir=common_dir)
            found = await self.find_project(common_dir)
            assert found
        return found

    async def find_project(self, common_dir: str) -> Project | None:
        """Return the project of this common git folder; None if it is not recorded."""
        found = await self._read("project", common_dir=common_dir)
        return Project(**found) if found else None

    async def project_numbered(self, number: int) -> Project:
        return Project(**await self._read("project_numbered", number=number))

    # -- agents

    async def spawn(
        self,
        new: Sequence[rows.NewAgent],
        place: rows.Place,
        call: Call,
        *,
        keep: bool = True,
    ) -> list[Agent]:
        """Record new agents, all or none; `place` gives a number and name their branch and worktree.

        Args:
            keep: Whether they are recorded; else the agents are only as they would be.
        """

        def act(q: Queries) -> list[Agent]:
            numbers = add_agents(q, self.first_port, new, place)
            remember(q, call, {"agents": numbers})
            return [q.agent(number) for number in numbers]

        return await self._write("spawn", act, keep=keep)

    async def agent(self, number: int) -> Agent:
        found = await self._one(rows.agent, "agent_numbered", number=number)
        if found is None:
            raise BrokenPromiseError(f"a{number} has no record")
        return found

    async def agents_numbered(self, numbers: Iterable[int]) -> list[Agent]:
        """The agents with these numbers that have a record, in that order."""
        wanted = tuple(numbers)
        known = {agent.number: agent for agent in await self._agents("agents_numbered", numbers=wanted)}
        return [known[number] for number in wanted if number in known]

    async def find(self, project: int, asked: str) -> list[Agent]:
        """The project's agent that an id or name means, or candidates for one task, by the name of all of them.

        Raises:
            UnknownAgentError: None, which tells the newest.
        """
        if asked and (found := await self._agents("find_agent", number=number_of(asked), name=asked, project=project)):
            is_one = number_of(asked) is not None or found[0].name == asked
            return found if is_one else await self.candidates(found[0])
        newest = await self._rows("newest_agents", project=project)
        raise UnknownAgentError(asked, [f"a{row['number']} ({row['name']})" for row in newest])

    async def candidates(self, agent: Agent) -> list[Agent]:
        """All candidates for an agent's task, where there are others; the first of them first."""
        return await self._agents("candidates", contest=agent.candidates.first) if agent.candidates.first else []

    async def agent_of_branch(self, project: int, ref: str) -> Agent | None:
        """The project's agent whose branch this is, by its full name."""
        return await self._one(rows.agent, "agent_of_branch", project=project, branch=ref.removeprefix("refs/heads/"))

    async def task(self, number: int) -> str:
        """What the agent was asked to do."""
        return await self._one(str, "task", agent=number) or ""

    async def tasks(self, numbers: Iterable[int]) -> dict[int, str]:
        """What each of these agents was asked to do."""
        return {row["agent"]: row["task"] for row in await self._rows("tasks", numbers=tuple(numbers))}

    async def beginnings(self, numbers: Iterable[int]) -> dict[int, str]:
        """How the task of each of these agents begins, in one line."""
        found = await self._rows("task_beginnings", numbers=tuple(numbers), length=_BEGINNING)
        return {row["agent"]: " ".join(row["task"].split()) for row in found}

    async def recipe(self, of: Agent | MergeJob) -> Recipe:
        """What the repository wanted, and was trusted with, when this was asked for."""
        query = "recipe" if isinstance(of, Agent) else "landing_recipe"
        return rows.recipe(await self._read(query, number=of.number))

    async def live(self) -> list[Agent]:
        """Every agent that is in no final state, oldest first."""
        return await self._agents("live_agents")

    async def needed_environments(self) -> set[str]:
        """Return digests of the environments of all agents in no final state, and of all open merges."""
        return {row["environment"] for row in await self._rows("needed_environments")}

    async def ended(self, numbers: Iterable[int]) -> dict[int, State]:
        """How those of these agents ended that have, and are recorded still."""
        found = await self._rows("ended_agents", numbers=tuple(numbers))
        return {row["number"]: State(row["state"]) for row in found}

    async def before(self, numbers: Iterable[int]) -> dict[int, set[int]]:
        """Whom each of these agents comes after, also by others."""
        found = defaultdict[int, set[int]](set)
        for row in await self._rows("agents_before", numbers=tuple(numbers)):
            found[row["number"]].add(row["before"])
        return found

    async def agents(
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
            everything: Whether removed agents count.
            below: Only agents that this lead, or an agent below it, has spawned.
            own: The number of an agent that `below` does not leave out.
            before: Only agents with a smaller number.
        """
        return await self._agents(
            "agent_page",
            project=project,
            everything=everything,
            states=tuple(states) if states else None,
            below=below,
            own=own,
            before=before,
            limit=limit,
        )

    async def count_agents(
        self, project: int, *, everything: bool, below: str | None = None, own: int | None = None
    ) -> dict[State, int]:
        """Count the project's agents by state; as in `agents`."""
        found = await self._rows("count_agents", project=project, everything=everything, below=below, own=own)
        return {State(row["state"]): row["count"] for row in found}

    async def open_agents(self, project: int, limit: int) -> tuple[list[Agent], int]:
        """Return the first agents that are under way or need something done, and how many there are in all."""
        found = await self._rows("open_agents", project=project, limit=limit)
        return [rows.agent(row) for row in found], found[0]["total"] if found else 0

    async def unmerged(self, project: int, limit: int, below: str | None = None) -> list[Agent]:
        """Return the newest agents that have work which is not merged, or may yet have some; as in `agents`."""
        return await self._agents("unmerged_agents", project=project, limit=limit, below=below)

    async def untold(self, project: int, lead: str, most: int, *, everyone: bool) -> tuple[list[Agent], int]:
        """Return the first `most` agents to wait for, and how many ends are left out."""
        found = await self._rows("untold_agents", project=project, lead=lead, most=most, everyone=everyone)
        agents = [rows.agent(row) for row in found]
        ends = max((row["ends"] for row in found), default=0)
        return agents, max(0, ends - most)

    @Transactions.step()
    def move(
        self, q: Queries, agent: Agent, to: State, event: Event | None = None, pause: Pause | None = None
    ) -> Agent:
        """Move an agent to another state, and record why, and how it pauses where it does; the agent as it is then.

        Raises:
            BrokenPromiseError: It is not in the state that `agent` says, or the table allows no such move.
        """
        transitions.move(q, agent, to, pause)
        if event:
            transitions.note(q, agent, event)
        return q.agent(agent.number)

    @Transactions.step()
    def end_attempt(self, q: Queries, agent: Agent, event: Event, pause: Pause | None, *, done: bool) -> Agent:
        """Record that an attempt's program has ended, in whatever state that finds the agent; the agent as it is then.

        It is finishing, unless nobody has asked for its stop, and it is to pause before another attempt: as `pause`
        says, or because its program was to end for that, unless it was `done` all the same.
        """
        now = q.agent(agent.number)
        how = Pause(now.pause.why, not_before=now.pause.not_before) if now.pause.ending and not done else pause
        if how and not now.stop_asked:
            transitions.move(q, now, State.PAUSED, how)
            if how.anew:
                q.add_message(agent=now.number, attempt=now.attempt + 1, text="")
        else:
            transitions.move(q, now, State.FINISHING)
        transitions.note(q, now, event)
        return q.agent(agent.number)

    @Transactions.step()
    def queue_again(self, q: Queries, agent: Agent, text: str) -> Agent:
        """Queue an agent's next attempt, which is told `text`, unless it begins anew; the agent as it is then."""
        q.take_back_mail(agent=agent.number, attempt=agent.attempt, all_=agent.converses)
        transitions.begin_again(q, agent, text)
        return q.agent(agent.number)

    async def message(self, agent: Agent) -> str | None:
        """What the agent's newest attempt is told; none where that is its task, since no model has answered yet."""
        return await self._one(str, "message", agent=agent.number, attempt=agent.attempt)

    async def has_answered(self, agent: Agent) -> bool:
        """Whether a model has answered to the agent's task: before that there is no conversation."""
        return bool(await self._one(int, "has_answered", agent=agent.number))

    @Transactions.step()
    def finish(self, q: Queries, agent: Agent, result: Result, merge: Merge) -> None:
        """Record an attempt's result and its end, stop whom it has spawned, and queue it again where a message waits.

        Raises:
            BrokenPromiseError: It has ended before: what is recorded stays.
        """
        transitions.end(q, agent, result, merge)
        q.delete_refs_before(agent=agent.number)
        q.set_last_event(agent=agent.number, text=result.summary[: transitions.LAST_EVENT])
        q.take_back_mail(agent=agent.number, attempt=agent.attempt, all_=False)
        for row in q.live_below(numbers=(agent.number,)):
            transitions.stop(q, rows.agent(row))
        now = q.agent(agent.number)
        if not now.stop_asked and any(q.waiting_mail(agent=agent.number)):
            transitions.wake(q, now)

    async def result(self, agent: int) -> Result | None:
        """The result of the newest attempt that has one."""
        return await self._one(rows.RESULT.validate_json, "result", agent=agent)

    async def results(self, agents: Iterable[Agent]) -> dict[int, Result]:
        """As `result`, for each of these that has one, by number."""
        found = await self._rows("results", numbers=tuple(agent.number for agent in agents))
        return {row["agent"]: rows.RESULT.validate_json(row["result"]) for row in found}

    @Transactions.step()
    def renew_result(self, q: Queries, agent: Agent, result: Result) -> None:
        """Replace an agent's newest result, unless the agent is at work again: its branch was moved since."""
        now = q.agent(agent.number)
        if now.state not in FINAL or now.attempt != agent.attempt:
            return
        q.renew_result(agent=agent.number, result=result)
        if now.merge is not Merge.QUEUED:
            q.set_merge(number=agent.number, merge=Merge.UNMERGED if result.commits else Merge.NOTHING)

    @Transactions.step()
    def ask_stop(self, q: Queries, agents: Iterable[Agent]) -> list[Agent]:
        """Note that these are to be stopped, and all below them, those that never started at once; all of them."""
        numbers = tuple(agent.number for agent in agents)
        found = (*q.agents_numbered(numbers=numbers), *q.live_below(numbers=numbers))
        whole = {agent.number: agent for agent in map(rows.agent, found)}
        for agent in whole.values():
            transitions.stop(q, agent)
        return list(whole.values())

    async def live_below(self, agents: Iterable[Agent]) -> list[Agent]:
        """Whom these have spawned, and they, that have not ended."""
        return await self._agents("live_below", numbers=tuple(agent.number for agent in agents))

    async def from_above(self, number: int) -> list[Agent]:
        """This agent, the one that has spawned it, and so on."""
        return await self._agents("ancestors", number=number)

    async def add_token(self, agent: int, digest: str) -> None:
        """Note that whoever shows the token of this digest is the agent's."""
        await self._set("add_token", agent=agent, digest=digest)

    async def agent_of_token(self, digest: str) -> Agent | None:
        return await self._one(rows.agent, "agent_of_token", digest=digest)

    async def set(self, *agents: Agent, **fields: Unpack[Fields]) -> None:
        """Record what has become of these agents; the step is called after the first of the fields."""
        numbers = tuple(agent.number for agent in agents)
        said = dict.fromkeys(Fields.__annotations__) | fields
        await self._write(f"set_{next(iter(fields))}", lambda q: q.set_agents(numbers=numbers, **said))

    @Transactions.step()
    def set_removing(self, q: Queries, agents: Sequence[Agent], how: Removal = Removal.MERGED) -> list[Agent]:
        """Note that these are being removed, unless one is at work, or on its way to a target; those that are."""
        now = [q.agent(agent.number) for agent in agents]
        busy = [agent for agent in now if agent.state not in FINAL or agent.merge is Merge.QUEUED]
        if not busy:
            numbers = tuple(agent.number for agent in now)
            q.set_agents(**dict.fromkeys(Fields.__annotations__) | {"numbers": numbers, "removing": how})
        return busy

    async def half_removed(self) -> list[Agent]:
        """Those whose removal was begun and not ended."""
        return await self._agents("half_removed_agents")

    @Transactions.step(quiet=True)
    def set_told(self, q: Queries, project: int, lead: str, ends: Iterable[tuple[int, int]]) -> None:
        """Note that this lead was told how these (agent, attempt) ended."""
        for agent, attempt in ends:
            q.add_told(project=project, lead=lead, agent=agent, attempt=attempt)

    async def peaks(self) -> dict[tuple[int, str], int]:
        """The most memory, in bytes, that agents of a project had which ran a program, as it is remembered."""
        return {(row["project"], row["program"]): row["bytes"] for row in await self._rows("peaks")}

    async def set_peak(self, project: int, program: str, size: int) -> None:
        await self._set("set_peak", project=project, program=program, bytes=size)

    # -- events

    async def progress(self, agent: Agent) -> rows.Progress:
        where = {"agent": agent.number, "attempt": agent.attempt}
        return await self._one(lambda row: rows.Progress(**row), "progress", **where) or rows.Progress(0, None)

    async def note(
        self,
        agent: Agent,
        events: Sequence[tuple[Event, int]],
        progress: rows.Progress | None = None,
        costs: Sequence[rows.Cost] = (),
    ) -> None:
        """Record events with the offsets of their lines, how far the output was read, and what was spent since.

        What was spent wakes waiters only where little is left of what the agent was given.
        """
        attempt = {"agent": agent.number, "attempt": agent.attempt}

        def act(q: Queries) -> bool:
            told = False
            for event, offset in events:
                transitions.note(q, agent, event, offset)
                if event.kind == "turn_ended" and event.cost_usd is not None:
                    told = True
                    q.set_cost(**attempt, cost_usd=event.cost_usd)
                    q.delete_spent(**attempt)
            for cost in costs:
                q.add_spent(**attempt, **asdict(cost))
            if progress:
                q.set_progress(**attempt, offset=progress.offset, turn_end=progress.turn_end)
            return bool(costs or told) and count_spending(q, agent)

        if await self._write("note", act, durable=False, quiet=True):
            self.changes.announce()

    async def events(self, agent: int, after: int, limit: int) -> list[Recorded]:
        return [Recorded(**row) for row in await self._rows("events_after", agent=agent, after=after, limit=limit)]

    async def count_reports(self, agent: int) -> int:
        """Count what an agent has told by tools of ours."""
        return await self._one(int, "count_reports", agent=agent) or 0

    async def denials(self, agent: Agent) -> tuple[str, ...]:
        """What the agent's newest attempt was not permitted."""
        found = await self._rows("denials", agent=agent.number, attempt=agent.attempt)
        return tuple(row["text"] for row in found)

    async def refusals(self, agent: Agent) -> tuple[str, ...]:
        """Return what forkjoin has refused to the agent's newest attempt, each once."""
        found = await self._rows("refusals", agent=agent.number, attempt=agent.attempt)
        return tuple(row["text"] for row in found)

    async def last_turn_text(self, agent: Agent) -> str | None:
        """How the last turn of the agent's newest attempt ended, as its event tells it."""
        return await self._one(str, "last_turn_text", agent=agent.number, attempt=agent.attempt)

    async def is_in_turn(self, agent: Agent) -> bool:
        """Whether the agent's newest attempt has begun a turn that it has not ended."""
        last = await self._one(str, "last_of_turns", agent=agent.number, attempt=agent.attempt)
        return last == "started"

    async def last_event_number(self, agent: int) -> int:
        return await self._one(int, "last_event_number", agent=agent) or 0


async def open_store(file: Path) -> Store:
    """Open the records at `file`, made or migrated first where that is due."""
    return await to_thread.run_sync(lambda: Store(open_database(file), first_port(file.parent)))
