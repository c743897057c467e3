"""The loop: something happened → it is recorded → decide → act.

It looks at what is, not at what has changed: every change of the records wakes it, it asks the scheduler what to start,
and sees to it that each agent and landing that is under way is carried on by a task. A daemon that has just started
does exactly the same, and so takes over what another left.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from weakref import WeakSet

import anyio
from anyio.abc import TaskGroup

from forkjoin import journal
from forkjoin.agent.life import Life
from forkjoin.agent.remove import finish_removals
from forkjoin.agent.retention import tidy
from forkjoin.agent.stop import end_processes
from forkjoin.branch import git
from forkjoin.branch.repository import look
from forkjoin.decision import scheduler
from forkjoin.error import BrokenPromiseError, CallerError, ForkjoinError, is_passing, words_of
from forkjoin.event import Noted
from forkjoin.landing.land import Lander
from forkjoin.model import Agent, Landing, LandingState, Project, State
from forkjoin.rooms import Rooms
from forkjoin.session import Session

log = logging.getLogger(__name__)

#: How long what has failed for reasons of ours is let rest before it is tried again.
_REST_S = 2.0
#: How often it is looked whether a new day has begun.
_TIDY_EVERY_S = 3600.0


def _today() -> date:
    return datetime.now(UTC).date()


class Loop:
    """The daemon's heart. Tools reach everything through it."""

    def __init__(self, rooms: Rooms, today: Callable[[], date] = _today) -> None:
        self.rooms = rooms
        self.store = rooms.store
        self.max_running = rooms.settings.limits.max_running or 1
        self.waiting: dict[int, str] = {}  #: why each queued agent waits, by number
        self.held_up: dict[str, str] = {}  #: why what is under way can't be carried on now; by agent's id, or landing
        self.waiting_landings = 0  #: merges that wait for their lead's environment, which a restart has lost
        self._stopped: set[tuple[int, int]] = set()  #: (agent, attempt) whose end was seen to
        self._life = Life(rooms)
        self._lander = Lander(rooms)
        self._attended: set[str] = set()
        self._today = today
        self._connected: WeakSet[Session] = WeakSet()

    def __repr__(self) -> str:
        return f"Loop({self.rooms.home!r}, max_running={self.max_running}, attended={len(self._attended)})"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or queued."""
        return not self._attended and not self.waiting

    async def admit(self, session: Session, lead: str) -> tuple[Project, str]:
        """The project that a session stands in, and the digest of its environment, which its lead's agents may use.

        Raises:
            CallerError: It stands in no repository.
        """
        self._connected.add(session)
        project = await self.store.project((await look(session.folder)).common_dir)
        if not session.is_agent:
            await git.admit(project.common_dir)
        digest = self.rooms.environments.keep(session.hello.environment)
        if self.rooms.environments.lend(project.number, lead, digest):
            self.store.changes.announce()
        return project, digest

    async def welcome(self, session: Session) -> None:
        """A connection is there: what waits for its lead's environment may use this one.

        Raises:
            CallerError: It shows a token that is no agent's.
        """
        if session.is_agent:
            session.agent = await self._whose(session.token)
            return
        with suppress(ForkjoinError):
            await self.admit(session, session.lead(""))

    async def _whose(self, token: str) -> str:
        agent = await self.store.agent_of_token(token)
        if agent is None:
            raise CallerError(
                "FORKJOIN_TOKEN is set to what is no agent's token here. Agents' programs get theirs from forkjoin; "
                "if you are none, unset it and call again."
            )
        return agent.label

    async def run(self) -> None:
        """Decide and act for ever."""
        if self.rooms.settings.limits.max_running is None:
            capacity = await self.rooms.executor.capacity()
            self.max_running = scheduler.default_max_running(capacity.cores, capacity.free_memory_bytes)
        await self._lander.sweep()
        await finish_removals(self.rooms)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tidy_daily)
            while True:
                seen = self.store.changes.version
                try:
                    await self._turn(tasks)
                except Exception:  # a boundary: what is under way goes on, and the records may come back
                    log.exception("the loop could not see to what is; trying again")
                    await anyio.sleep(_REST_S)
                    continue
                await self.store.changes.after(seen)

    async def _turn(self, tasks: TaskGroup) -> None:
        """See to all that is, once."""
        for agent in await self._start_what_may(await self.store.live()):
            if agent.state is not State.QUEUED:
                self._attend(tasks, agent)
            if agent.stop_asked and (agent.number, agent.attempt) not in self._stopped:
                self._stopped.add((agent.number, agent.attempt))
                tasks.start_soon(self._stop, agent)
        self._attend_landings(tasks, await self.store.open_landings())

    async def _stop(self, agent: Agent) -> None:
        try:
            await end_processes(self.rooms, agent)
        except Exception:  # a boundary, as below
            log.exception("%s could not be stopped; trying again", agent.label)
            await anyio.sleep(_REST_S)
            self._stopped.discard((agent.number, agent.attempt))

    async def _tidy_daily(self) -> None:
        while True:
            try:
                await tidy(self.rooms, self._today(), list(self._connected))
            except Exception:  # a boundary: there is another day
                log.exception("what is due could not be let go of; trying again")
            await anyio.sleep(_TIDY_EVERY_S)

    async def _start_what_may(self, live: list[Agent]) -> list[Agent]:
        """Start those queued ones that may; all that are under way or queued then."""
        queued = {agent.number: agent for agent in live if agent.state is State.QUEUED}
        without_environment = {
            n for n, a in queued.items() if not self.rooms.environments.find(a.environment, a.project, a.lead)
        }
        decision = scheduler.decide(live, self.max_running, without_environment)
        self.waiting = decision.waiting
        started: dict[int, Agent] = {}
        for number in decision.start:
            try:
                moved = await self.store.move(queued[number], State.PREPARING, Noted("preparing its worktree"))
                started[number] = moved
            except BrokenPromiseError:
                log.info("a%d was stopped before it could start", number)
        return [started.get(agent.number, agent) for agent in live]

    def _attend(self, tasks: TaskGroup, agent: Agent) -> None:
        if agent.id not in self._attended:
            self._attended.add(agent.id)
            tasks.start_soon(self._live, agent)

    async def _live(self, agent: Agent) -> None:
        try:
            with journal.concerning(agent=agent.id):
                await self._life.live(await self.store.agent(agent.number))  # it may have ended since it was listed
        except Exception as error:  # a boundary: one agent's trouble is that agent's alone
            await self._rest(agent.id, agent.label, error)
        finally:
            self._leave(agent.id)

    def _attend_landings(self, tasks: TaskGroup, landings: list[Landing]) -> None:
        """Let each project's first landing that can be carried out be so; the others wait for it."""
        able = [landing for landing in landings if not self._lacks_environment(landing)]
        self.waiting_landings = len(landings) - len(able)
        for project in {landing.project for landing in able}:
            first = next(landing for landing in able if landing.project == project)
            key = f"landing in {project}"
            if key not in self._attended:
                self._attended.add(key)
                tasks.start_soon(self._land, first, key)

    def _lacks_environment(self, landing: Landing) -> bool:
        """Whether it must run verify and a restart has lost what that runs in. A move in midst is settled without."""
        runs_verify = bool(landing.verify) and not landing.dry_run and landing.state is LandingState.QUEUED
        return runs_verify and self._environment_of(landing) is None

    async def _land(self, landing: Landing, key: str) -> None:
        try:
            landing = await self.store.landing(landing.number)  # it may be done since it was listed
            if landing.state is not LandingState.DONE:
                with journal.concerning(landing=landing.number):
                    await self._lander.land(landing, self._environment_of(landing))
        except Exception as error:  # a boundary, as above
            await self._rest(key, f"landing {landing.number}", error)
        finally:
            self._leave(key)

    async def _rest(self, key: str, what: str, error: Exception) -> None:
        """Say what can't be carried on, and let it rest before it is tried again."""
        self.held_up[key] = f"{what} can't be carried on now, and is tried again: {words_of(error)}"
        trace = None if is_passing(error) else error
        log.error("%s could not be carried on; trying again: %s", what, words_of(error), exc_info=trace)
        await anyio.sleep(_REST_S)

    def _environment_of(self, landing: Landing) -> dict[str, str] | None:
        return self.rooms.environments.find(landing.environment, landing.project, landing.lead)

    def _leave(self, key: str) -> None:
        self._attended.discard(key)
        self.held_up.pop(key, None)
        self.store.changes.announce()
