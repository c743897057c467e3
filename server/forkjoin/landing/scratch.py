"""A landing's scratch worktree, in which verify is run on each merged state."""

import logging
from pathlib import Path

from anyio import to_thread

from forkjoin.attempt.environment import compose
from forkjoin.attempt.verify import handles, run_verify
from forkjoin.branch import git, worktree
from forkjoin.landing.order import PREFIX, Order
from forkjoin.model import Agent, Outcome
from forkjoin.rooms import Rooms

log = logging.getLogger(__name__)

_WORDS = 2_000


class Scratch:
    """The scratch worktree of one landing, while this daemon carries it out."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._taken_over = False

    async def verify(self, agent: Agent, commit: str, command: str) -> str | None:
        """Run verify on exactly this commit; why it failed, if it did."""
        order = self._order
        if not self._taken_over:
            await self._end_what_was_left(commit)
            self._taken_over = True
        await worktree.make_scratch(order.common_dir, order.scratch, commit)
        outcome, printed = await self._run(agent, commit, command)
        return None if outcome.ok else f"verify: {outcome}\n{printed[-_WORDS:]}".strip()

    async def clear(self) -> None:
        """Leave nothing of it. Doing so twice is harmless."""
        await self._end_what_was_left("")
        await worktree.remove(self._order.common_dir, self._order.scratch)

    async def _end_what_was_left(self, but_for: str) -> None:
        """End the run that a daemon which died has left here, unless it is the one that is wanted."""
        commit = await to_thread.run_sync(worktree.scratch_commit, self._order.common_dir, self._order.scratch)
        if commit and commit != but_for:
            await _end(self._order.rooms, self._order.landing.number, commit)

    async def _run(self, agent: Agent, commit: str, command: str) -> tuple[Outcome, str]:
        """How verify went, and what it printed."""
        order, rooms, landing = self._order, self._order.rooms, self._order.landing
        ours = {
            **rooms.home.variables,
            "FORKJOIN_LANDING": str(landing.number),
            "FORKJOIN_AGENT": agent.id,
            "FORKJOIN_NAME": agent.name,
            "FORKJOIN_TARGET": git.short(landing.target),
        }
        environment = compose(order.environment or {}, {}, ours)
        limits = rooms.settings.limits
        ran = await run_verify(
            rooms.executor,
            _handle(landing.number, commit),
            command,
            str(order.scratch),
            environment,
            limits.verify_minutes,
            limits.log_megabytes * 1024 * 1024,
        )
        await _end(rooms, order.landing.number, commit)
        return ran


async def sweep(rooms: Rooms, path: Path) -> None:
    """Take away the scratch worktree at `path`, whose landing is done or recorded no more; else nothing."""
    if found := await to_thread.run_sync(worktree.find_scratch, path):
        common_dir, commit = found
        await _end(rooms, int(path.name.removeprefix(PREFIX)), commit)
        await worktree.remove(common_dir, path)
    else:
        log.warning("%s stays: it is no scratch worktree", path)


async def _end(rooms: Rooms, landing: int, commit: str) -> None:
    """Leave nothing of a landing's run on this commit, neither processes nor files."""
    for handle in handles(_handle(landing, commit)):
        if left := await rooms.executor.cancel(handle, rooms.settings.limits.stop_grace_s):
            log.warning("landing %d: can't be ended: %s", landing, ", ".join(left))
        await rooms.executor.forget(handle)


def _handle(landing: int, commit: str) -> str:
    return f"l{landing}-{commit[:16]}"
