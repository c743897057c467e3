"""The reconciler: the daemon's loop, which compares the records with what runs, and acts on the difference.

Each change of the records starts a pass. In a pass the scheduler decides which agents start, and every agent and merge
that is under way gets a task that carries it on. The reconciler looks at the state as it is, not at what has changed:
so a daemon that has just started takes over what another one left.
"""

import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial

import anyio
from anyio.abc import TaskGroup

from forkjoin.agents.apply_retention import apply_retention
from forkjoin.agents.apply_schedule import ScheduleApplier
from forkjoin.agents.attach import detach, find_interrupted_attachments
from forkjoin.agents.message_delivery import deliver_messages, find_message_adapter
from forkjoin.agents.open_requests import RequestExpiry
from forkjoin.agents.process_control import ProcessControl
from forkjoin.agents.remove import finish_removals
from forkjoin.agents.run_agent import run_agent
from forkjoin.core import daemon_log
from forkjoin.core.error import describe_error, is_transient
from forkjoin.core.merge_job import MergeJob, MergeJobState
from forkjoin.merge_queue.conflict_preview import ConflictPreview
from forkjoin.merge_queue.requester import find_job_environment, lacks_environment
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.merge_queue.scratch_cleanup import remove_unused_scratches
from forkjoin.services import Services

log = logging.getLogger(__name__)

#: Delay before work that failed is tried again.
_RETRY_DELAY_S = 2.0
#: The shortest time between two passes if the records don't change.
_MIN_PASS_INTERVAL_S = 0.1
#: The longest wait for a time of day. The clock may be set meanwhile, and the machine may sleep (a closed laptop).
_MAX_WAIT_S = 30.0
#: Time between two cleanups; and between the start and the first, so that leads can reconnect with their environments.
_CLEANUP_INTERVAL_S, _FIRST_CLEANUP_S = 3600.0, 60.0


class Reconciler:
    """The daemon's loop. Tools reach all services through it."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.store = services.store
        self.schedule = ScheduleApplier(services)
        self.trouble: dict[str, str] = {}  #: why work can't be carried on now, by key; an agent's key is its id
        self.merges_without_environment = 0  #: merges that wait for their lead's environment
        self.conflict_preview = ConflictPreview(services)
        self._process_control = ProcessControl(services)
        self._expiry = RequestExpiry(services)
        self._merge_runner = MergeRunner(services)
        self._running: set[str] = set()  #: keys of the work that a task carries on

    def __repr__(self) -> str:
        home, max_running, tasks = self.services.home, self.schedule.max_running, len(self._running)
        return f"Reconciler({home!r}, max_running={max_running}, tasks={tasks})"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way or queued."""
        return not self._running and not self.schedule.waiting

    async def run(self) -> None:
        """Run passes until cancelled.

        A pass follows each change of the records, and each time that something is due.
        """
        await find_interrupted_attachments(self.services)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._clean_up_regularly)
            tasks.start_soon(self.services.executor.enforce_limits)
            while True:
                seen = self.store.changes.version
                try:
                    due_s = min(await self._expire_requests(), await self._run_pass(tasks))
                except Exception:  # a boundary: running tasks go on, and the records may become readable again
                    log.exception("a pass of the reconciler failed; trying again in %g s", _RETRY_DELAY_S)
                    await anyio.sleep(_RETRY_DELAY_S)
                    continue
                wait_s = max(_MIN_PASS_INTERVAL_S, due_s)
                with anyio.move_on_after(wait_s if wait_s == math.inf else min(wait_s, _MAX_WAIT_S)):
                    await self.store.changes.after(seen)

    async def _expire_requests(self) -> float:
        """Close requests that were not answered in time.

        Return the seconds until the next one expires.
        """
        try:
            return await self._expiry.close_expired()
        except Exception:  # a boundary: other agents start and go on
            log.exception("requests that were not answered in time could not be closed; trying again")
            return _RETRY_DELAY_S

    async def _clean_up_regularly(self) -> None:
        """Finish interrupted removals, and remove agents and scratches that are due.

        Merged agents are due after their retention time, scratch worktrees when their target is gone or unused.
        """
        for delay_s in itertools.chain([_FIRST_CLEANUP_S], itertools.repeat(_CLEANUP_INTERVAL_S)):
            try:
                await finish_removals(self.services)
                await apply_retention(self.services, datetime.now(UTC).date(), list(self.services.project_sessions))
                await remove_unused_scratches(self.services)
            except Exception:  # a boundary: the daemon's other work goes on
                log.exception("the cleanup failed; trying again in an hour")
            await anyio.sleep(delay_s)

    async def _run_pass(self, tasks: TaskGroup) -> float:
        """Run one pass. Return the seconds until the next one is due if nothing changes."""
        await self.services.environments.save(await self.store.agents.needed_environments())
        under_way = await self.schedule.apply()
        self._process_control.forget_others(under_way)
        for agent in under_way:
            self._ensure_task(tasks, agent.id, agent.label, partial(run_agent, self.services, agent.number))
            if self._process_control.is_pending(agent):
                apply = partial(self._process_control.apply, agent.number)
                self._ensure_task(tasks, f"processes of {agent.id}", f"stopping or pausing {agent.label}", apply)
        for agent in await self.store.messages.agents_in_turn():
            if find_message_adapter(self.services, agent):
                send = partial(deliver_messages, self.services, agent)
                self._ensure_task(tasks, f"messages to {agent.id}", f"messages to {agent.label}", send)
        for number in [number for number, attachment in self.services.attached.items() if attachment.is_over]:
            end = partial(detach, self.services, number)
            self._ensure_task(tasks, f"detaching from a{number}", f"detaching a person from a{number}", end)
        for merge in await self._find_next_merges(await self.store.merges.open()):
            run = partial(self._run_merge, merge.number)
            self._ensure_task(tasks, merge.trouble_key, f"merge job {merge.number}", run)
        return self.schedule.next_pass_s

    async def _find_next_merges(self, merges: list[MergeJob]) -> Iterable[MergeJob]:
        """Return the first merge of each target.

        Merges whose lead's environment is missing are left out.
        """
        able = [merge for merge in merges if not await lacks_environment(self.services, merge)]
        self.merges_without_environment = len(merges) - len(able)
        return {(merge.project, merge.target): merge for merge in reversed(able)}.values()

    def _ensure_task(self, tasks: TaskGroup, key: str, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Start a task for the work, unless one with this key runs.

        Args:
            what: The work as messages name it.
        """
        if key not in self._running:
            self._running.add(key)
            tasks.start_soon(self._run_task, key, what, act)

    async def _run_task(self, key: str, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do the work once. If it fails, log why, wait, and let the next pass try again."""
        try:
            await act()
        except Exception as error:  # a boundary: one agent's or merge's trouble stays its own
            self.trouble[key] = f"{what} can't be carried on now, and is tried again: {describe_error(error)}"
            write = log.error if is_transient(error) else log.exception
            write("%s could not be carried on; trying again: %s", what, describe_error(error))
            await anyio.sleep(_RETRY_DELAY_S)
        finally:
            self._running.discard(key)
            self.trouble.pop(key, None)
            self.store.changes.announce()

    async def _run_merge(self, number: int) -> None:
        merge = await self.store.merges.get(number)  # it may have been done since it was listed
        if merge.state is not MergeJobState.DONE:
            with daemon_log.concerning(merge=number):
                await self._merge_runner.run(merge, await find_job_environment(self.services, merge))
