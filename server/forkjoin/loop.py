"""The loop: something happened → it is recorded → decide → act.

It looks at what is, not at what has changed: every change of the records wakes it, it asks the scheduler what to start,
and sees to it that each agent and landing that is under way is carried on by a task. A daemon that has just started
does exactly the same, and so takes over what another left.
"""

import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from weakref import WeakSet

import anyio
from anyio.abc import TaskGroup

from forkjoin import journal
from forkjoin.agent.attach import let_go
from forkjoin.agent.life import live
from forkjoin.agent.machine import find_max_running
from forkjoin.agent.obey import Obey
from forkjoin.agent.remove import finish_removals
from forkjoin.agent.request import Expiry
from forkjoin.agent.retention import tidy
from forkjoin.agent.schedule import Schedule
from forkjoin.agent.tell import deliver, taker_of
from forkjoin.branch import git
from forkjoin.branch.repository import look
from forkjoin.error import CallerError, ForkjoinError, is_passing, words_of
from forkjoin.landing.asker import find_environment, lacks_environment
from forkjoin.landing.foresight import Foresight
from forkjoin.landing.land import Lander
from forkjoin.landing.retire import retire
from forkjoin.model import Agent, Landing, LandingState, Project
from forkjoin.rooms import Rooms
from forkjoin.session import Session, digest_of

log = logging.getLogger(__name__)

#: How long what has failed is let rest before it is tried again.
_REST_S = 2.0
#: No sooner is it looked again where nothing has happened.
_SOONEST_S = 0.1
#: No later, where something waits for a time of day: this machine's sleep is none of ours (a laptop that was shut).
_LATEST_S = 30.0
#: How often it is looked for what is due; and how soon after a start, when those are back whose environment it needs.
_TIDY_EVERY_S, _SETTLED_S = 3600.0, 60.0


class Loop:
    """The daemon's heart. Tools reach everything through it."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.store = rooms.store
        self.max_running = rooms.settings.limits.max_running or 1
        self.schedule = Schedule(rooms)
        self.held_up: dict[str, str] = {}  #: why what is attended to can't be carried on now; an agent's by its id
        self.waiting_landings = 0  #: merges that wait for their lead's environment, which a restart has lost
        self._obey = Obey(rooms)
        self._expiry = Expiry(rooms)
        self._lander = Lander(rooms)
        self.foresight = Foresight(rooms)
        self._attended: set[str] = set()  #: what a task sees to
        self._connected: WeakSet[Session] = WeakSet()

    def __repr__(self) -> str:
        return f"Loop({self.rooms.home!r}, max_running={self.max_running}, attended={len(self._attended)})"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or queued."""
        return not self._attended and not self.schedule.waiting

    async def admit(self, session: Session, lead: str) -> tuple[Project, str]:
        """The project that a session stands in, and the digest of its environment, which its lead's agents may use."""
        self._connected.add(session)
        common_dir = (await look(session.folder)).common_dir
        if session.agent:
            return await self._project_of(session.agent, session, common_dir), session.agent.environment
        project = await self.store.project(common_dir)
        await git.admit(project.common_dir)
        digest = self.rooms.environments.keep(session.hello.environment)
        if self.rooms.environments.lend(project.number, lead, digest):
            self.store.changes.announce()
        return project, digest

    async def _project_of(self, agent: Agent, session: Session, common_dir: str) -> Project:
        """The project that an agent's program stands in: its own, whatever that has made of its worktree."""
        if session.is_person:
            return await self.store.project(common_dir)
        project = await self.store.project_numbered(agent.project)
        if project.common_dir != common_dir:
            raise CallerError(f"{agent.worktree} is no worktree of {project.common_dir} any more; nothing was changed.")
        return project

    async def welcome(self, session: Session) -> None:
        """A connection is there: what waits for its lead's environment may use this one."""
        if not session.hello.token:
            with suppress(ForkjoinError):
                await self.admit(session, session.lead(""))
            return
        session.agent = await self.store.agent_of_token(digest_of(session.hello.token))
        if session.agent is None:
            raise CallerError(
                "FORKJOIN_TOKEN is set to what is no agent's token here. Agents' programs get theirs from forkjoin; "
                "if you are none, unset it and call again."
            )

    async def run(self) -> None:
        """Decide and act for ever."""
        self.max_running = await find_max_running(self.rooms)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tidy)
            tasks.start_soon(self.rooms.executor.watch)
            while True:
                seen = self.store.changes.version
                try:
                    look_s = min(await self._expire(), await self._turn(tasks))
                except Exception:  # a boundary: what is under way goes on, and the records may come back
                    log.exception("the loop could not see to what is; trying again")
                    await anyio.sleep(_REST_S)
                    continue
                soon_s = max(_SOONEST_S, look_s)
                with anyio.move_on_after(soon_s if soon_s == math.inf else min(soon_s, _LATEST_S)):
                    await self.store.changes.after(seen)

    async def _expire(self) -> float:
        """Close what nobody has answered in time; in how many seconds the next is due."""
        try:
            return await self._expiry.act()
        except Exception:  # a boundary: agents start, and go on, though some can't be told that their time is up
            log.exception("what nobody has answered in time could not be closed; trying again")
            return _REST_S

    async def _tidy(self) -> None:
        """Take away what earlier daemons left half done, and what is due."""
        for rest_s in itertools.chain([_SETTLED_S], itertools.repeat(_TIDY_EVERY_S)):
            try:
                await finish_removals(self.rooms)
                await tidy(self.rooms, datetime.now(UTC).date(), list(self._connected))
                await retire(self.rooms)
            except Exception:  # a boundary, as above
                log.exception("what is due could not be let go of; trying again in an hour")
            await anyio.sleep(rest_s)

    async def _turn(self, tasks: TaskGroup) -> float:
        """See to all that is, once; after how many seconds it is to be looked again, though nothing has happened."""
        under_way = await self.schedule.act(self.max_running)
        self._obey.forget_all_but(under_way)
        for agent in under_way:
            self._attend(tasks, agent.id, agent.label, partial(live, self.rooms, agent.number))
            if self._obey.is_due(agent):
                follow = partial(self._obey.follow, agent.number)
                self._attend(tasks, f"obey {agent.id}", f"what was asked of {agent.label}", follow)
        for agent in await self.store.with_mail():
            if taker_of(self.rooms, agent):
                tell = partial(deliver, self.rooms, agent)
                self._attend(tasks, f"tell {agent.id}", f"what {agent.label} is told", tell)
        for number in [number for number, who in self.rooms.attached.items() if who.session.closed]:
            leave = partial(let_go, self.rooms, number)
            self._attend(tasks, f"leave a{number}", f"what a person left of a{number}", leave)
        for landing in await self._next_landings(await self.store.open_landings()):
            act = partial(self._land, landing.number)
            self._attend(tasks, f"landing on {landing.target} in {landing.project}", f"landing {landing.number}", act)
        return self.schedule.next_look_s

    async def _next_landings(self, landings: list[Landing]) -> Iterable[Landing]:
        """Each target's first landing that can be carried out; the others wait for it."""
        able = [landing for landing in landings if not await lacks_environment(self.rooms, landing)]
        self.waiting_landings = len(landings) - len(able)
        return {(landing.project, landing.target): landing for landing in reversed(able)}.values()

    def _attend(self, tasks: TaskGroup, key: str, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Let a task see to this, unless one does."""
        if key not in self._attended:
            self._attended.add(key)
            tasks.start_soon(self._see_to, key, what, act)

    async def _see_to(self, key: str, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do this; where it fails, say so and let it rest. Then the loop looks again at what is to be done."""
        try:
            await act()
        except Exception as error:  # a boundary: the trouble of one agent, or landing, is its own
            self.held_up[key] = f"{what} can't be carried on now, and is tried again: {words_of(error)}"
            tell = log.error if is_passing(error) else log.exception
            tell("%s could not be carried on; trying again: %s", what, words_of(error))
            await anyio.sleep(_REST_S)
        finally:
            self._attended.discard(key)
            self.held_up.pop(key, None)
            self.store.changes.announce()

    async def _land(self, number: int) -> None:
        landing = await self.store.landing(number)  # it may be done since it was listed
        if landing.state is not LandingState.DONE:
            with journal.concerning(landing=number):
                await self._lander.land(landing, await find_environment(self.rooms, landing))
