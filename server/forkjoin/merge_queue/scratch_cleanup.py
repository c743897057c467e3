"""Scratch worktrees that are due to go: their target is gone, or they were not used for a day, or replaced.

They are torn down as they were made ready. No landing takes one that is retired, so nobody waits for it; and one whose
end is cut off is ended by the next look, of this daemon or another.
"""

import logging
import os
import time
from functools import partial
from pathlib import Path

from anyio import to_thread

from forkjoin.git.refs import find_tips
from forkjoin.git.worktrees import worktree
from forkjoin.git.worktrees.scratch_worktree import find_scratch
from forkjoin.git.worktrees.worktree_folder import is_folder
from forkjoin.merge_queue.scratch import PREFIX, end, list_runs, scratch_path, workplace
from forkjoin.services import Services
from forkjoin.store.scratch_worktrees import ScratchWorktree
from forkjoin.workspace.shell_command import handles

log = logging.getLogger(__name__)

_DAY_S = 24 * 3600.0


async def remove_unused_scratches(services: Services) -> None:
    """Take away the scratch worktrees that are due, and what is left of those that are recorded no more."""
    found = await to_thread.run_sync(_folders, services.home.worktrees)
    gone = [
        one.number
        for one in await services.store.scratch_worktrees.all()
        if not one.retired and await _is_homeless(services, one)
    ]
    await services.store.scratch_worktrees.retire_unused(gone, time.time() - _DAY_S)
    known = (
        await services.store.scratch_worktrees.all()
    )  # read after the folders were: what is made now is recorded by then
    due = {scratch_path(services.home, one.number): partial(_retire, services, one) for one in known if one.retired}
    left = found - {scratch_path(services.home, one.number) for one in known}
    for path, act in {**due, **{path: partial(_sweep, services, path) for path in left}}.items():
        try:
            await act()
        except Exception:  # a boundary: one that stays is no reason for another to
            log.exception("%s stays", path)


def _folders(worktrees: Path) -> set[Path]:
    return {path for path in worktrees.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()}


async def _is_homeless(services: Services, scratch: ScratchWorktree) -> bool:
    """Whether its repository says that it has no such target any more."""
    common_dir = (await services.store.projects.get(scratch.project)).common_dir
    try:
        return scratch.target not in await find_tips(common_dir, [scratch.target])
    except Exception as error:  # a boundary: of a repository that is not there, or broken, nobody can tell
        log.info("nobody can tell whether scratch worktree %d is due: %s", scratch.number, error)
        return False


async def _retire(services: Services, scratch: ScratchWorktree) -> None:
    common_dir = (await services.store.projects.get(scratch.project)).common_dir
    teardown = handles(f"t{scratch.number}", "teardown")
    await end(services, set(await list_runs(services, scratch.number)).difference(teardown))
    if await _tear_down(services, scratch, common_dir):
        await worktree.remove(common_dir, scratch_path(services.home, scratch.number))
        await end(services, teardown)
        await services.store.scratch_worktrees.delete(scratch.number)


async def _tear_down(services: Services, scratch: ScratchWorktree, common_dir: str) -> bool:
    """Run its teardown, if it has one; false while nobody is there in whose environment it could run."""
    number, path = scratch.number, scratch_path(services.home, scratch.number)
    if scratch.recipe.teardown is None or not await to_thread.run_sync(is_folder, path):
        return True
    environment = services.environments.find_in_project(scratch.project)
    if environment is None and await to_thread.run_sync(os.path.exists, common_dir):
        log.info("scratch worktree %d stays: nobody is there in whose environment its teardown could run", number)
        return False
    if why := await workplace(services, scratch, f"t{number}", common_dir, environment, {}).tear_down():
        log.warning("scratch worktree %d: its teardown failed: %s", number, why)
    return True


async def _sweep(services: Services, path: Path) -> None:
    """Take away the scratch worktree at `path`, which is recorded no more; nothing else."""
    if common_dir := await to_thread.run_sync(find_scratch, path):
        await end(services, await list_runs(services, int(path.name.removeprefix(PREFIX))))
        await worktree.remove(common_dir, path)
    else:
        log.warning("%s stays: it is no scratch worktree", path)
