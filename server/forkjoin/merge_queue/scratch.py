"""Running verify in a target's scratch worktree, which is made ready like an agent's worktree.

The scratch worktree stays between merge jobs, with the ignored files in it, such as caches. Each run of verify has its
own handle, made of the numbers of the worktree and the job, and the commit. The result is recorded before anything of
the run is removed. A daemon that takes over therefore continues a run that is under way, and never repeats a run that
has ended.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import CallerError, GitError, is_transient
from forkjoin.core.model import Agent
from forkjoin.core.paths import Home
from forkjoin.git.refs import short_name
from forkjoin.git.worktrees.files_shared_from_checkout import delete_changed_copies
from forkjoin.git.worktrees.included_files import update_ignored_copies
from forkjoin.git.worktrees.scratch_worktree import UnfitCommitError, detach_scratch, make_scratch
from forkjoin.git.worktrees.worktree_folder import find_registered_worktree
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.services import Services
from forkjoin.store.scratch_worktrees import ScratchWorktree
from forkjoin.workspace.workspace import Workspace, command_handles

log = logging.getLogger(__name__)

#: The prefix of the folder name of each scratch worktree; its number follows.
PREFIX = "target-"
#: How many characters of verify's output a report quotes.
_OUTPUT_CHARS = 2_000


class ScratchVerifier:
    """Runs verify for one merge job, in the scratch worktree of the job's target."""

    def __init__(self, context: MergeContext) -> None:
        self._context = context
        self._store = context.services.store
        self._was_replaced = False

    async def verify(self, agents: Sequence[Agent], commit: str, command: str) -> str:
        """Run verify on a commit, unless its result is recorded.

        Return why verify fails, or an empty string if it passes.

        Args:
            agents: The agents whose branches the commit contains. verify gets their ids in FORKJOIN_AGENTS.
        """
        number = self._context.job.number
        why = await self._store.merges.verify_failure(number, commit)
        if why is None:
            try:
                scratch = await self._prepare(commit)
            except UnfitCommitError as error:
                why = str(error)[-_OUTPUT_CHARS:]
                await self._store.merges.set_verify_failure(number, commit, why)
            else:
                why = await self._verify(self._workspace_of(scratch, commit, agents), commit, command)
        return why

    async def _prepare(self, commit: str) -> ScratchWorktree:
        """Return the target's scratch worktree with the commit's files.

        A worktree in which the commit can't be checked out is replaced, but only once for a job.

        Raises:
            CallerError: The replacement could not be used either, so verify seems to leave files that can't be deleted.
            UnfitCommitError: The commit can't be checked out.
        """
        scratch = await self._take()
        try:
            await self._check_out(scratch, commit)
        except (GitError, OSError) as error:
            if is_transient(error):
                raise
            if self._was_replaced:
                path = scratch_path(self._context.services.home, scratch.number)
                raise CallerError(_describe_undeletable_files(path, error)) from error
            self._was_replaced = True
            log.warning("scratch worktree %d is damaged and is replaced: %s", scratch.number, error)
            await self._store.scratch_worktrees.retire(scratch.number)
            scratch = await self._take()
            await self._check_out(scratch, commit)
        return scratch

    async def _take(self) -> ScratchWorktree:
        return await self._store.scratch_worktrees.take(self._context.job, self._context.recipe)

    async def _check_out(self, scratch: ScratchWorktree, commit: str) -> None:
        """Check out a commit, and update the files copied from the user's checkout.

        Ignored files of an earlier run stay only if the target contains the commit of that run. Otherwise the code of
        an agent that was not merged may have written them.

        Raises:
            OSError: Processes of an earlier run can't be ended.
        """
        context, run = self._context, self._run_prefix(scratch, commit)
        runs = await list_runs(context.services, scratch.number)
        current = [handle for handle in runs if handle.startswith(f"{run}-")]
        if left := await end_runs(context.services, set(runs).difference(current)):
            raise OSError(f"processes of an earlier verify run can't be ended: {', '.join(left)}")
        path, checkout = scratch_path(context.services.home, scratch.number), Path(scratch.checkout)
        if scratch.ready != run or await find_registered_worktree(context.common_dir, path) is None:
            keep = bool(scratch.tip) and await context.is_ancestor(scratch.tip, context.job.target)
            await self._store.scratch_worktrees.set_ready(scratch.number, "", scratch.tip if keep else "")
            await make_scratch(context.common_dir, path, commit, keep=keep)
            await self._store.scratch_worktrees.set_ready(scratch.number, run, commit)
        place = await find_registered_worktree(context.common_dir, path)
        if place and scratch.checkout and not current:
            await update_ignored_copies(checkout, place)
            if scratch.recipe.share:
                await to_thread.run_sync(delete_changed_copies, checkout, place, scratch.recipe.share)

    def _run_prefix(self, scratch: ScratchWorktree, commit: str) -> str:
        return f"t{scratch.number}-{self._context.job.number}-{commit[:16]}"

    def _workspace_of(self, scratch: ScratchWorktree, commit: str, agents: Sequence[Agent]) -> Workspace:
        context = self._context
        variables = {
            "FORKJOIN_LANDING": str(context.job.number),
            "FORKJOIN_AGENTS": " ".join(agent.id for agent in agents),
        }
        return scratch_workspace(
            context.services,
            scratch,
            self._run_prefix(scratch, commit),
            context.common_dir,
            context.environment,
            variables,
        )

    async def _verify(self, workspace: Workspace, commit: str, command: str) -> str:
        """Run verify, and record the result. Return why it fails, or "" if it passes.

        Then remove the files of the run.
        """
        why = await self._run_verify(workspace, command)
        await detach_scratch(workspace.common_dir, workspace.path, commit)
        await self._store.merges.set_verify_failure(self._context.job.number, commit, why)
        await end_runs(self._context.services, command_handles(workspace.handle, workspace.repository_settings))
        return why

    async def _run_verify(self, workspace: Workspace, command: str) -> str:
        """Run the setup command, if there is one, and verify.

        Return why one of them fails, or an empty string if both pass.
        """
        ready = await workspace.make_ready()
        if ready.failed:
            return ready.failed[-_OUTPUT_CHARS:]
        minutes = self._context.services.settings.limits.verify_minutes
        outcome, printed = await workspace.run("verify", command, minutes)
        return "" if outcome.ok else f"verify: {outcome}\n{printed[-_OUTPUT_CHARS:]}".strip()


async def forget_runs(context: MergeContext) -> None:
    """End the runs of a merge job in scratch worktrees, and delete their files.

    An error is only logged. The scratch worktrees stay for the next job.
    """
    handles = re.compile(rf"t\d+-{context.job.number}-")
    try:
        await end_runs(context.services, filter(handles.match, await context.services.executor.list_handles()))
    except OSError:  # the lead gets the report without this; the next job in the worktree ends the runs
        log.exception("merge job %d: some of its runs could not be removed", context.job.number)


def _describe_undeletable_files(path: Path, error: Exception) -> str:
    return (
        f"verify ran in {path}, and files that it left there can't be deleted: {error}. Nothing was merged. Let verify "
        "leave no files that you may not delete, such as files of a container's root, then merge again."
    )


def scratch_path(home: Home, number: int) -> Path:
    return home.worktrees / f"{PREFIX}{number}"


def scratch_workspace(
    services: Services,
    scratch: ScratchWorktree,
    handle: str,
    common_dir: str,
    environment: Mapping[str, str] | None,
    variables: Mapping[str, str],
) -> Workspace:
    """Return the workspace in which commands run in a scratch worktree.

    Args:
        handle: The prefix of the handles of the commands.
        environment: The environment for the commands; `None` for an empty one.
        variables: FORKJOIN_* variables for the commands, in addition to FORKJOIN_TARGET.
    """
    return Workspace(
        services=services,
        handle=handle,
        common_dir=common_dir,
        path=scratch_path(services.home, scratch.number),
        checkout=scratch.checkout,
        repository_settings=scratch.recipe,
        port_base=scratch.port_base,
        environment=environment or {},
        variables={"FORKJOIN_TARGET": short_name(scratch.target), **variables},
    )


async def list_runs(services: Services, number: int) -> list[str]:
    """Return the handles of all runs in a scratch worktree.

    Only runs whose files still exist are found.
    """
    return [handle for handle in await services.executor.list_handles() if handle.startswith(f"t{number}-")]


async def end_runs(services: Services, handles: Iterable[str]) -> list[str]:
    """End the processes of these runs, and delete the files of ended runs.

    Return descriptions of the processes that could not be ended.
    """
    all_left: list[str] = []
    for handle in handles:
        if left := await services.executor.cancel(handle, services.settings.limits.stop_grace_s):
            log.warning("%s can't be ended: %s", handle, ", ".join(left))
            all_left += left
        else:
            await services.executor.forget(handle)
    return all_left
