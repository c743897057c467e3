"""A landing's scratch worktree, in which verify is run on each merged state."""

import logging

from anyio import to_thread

from forkjoin.attempt.environment import compose
from forkjoin.attempt.verify import handles, run_verify
from forkjoin.branch import git, worktree
from forkjoin.landing.order import Order
from forkjoin.model import Agent, Outcome

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
            await self._end(commit)

    async def _run(self, agent: Agent, commit: str, command: str) -> tuple[Outcome, str]:
        """How verify went, and what it printed."""
        rooms, landing = self._order.rooms, self._order.landing
        ours = {
            **rooms.home.variables,
            "FORKJOIN_LANDING": str(landing.number),
            "FORKJOIN_AGENT": agent.id,
            "FORKJOIN_NAME": agent.name,
            "FORKJOIN_TARGET": git.short(landing.target),
        }
        environment = compose(self._order.environment or {}, {}, ours)
        limits = rooms.settings.limits
        ran = await run_verify(
            rooms.executor,
            self._handle(commit),
            command,
            str(self._order.scratch),
            environment,
            limits.verify_minutes,
            limits.log_megabytes * 1024 * 1024,
        )
        await self._end(commit)
        return ran

    def _handle(self, commit: str) -> str:
        return f"l{self._order.landing.number}-{commit[:16]}"

    async def _end(self, commit: str) -> None:
        """Leave nothing of the run on this commit, neither processes nor files."""
        executor, grace = self._order.rooms.executor, self._order.rooms.settings.limits.stop_grace_s
        for handle in handles(self._handle(commit)):
            if left := await executor.cancel(handle, grace):
                log.warning("landing %d: can't be ended: %s", self._order.landing.number, ", ".join(left))
            await executor.forget(handle)
