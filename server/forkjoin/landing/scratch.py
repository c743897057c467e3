"""A landing's scratch worktree, made ready as an agent's is, in which verify is run on what is merged."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.attempt.shell import handles
from forkjoin.branch import git, worktree
from forkjoin.branch.include import bring_ignored
from forkjoin.branch.place import is_folder
from forkjoin.landing.order import PREFIX, Order
from forkjoin.model import Agent
from forkjoin.rooms import Rooms
from forkjoin.workplace import Workplace, handles_beside

log = logging.getLogger(__name__)

#: Characters of why a branch is rejected.
_WORDS = 2_000


class Scratch:
    """The scratch worktree of one landing, while this daemon carries it out."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._taken_over = False

    async def verify(self, agents: Sequence[Agent], commit: str, command: str) -> str | None:
        """Run verify on exactly this commit, in which these agents' branches are merged; why it failed, if it did."""
        order = self._order
        if not self._taken_over:
            await self._end_what_was_left(commit)
            await _end(order.rooms, handles(self._handle(), "teardown"))
            self._taken_over = True
        await worktree.make_scratch(order.common_dir, order.scratch, commit)
        why = await self._verify(self._workplace(self._handle(commit), agents), command)
        await _end(order.rooms, handles_beside(self._handle(commit), order.recipe))
        return why

    async def clear(self) -> None:
        """Leave nothing of it. Doing so twice is harmless."""
        await self._end_what_was_left("")
        if self._order.recipe.teardown is not None and await to_thread.run_sync(is_folder, self._order.scratch):
            await self._tear_down()
        await worktree.remove(self._order.common_dir, self._order.scratch)

    async def _end_what_was_left(self, but_for: str) -> None:
        """End the run that a daemon which died has left here, unless it is the one that is wanted."""
        commit = await to_thread.run_sync(worktree.scratch_commit, self._order.common_dir, self._order.scratch)
        if commit and commit != but_for:
            await _end(self._order.rooms, handles_beside(self._handle(commit), self._order.recipe))

    def _handle(self, commit: str = "") -> str:
        return f"l{self._order.landing.number}{commit and '-'}{commit[:16]}"

    async def _verify(self, workplace: Workplace, command: str) -> str | None:
        """Make the worktree ready and run verify; why it failed, if it did."""
        if workplace.checkout:
            await bring_ignored(Path(workplace.checkout), workplace.path)
        ready = await workplace.make_ready()
        if ready.failed:
            return ready.failed[-_WORDS:]
        minutes = self._order.rooms.settings.limits.verify_minutes
        outcome, printed = await workplace.run("verify", command, minutes)
        return None if outcome.ok else f"verify: {outcome}\n{printed[-_WORDS:]}".strip()

    async def _tear_down(self) -> None:
        workplace, number = self._workplace(self._handle()), self._order.landing.number
        if self._order.environment is None:
            log.warning("landing %d: its environment is lost; its teardown is run in what others have", number)
        if why := await workplace.tear_down():
            log.warning("landing %d: its teardown failed: %s", number, why)
        await _end(self._order.rooms, handles(workplace.handle, "teardown"))

    def _workplace(self, handle: str, agents: Sequence[Agent] = ()) -> Workplace:
        """Where what is run of this landing runs, on what these agents' branches are merged in."""
        order, landing = self._order, self._order.landing
        anybodys = order.rooms.environments.find_any(landing.project)
        target = {"FORKJOIN_LANDING": str(landing.number), "FORKJOIN_TARGET": git.short(landing.target)}
        return Workplace(
            rooms=order.rooms,
            handle=handle,
            common_dir=order.common_dir,
            path=order.scratch,
            checkout=landing.checkout,
            recipe=order.recipe,
            port_base=landing.port_base,
            environment=order.environment or anybodys or {},
            ours=target | {"FORKJOIN_AGENTS": " ".join(agent.id for agent in agents)},
        )


async def sweep(rooms: Rooms, path: Path) -> None:
    """Take away the scratch worktree at `path`, whose landing is done or recorded no more; else nothing."""
    if common_dir := await to_thread.run_sync(worktree.find_scratch, path):
        prefix = f"l{path.name.removeprefix(PREFIX)}-"
        await _end(rooms, [handle for handle in await rooms.executor.handles() if handle.startswith(prefix)])
        await worktree.remove(common_dir, path)
    else:
        log.warning("%s stays: it is no scratch worktree", path)


async def _end(rooms: Rooms, handles: Iterable[str]) -> None:
    """Leave nothing of these runs, neither processes nor files."""
    for handle in handles:
        if left := await rooms.executor.cancel(handle, rooms.settings.limits.stop_grace_s):
            log.warning("%s can't be ended: %s", handle, ", ".join(left))
        await rooms.executor.forget(handle)
