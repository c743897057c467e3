"""The reconciler: something happened → it is recorded → decide → act.

It looks at what is, not at what has changed: every change of the records wakes it, it asks the scheduler what to start,
and sees to it that each agent and landing that is under way is carried on by a task. A daemon that has just started
does exactly the same, and so takes over what another left.
"""

import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial

import anyio
from anyio.abc import TaskGroup

from forkjoin.agents.apply_schedule import ScheduleApplier
from forkjoin.agents.attach import detach, find_interrupted_attachments
from forkjoin.agents.lifecycle import run_agent
from forkjoin.agents.messages import deliver_messages, find_message_adapter
from forkjoin.agents.process_control import ProcessControl
from forkjoin.agents.remove import finish_removals
from forkjoin.agents.requests import RequestExpiry
from forkjoin.agents.retention import apply_retention
from forkjoin.core import daemon_log
from forkjoin.core.error import is_passing, words_of
from forkjoin.core.model import MergeJob, MergeJobState
from forkjoin.merge_queue.conflict_preview import ConflictPreview
from forkjoin.merge_queue.requester import find_environment, lacks_environment
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.merge_queue.scratch_cleanup import remove_unused_scratches
from forkjoin.services import Services

log = logging.getLogger(__name__)

#: How long what has failed is let rest before it is tried again.
_REST_S = 2.0
#: No sooner is it looked again where nothing has happened.
_SOONEST_S = 0.1
#: No later, where something waits for a time of day: this machine's sleep is none of ours (a laptop that was shut).
_LATEST_S = 30.0
#: How often it is looked for what is due; and how soon after a start, when those are back whose environment it needs.
_TIDY_EVERY_S, _SETTLED_S = 3600.0, 60.0


class Reconciler:
    """The daemon's heart. Tools reach everything through it."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.store = services.store
        self.schedule = ScheduleApplier(services)
        self.trouble: dict[str, str] = {}  #: why what is attended to can't be carried on now; an agent's by its id
        self.merges_without_environment = 0  #: merges that wait for their lead's environment, which a restart has lost
        self._process_control = ProcessControl(services)
        self._expiry = RequestExpiry(services)
        self._merge_runner = MergeRunner(services)
        self.conflict_preview = ConflictPreview(services)
        self._attended: set[str] = set()  #: what a task sees to

    def __repr__(self) -> str:
        home, most, attended = self.services.home, self.schedule.max_running, len(self._attended)
        return f"Reconciler({home!r}, max_running={most}, attended={attended})"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or queued."""
        return not self._attended and not self.schedule.waiting

    async def run(self) -> None:
        """Decide and act for ever."""
        await find_interrupted_attachments(self.services)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tidy)
            tasks.start_soon(self.services.executor.enforce_limits)
            while True:
                seen = self.store.changes.version
                try:
                    look_s = min(await self._expire(), await self._turn(tasks))
                except Exception:  # a boundary: what is under way goes on, and the records may come back
                    log.exception("the reconciler could not see to what is; trying again")
                    await anyio.sleep(_REST_S)
                    continue
                soon_s = max(_SOONEST_S, look_s)
                with anyio.move_on_after(soon_s if soon_s == math.inf else min(soon_s, _LATEST_S)):
                    await self.store.changes.after(seen)

    async def _expire(self) -> float:
        """Close what nobody has answered in time; in how many seconds the next is due."""
        try:
            return await self._expiry.close_expired()
        except Exception:  # a boundary: agents start, and go on, though some can't be told that their time is up
            log.exception("what nobody has answered in time could not be closed; trying again")
            return _REST_S

    async def _tidy(self) -> None:
        """Take away what earlier daemons left half done, and what is due."""
        for rest_s in itertools.chain([_SETTLED_S], itertools.repeat(_TIDY_EVERY_S)):
            try:
                await finish_removals(self.services)
                await apply_retention(self.services, datetime.now(UTC).date(), list(self.services.project_sessions))
                await remove_unused_scratches(self.services)
            except Exception:  # a boundary, as above
                log.exception("what is due could not be let go of; trying again in an hour")
            await anyio.sleep(rest_s)

    async def _turn(self, tasks: TaskGroup) -> float:
        """See to all that is, once; after how many seconds it is to be looked again, though nothing has happened."""
        await self.services.environments.save(await self.store.agents.needed_environments())
        under_way = await self.schedule.apply()
        self._process_control.forget_others(under_way)
        for agent in under_way:
            self._attend(tasks, agent.id, agent.label, partial(run_agent, self.services, agent.number))
            if self._process_control.is_pending(agent):
                follow = partial(self._process_control.apply, agent.number)
                self._attend(tasks, f"processes of {agent.id}", f"what was asked of {agent.label}", follow)
        for agent in await self.store.messages.agents_in_turn():
            if find_message_adapter(self.services, agent):
                tell = partial(deliver_messages, self.services, agent)
                self._attend(tasks, f"tell {agent.id}", f"what {agent.label} is told", tell)
        for number in [number for number, attachment in self.services.attached.items() if attachment.is_over]:
            leave = partial(detach, self.services, number)
            self._attend(tasks, f"leave a{number}", f"what a person left of a{number}", leave)
        for landing in await self._next_landings(await self.store.merges.open()):
            act = partial(self._land, landing.number)
            self._attend(tasks, f"landing on {landing.target} in {landing.project}", f"landing {landing.number}", act)
        return self.schedule.next_pass_s

    async def _next_landings(self, landings: list[MergeJob]) -> Iterable[MergeJob]:
        """Each target's first landing that can be carried out; the others wait for it."""
        able = [landing for landing in landings if not await lacks_environment(self.services, landing)]
        self.merges_without_environment = len(landings) - len(able)
        return {(landing.project, landing.target): landing for landing in reversed(able)}.values()

    def _attend(self, tasks: TaskGroup, key: str, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Let a task see to this, unless one does."""
        if key not in self._attended:
            self._attended.add(key)
            tasks.start_soon(self._see_to, key, what, act)

    async def _see_to(self, key: str, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do this; where it fails, say so and let it rest. Then the reconciler looks again at what is to be done."""
        try:
            await act()
        except Exception as error:  # a boundary: the trouble of one agent, or landing, is its own
            self.trouble[key] = f"{what} can't be carried on now, and is tried again: {words_of(error)}"
            tell = log.error if is_passing(error) else log.exception
            tell("%s could not be carried on; trying again: %s", what, words_of(error))
            await anyio.sleep(_REST_S)
        finally:
            self._attended.discard(key)
            self.trouble.pop(key, None)
            self.store.changes.announce()

    async def _land(self, number: int) -> None:
        landing = await self.store.merges.get(number)  # it may be done since it was listed
        if landing.state is not MergeJobState.DONE:
            with daemon_log.concerning(landing=number):
                await self._merge_runner.run(landing, await find_environment(self.services, landing))
