"""The scratch worktree of a target, made ready as an agent's is, in which landings run verify, one after the other.

It stays between them, with its caches. Each run of verify has a handle of its own, made of the worktree's number, the
landing's and the commit; what it said is recorded before anything of it is forgotten, so that a daemon that takes over
goes on with the run that is under way, and makes none twice.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import CallerError, GitError, is_passing
from forkjoin.core.model import Agent
from forkjoin.core.paths import Home
from forkjoin.git.refs import short_name
from forkjoin.git.worktrees.files_shared_from_checkout import drop_changed
from forkjoin.git.worktrees.included_files import renew_ignored
from forkjoin.git.worktrees.scratch_worktree import UnfitCommitError, detach, make_scratch
from forkjoin.git.worktrees.worktree_folder import find_place
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.services import Services
from forkjoin.store.scratch_worktrees import ScratchWorktree
from forkjoin.workspace.workspace import Workplace, handles_beside

log = logging.getLogger(__name__)

#: What scratch worktrees are called, before their number.
PREFIX = "target-"
#: Characters of why a branch is rejected.
_WORDS = 2_000


class ScratchVerifier:
    """The scratch worktree of a landing's target, while this daemon carries that landing out."""

    def __init__(self, order: MergeContext) -> None:
        self._order = order
        self._store = order.services.store
        self._is_replaced = False

    async def verify(self, agents: Sequence[Agent], commit: str, command: str) -> str:
        """Run verify on exactly this commit, in which these agents' branches are merged; why it failed, '' if not."""
        number = self._order.landing.number
        why = await self._store.merges.verify_failure(number, commit)
        if why is None:
            try:
                found = await self._make(commit)
            except UnfitCommitError as error:
                why = str(error)[-_WORDS:]
                await self._store.merges.set_verify_failure(number, commit, why)
            else:
                why = await self._verify(self._workplace(found, commit, agents), commit, command)
        return why

    async def _make(self, commit: str) -> ScratchWorktree:
        """The scratch worktree with this commit's files; another one, once, where the first can't be given them."""
        found = await self._take()
        try:
            await self._switch(found, commit)
        except (GitError, OSError) as error:
            if is_passing(error):
                raise
            if self._is_replaced:  # each verify leaves what is in the next one's way
                raise CallerError(_in_the_way(scratch_path(self._order.services.home, found.number), error)) from error
            self._is_replaced = True
            log.warning("scratch worktree %d is wrecked, and another is made: %s", found.number, error)
            await self._store.scratch_worktrees.retire(found.number)
            found = await self._take()
            await self._switch(found, commit)
        return found

    async def _take(self) -> ScratchWorktree:
        return await self._store.scratch_worktrees.take(self._order.landing, self._order.recipe)

    async def _switch(self, scratch: ScratchWorktree, commit: str) -> None:
        """Check out a commit's files and update the shared ignored files.

        What a run has left stays only if its commit is in the target now: agents' code wrote it.
        """
        order, run = self._order, self._run(scratch, commit)
        there = await list_runs(order.services, scratch.number)
        begun = [handle for handle in there if handle.startswith(f"{run}-")]
        if left := await end(order.services, set(there).difference(begun)):
            raise OSError(f"processes of an earlier run can't be ended: {', '.join(left)}")
        path, checkout = scratch_path(order.services.home, scratch.number), Path(scratch.checkout)
        if scratch.ready != run or await find_place(order.common_dir, path) is None:
            has_landed = bool(scratch.tip) and await order.has(scratch.tip, order.landing.target)
            await self._store.scratch_worktrees.set_ready(scratch.number, "", scratch.tip if has_landed else "")
            await make_scratch(order.common_dir, path, commit, keep=has_landed)
            await self._store.scratch_worktrees.set_ready(scratch.number, run, commit)
        place = await find_place(order.common_dir, path)
        if place and scratch.checkout and not begun:
            await renew_ignored(checkout, place)
            if scratch.recipe.share:
                await to_thread.run_sync(drop_changed, checkout, place, scratch.recipe.share)

    def _run(self, scratch: ScratchWorktree, commit: str) -> str:
        return f"t{scratch.number}-{self._order.landing.number}-{commit[:16]}"

    def _workplace(self, scratch: ScratchWorktree, commit: str, agents: Sequence[Agent]) -> Workplace:
        order, ids = self._order, " ".join(agent.id for agent in agents)
        ours = {"FORKJOIN_LANDING": str(order.landing.number), "FORKJOIN_AGENTS": ids}
        return workplace(order.services, scratch, self._run(scratch, commit), order.common_dir, order.environment, ours)

    async def _verify(self, workplace: Workplace, commit: str, command: str) -> str:
        """What verify says of the commit whose files are there, which is recorded; '' where it passed."""
        why = await self._run_verify(workplace, command)
        await detach(workplace.common_dir, workplace.path, commit)
        await self._store.merges.set_verify_failure(self._order.landing.number, commit, why)
        await end(self._order.services, handles_beside(workplace.handle, workplace.recipe))
        return why

    async def _run_verify(self, workplace: Workplace, command: str) -> str:
        """Make the worktree ready and run verify; why it failed, '' where it passed."""
        ready = await workplace.make_ready()
        if ready.failed:
            return ready.failed[-_WORDS:]
        minutes = self._order.services.settings.limits.verify_minutes
        outcome, printed = await workplace.run("verify", command, minutes)
        return "" if outcome.ok else f"verify: {outcome}\n{printed[-_WORDS:]}".strip()


async def leave(order: MergeContext) -> None:
    """Leave nothing of what a landing has run; the worktree stays for the next."""
    runs = re.compile(rf"t\d+-{order.landing.number}-")
    try:
        await end(order.services, filter(runs.match, await order.services.executor.handles()))
    except OSError:  # whoever waits for the answer gets it all the same; the next landing tries again
        log.exception("landing %d: what it has run is not forgotten", order.landing.number)


def _in_the_way(path: Path, error: Exception) -> str:
    return (
        f"verify ran in {path}, and what it left there can't be taken away: {error}. Nothing was merged; let verify "
        "leave no files, as of a container's root, that you may not delete, then merge again."
    )


def scratch_path(home: Home, number: int) -> Path:
    return home.worktrees / f"{PREFIX}{number}"


def workplace(
    services: Services,
    scratch: ScratchWorktree,
    handle: str,
    common_dir: str,
    environment: Mapping[str, str] | None,
    ours: Mapping[str, str],
) -> Workplace:
    """Where what is run in a scratch worktree runs."""
    return Workplace(
        services=services,
        handle=handle,
        common_dir=common_dir,
        path=scratch_path(services.home, scratch.number),
        checkout=scratch.checkout,
        recipe=scratch.recipe,
        port_base=scratch.port_base,
        environment=environment or {},
        ours={"FORKJOIN_TARGET": short_name(scratch.target), **ours},
    )


async def list_runs(services: Services, number: int) -> list[str]:
    """The handles of all that was run in a scratch worktree, and is not forgotten."""
    return [handle for handle in await services.executor.handles() if handle.startswith(f"t{number}-")]


async def end(services: Services, handles: Iterable[str]) -> list[str]:
    """Remove these runs' processes and files. Return processes that can't be ended."""
    all_left: list[str] = []
    for handle in handles:
        if left := await services.executor.cancel(handle, services.settings.limits.stop_grace_s):
            log.warning("%s can't be ended: %s", handle, ", ".join(left))
            all_left += left
        else:
            await services.executor.forget(handle)
    return all_left
