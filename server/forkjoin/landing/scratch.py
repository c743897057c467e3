"""A landing's scratch worktree, made ready as an agent's is, in which verify is run on each merged state."""

import logging
from collections.abc import Iterable
from pathlib import Path

from anyio import to_thread

from forkjoin.attempt.environment import compose
from forkjoin.attempt.shell import Ran, Shell, handles
from forkjoin.branch import git, worktree
from forkjoin.branch.include import bring_ignored
from forkjoin.branch.place import find_place, is_folder
from forkjoin.landing.order import PREFIX, Order
from forkjoin.model import Agent
from forkjoin.recipe import handles_of, make_ready
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
            await _end(order.rooms, handles(self._handle(), "teardown"))
            self._taken_over = True
        await worktree.make_scratch(order.common_dir, order.scratch, commit)
        why = await self._run(await self._open_shell(self._handle(commit), agent), command)
        await _end(order.rooms, self._handles(commit))
        return why

    async def clear(self) -> None:
        """Leave nothing of it. Doing so twice is harmless."""
        await self._end_what_was_left("")
        if await to_thread.run_sync(is_folder, self._order.scratch):
            await self._tear_down()
        await worktree.remove(self._order.common_dir, self._order.scratch)

    async def _end_what_was_left(self, but_for: str) -> None:
        """End the run that a daemon which died has left here, unless it is the one that is wanted."""
        commit = await to_thread.run_sync(worktree.scratch_commit, self._order.common_dir, self._order.scratch)
        if commit and commit != but_for:
            await _end(self._order.rooms, self._handles(commit))

    def _handle(self, commit: str = "") -> str:
        return f"l{self._order.landing.number}{commit and '-'}{commit[:16]}"

    def _handles(self, commit: str) -> list[str]:
        """The handles of all that may run on this commit."""
        handle = self._handle(commit)
        return [*handles(handle, "verify"), *handles_of(handle, self._order.recipe)]

    async def _run(self, shell: Shell, command: str) -> str | None:
        """Make the worktree ready and run verify; why it failed, if it did."""
        order = self._order
        place = await find_place(order.common_dir, order.scratch)
        assert place
        if order.landing.checkout:
            await bring_ignored(Path(order.landing.checkout), order.scratch)
        ready = await make_ready(shell, order.recipe, order.landing.checkout, place)
        if ready.failed:
            return ready.failed[-_WORDS:]
        return _why("verify", await shell.run("verify", command, order.rooms.settings.limits.verify_minutes))

    async def _tear_down(self) -> None:
        order = self._order
        if order.recipe.teardown is None or order.environment is None:
            return
        shell = await self._open_shell(self._handle())
        if why := _why("teardown", await shell.run("teardown", order.recipe.teardown, order.recipe.teardown_minutes)):
            log.warning("landing %d: %s", order.landing.number, why)
        await _end(order.rooms, handles(shell.handle, "teardown"))

    async def _open_shell(self, handle: str, agent: Agent | None = None) -> Shell:
        """Where this landing's command lines are run, those for an agent's merged state or those for none."""
        order, rooms, landing = self._order, self._order.rooms, self._order.landing
        ours = {
            **rooms.home.variables,
            "FORKJOIN_LANDING": str(landing.number),
            "FORKJOIN_TARGET": git.short(landing.target),
            "FORKJOIN_WORKTREE": str(order.scratch),
            **({"FORKJOIN_PORT_BASE": str(landing.port_base)} if landing.port_base else {}),
            **({"FORKJOIN_AGENT": agent.id, "FORKJOIN_NAME": agent.name} if agent else {}),
        }
        place = await find_place(order.common_dir, order.scratch) if order.recipe.share and landing.checkout else None
        wanted, ignore = order.recipe.environment, place.ignore if place else None
        environment = compose(order.environment or {}, {}, ours, wanted=wanted, ignore=ignore)
        limits = rooms.settings.limits
        return Shell(rooms.executor, handle, str(order.scratch), environment, limits.log_bytes, limits.per_agent)


def _why(kind: str, ran: Ran) -> str | None:
    """Why this failed, if it did, with the end of what it printed."""
    return None if ran.outcome.ok else f"{kind}: {ran.outcome}\n{ran.printed[-_WORDS:]}".strip()


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
