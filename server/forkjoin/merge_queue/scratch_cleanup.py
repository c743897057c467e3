"""Removal of scratch worktrees whose target no longer exists, that were replaced, or that were unused for a day.

Such a worktree is retired: no merge job uses it any more, so its removal delays no merge. Its teardown command runs
before the removal. A removal that is interrupted is finished by the next cleanup, of this daemon or the next one.
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
from forkjoin.merge_queue.scratch import PREFIX, end_runs, list_runs, scratch_path, scratch_workspace
from forkjoin.services import Services
from forkjoin.store.scratch_worktrees import ScratchWorktree
from forkjoin.workspace.shell_command import run_handles

log = logging.getLogger(__name__)

_DAY_S = 24 * 3600.0


async def remove_unused_scratches(services: Services) -> None:
    """Remove the scratch worktrees that are unused, or whose target is deleted.

    They are retired first. Retired worktrees of earlier passes are removed too. Remove also scratch worktrees without a
    record. A removal that fails is logged, and tried again by the next call.
    """
    folders = await to_thread.run_sync(_find_folders, services.home.worktrees)
    orphans = [
        scratch.number
        for scratch in await services.store.scratch_worktrees.all()
        if not scratch.retired and await _is_target_gone(services, scratch)
    ]
    await services.store.scratch_worktrees.retire_unused(orphans, time.time() - _DAY_S)
    # The records are read after the folders were listed: a worktree is recorded before its folder is made, so no merge
    # job uses a listed folder without a record.
    known = await services.store.scratch_worktrees.all()
    retired = {
        scratch_path(services.home, scratch.number): partial(_remove_retired, services, scratch)
        for scratch in known
        if scratch.retired
    }
    unrecorded = folders - {scratch_path(services.home, scratch.number) for scratch in known}
    for path, remove in {
        **retired,
        **{path: partial(_remove_unrecorded, services, path) for path in unrecorded},
    }.items():
        try:
            await remove()
        except Exception:  # a boundary: a worktree that can't be removed must not prevent other removals
            log.exception("the scratch worktree %s could not be removed", path)


def _find_folders(worktrees: Path) -> set[Path]:
    return {path for path in worktrees.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()}


async def _is_target_gone(services: Services, scratch: ScratchWorktree) -> bool:
    """Return whether the worktree's target no longer exists.

    Return False if the repository can't be read.
    """
    common_dir = (await services.store.projects.get(scratch.project)).common_dir
    try:
        return scratch.target not in await find_tips(common_dir, [scratch.target])
    except Exception as error:  # a boundary: the repository may be missing or broken in any way
        log.info("the target of scratch worktree %d can't be checked: %s", scratch.number, error)
        return False


async def _remove_retired(services: Services, scratch: ScratchWorktree) -> None:
    """Tear down and remove a retired scratch worktree, then delete its record."""
    common_dir = (await services.store.projects.get(scratch.project)).common_dir
    teardown = run_handles(f"t{scratch.number}", "teardown")
    await end_runs(services, set(await list_runs(services, scratch.number)).difference(teardown))
    if await _tear_down(services, scratch, common_dir):
        await worktree.remove(common_dir, scratch_path(services.home, scratch.number))
        await end_runs(services, teardown)
        await services.store.scratch_worktrees.delete(scratch.number)


async def _tear_down(services: Services, scratch: ScratchWorktree, common_dir: str) -> bool:
    """Run the teardown command for the worktree, if there is one.

    Return whether the worktree may be removed now. Return False if no session of the project can lend its environment
    to the command. A teardown command that fails is logged, and the worktree may be removed.
    """
    number, path = scratch.number, scratch_path(services.home, scratch.number)
    if scratch.recipe.teardown is None or not await to_thread.run_sync(is_folder, path):
        return True
    environment = services.environments.find_in_project(scratch.project)
    if environment is None and await to_thread.run_sync(os.path.exists, common_dir):
        log.info("scratch worktree %d waits for a session in whose environment its teardown command can run", number)
        return False
    workspace = scratch_workspace(services, scratch, f"t{number}", common_dir, environment, {})
    if why := await workspace.tear_down():
        log.warning("the teardown command of scratch worktree %d failed: %s", number, why)
    return True


async def _remove_unrecorded(services: Services, path: Path) -> None:
    """Remove a scratch worktree that has no record.

    If `path` is no scratch worktree, it stays and a warning is logged.
    """
    if common_dir := await to_thread.run_sync(find_scratch, path):
        await end_runs(services, await list_runs(services, int(path.name.removeprefix(PREFIX))))
        await worktree.remove(common_dir, path)
    else:
        log.warning("%s is no scratch worktree, so it is not removed", path)
