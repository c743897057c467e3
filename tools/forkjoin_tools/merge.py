"""check_conflicts, merge_worktree and undo_merge."""

from collections.abc import Sequence
from functools import partial

from forkjoin.core.agent_spec import Command
from forkjoin.core.error import CallerError
from forkjoin.core.merge_job import MergeJob, OnConflict, Strategy
from forkjoin.core.model import FINAL, Agent
from forkjoin.core.settings import RepositorySettings
from forkjoin.git.refs import short_name
from forkjoin.git.repository import read_checkout
from forkjoin.merge_queue.conflict_preview import MOST_COMPARED
from forkjoin.merge_queue.queue import MergeOptions, enqueue, enqueue_undo, find_target, wait_for_report
from forkjoin.merge_queue.report import (
    ConflictedBranch,
    MergedBranch,
    MergeReport,
    RejectedBranch,
    SkippedBranch,
    limit_names,
)
from forkjoin.merge_queue.requester import lacks_environment
from forkjoin.workspace.agent_work import accept_commit
from forkjoin.workspace.repository_config import find_trusted_settings
from pydantic import BaseModel, Field

from forkjoin_tools.reply_size import REPLY_BYTES, fit_rows, json_size
from forkjoin_tools.tool_call import Ids, ToolCall, find_config_warnings
from forkjoin_tools.tool_definition import Arguments, tool

# -- check_conflicts

#: Bytes of the conflicts in one result.
_CONFLICTS_BYTES = 20_000


class CheckConflicts(Arguments):
    ids: Ids | None = Field(None, description="Default: all with unmerged work.")
    into: str | None = Field(None, description="Default: the branch in your checkout.")


class Conflict(BaseModel):
    between: tuple[str, str]  #: two agents, or an agent and the branch
    files: list[str]


class Conflicts(BaseModel):
    conflicts: list[Conflict]
    target: str
    more: int | None = None  #: how many conflicts did not fit


@tool(reads_only=True)
async def check_conflicts(call: ToolCall, arguments: CheckConflicts) -> Conflicts:
    """Report which agents' work conflicts with each other's and with a branch.

    Names the files. Includes running agents and uncommitted changes. Use it before you merge, or to redirect agents.
    """
    if arguments.ids is not None:
        agents = await call.find_each(arguments.ids)
    else:
        agents = await call.store.agents.unmerged(call.project, MOST_COMPARED + 1, call.visible_below)
    target = await find_target(await read_checkout(call.caller.session.folder), arguments.into)
    found = await call.reconciler.conflict_preview.compare(call.project, agents, target)
    rows = [Conflict(between=(pair.first, pair.second), files=list(limit_names(pair.files))) for pair in found]
    fitting = fit_rows(rows, _CONFLICTS_BYTES)
    return Conflicts(conflicts=fitting, target=short_name(target), more=len(rows) - len(fitting) or None)


# -- merge_worktree


class MergeWorktree(Arguments):
    ids: Ids
    into: str | None = Field(None, description="Default: the branch in your checkout.")
    verify: Command | None = Field(None, description='Shell command the merged result must pass. "": none.')
    strategy: Strategy | None = Field(None, description="squash: one commit per agent.")
    on_conflict: OnConflict = Field("report", description="agent: spawn an agent per conflict to resolve it.")
    include_failed: bool = Field(False, description="Also unsuccessful agents.")
    confirm: bool = Field(False, description="The user agreed to change a protected branch.")
    dry_run: bool = Field(False, description="Only report what would merge; skips verify.")


class MergeAnswer(BaseModel):
    merged: list[MergedBranch]
    conflicted: list[ConflictedBranch]
    rejected: list[RejectedBranch]
    skipped: list[SkippedBranch]
    target: str
    commit: str | None = None
    note: str | None = None


@tool(always_loaded=True)
async def merge_worktree(call: ToolCall, arguments: MergeWorktree) -> MergeAnswer:
    """Merge branches of agents that succeeded into one branch, in the order given.

    Blocks until done. A branch that conflicts or breaks verify is left out and reported; the others are merged. The
    target changes completely or not at all; your uncommitted changes, the worktrees and left-out branches stay. Next:
    remove_worktrees, or undo_merge.
    """
    agents = await call.resolve_agents(partial(_find_reviewed, call, arguments.ids))
    into, recipe, note = await _find_terms(call, arguments)
    options = MergeOptions(
        agents=agents,
        verify=recipe.verify if arguments.verify is None else arguments.verify or None,
        recipe=recipe,
        strategy=arguments.strategy,
        include_failed=arguments.include_failed,
        dry_run=arguments.dry_run,
        on_conflict=arguments.on_conflict,
    )
    job = await enqueue(call.services, call.caller, into, options, confirmed=arguments.confirm)
    with call.without_slot(agents):
        report = await _wait_for_report(call, agents, job)
    if (
        await call.store.projects.recipe(job) != RepositorySettings()
    ):  # a repeated call: the configuration was used after all
        note = None
    unverified = "No verify was run." if report.merged and not (job.verify or job.dry_run) else None
    notes = report.note, unverified, note, *await find_config_warnings(call.caller.project.common_dir)
    for files, characters in ((30, 2_000), (5, 300), (1, 60)):
        answer = _to_merge_answer(report, files, characters, " ".join(filter(None, notes)) or None)
        if json_size(answer) <= REPLY_BYTES:
            break
    return answer


async def _find_reviewed(call: ToolCall, ids: Sequence[str]) -> list[Agent]:
    """Return the agents with these ids or names.

    Of an agent named with a commit, as in a1@1234567, that commit is recorded as reviewed work.
    """
    if await call.store.calls.answer_to(call.caller.call) is not None:
        return await call.find_each([id_.partition("@")[0] for id_ in ids])
    found = [await call.find_at(id_) for id_ in ids]
    for agent, commit in found:
        if commit and agent.state in FINAL:
            why = (
                f"Its branch moved after its end. A merge accepted its commit {commit[:12]}, which verify has not seen."
            )
            await accept_commit(call.store, call.caller.project.common_dir, agent, commit, why)
    return await call.find_each([agent.id for agent, _ in found])


async def _wait_for_report(call: ToolCall, agents: Sequence[Agent], job: MergeJob) -> MergeReport:
    """Return the report of a merge or undo once it is done."""
    report = await call.reply_wait.wait(
        agents, partial(wait_for_report, call.store, job), lambda: _describe_merge_progress(call, job)
    )
    assert report
    return report


async def _find_terms(call: ToolCall, arguments: MergeWorktree) -> tuple[str | None, RepositorySettings, str | None]:
    """Return the target branch, the repository configuration, and a note.

    The note says why forkjoin.toml is not used, if so.
    """
    if parent := call.caller.session.agent:
        return _find_own_target(parent, arguments), await call.store.projects.recipe(parent), None
    if arguments.dry_run:
        return arguments.into, RepositorySettings(), None
    try:
        checkout = await read_checkout(call.caller.session.folder)
        names_verify = arguments.verify is not None
        return arguments.into, *await find_trusted_settings(call.services.home, checkout, names_verify=names_verify)
    except CallerError:  # a repeated call gets its first answer, even if the file has changed
        if await call.store.calls.answer_to(call.caller.call) is None:
            raise
        return arguments.into, RepositorySettings(), None


def _find_own_target(parent: Agent, arguments: MergeWorktree) -> str:
    """Return the branch of the calling agent.

    An agent may merge into no other branch.

    Raises:
        CallerError: The agent names another branch, or wants conflicts resolved by an agent.
    """
    if arguments.into not in (None, parent.worktree.branch):
        raise CallerError(f"You can merge only into your own branch, {parent.worktree.branch}: leave `into` out.")
    if arguments.on_conflict == "agent":
        raise CallerError(
            "No agent can be spawned for your conflicts. Call again without on_conflict, and resolve conflicts with "
            "git merge in your worktree."
        )
    return parent.worktree.branch


async def _describe_merge_progress(call: ToolCall, job: MergeJob) -> str:
    """Say what a merge waits for, or that it is under way."""
    if await lacks_environment(call.services, job):
        return "waits for its lead's environment, which was lost when the machine or daemon restarted"
    before = [
        merge.number
        for merge in await call.store.merges.open()
        if (merge.project, merge.target) == (job.project, job.target) and merge.number < job.number
    ]
    into = short_name(job.target)
    waits = f"waits for {len(before)} earlier merge(s) into {into}"
    return call.reconciler.trouble.get(job.trouble_key) or (
        waits if before else f"merging {len(job.agents)} agent(s) into {into}"
    )


def _to_merge_answer(report: MergeReport, files: int, characters: int, note: str | None) -> MergeAnswer:
    """Return the result of a merge, shortened.

    Args:
        files: Maximal files named for each conflict.
        characters: Maximal characters of each file name and each reason.
    """
    return MergeAnswer(
        merged=[MergedBranch(branch.id, branch.commit) for branch in report.merged],
        conflicted=[
            ConflictedBranch(
                branch.id,
                tuple(name[:characters] for name in branch.files[:files]),
                branch.hunks[: files // 5],
                branch.resolving,
            )
            for branch in report.conflicted
        ],
        rejected=[RejectedBranch(branch.id, branch.why[:characters]) for branch in report.rejected],
        skipped=[SkippedBranch(branch.id, branch.why[:characters]) for branch in report.skipped],
        target=report.target,
        commit=report.commit,
        note=note,
    )


# -- undo_merge


class UndoMerge(Arguments):
    into: str | None = Field(None, description="Default: the branch in your checkout.")
    confirm: bool = False


class UndoAnswer(BaseModel):
    undone: list[str]
    target: str
    commit: str
    note: str | None = None


@tool()
async def undo_merge(call: ToolCall, arguments: UndoMerge) -> UndoAnswer:
    """Undo the last merge_worktree into a branch.

    Resets the branch, or reverts the merge if there are later commits. Call it again for the merge before. No agent's
    work is lost.
    """
    job = await enqueue_undo(call.services, call.caller, arguments.into, confirmed=arguments.confirm)
    report = await _wait_for_report(call, (), job)
    assert report.commit is not None
    note = None
    if report.reverted:
        note = (
            "The branch has later commits, so the merge was reverted by a commit. No verify was run. To have the work "
            f"again: git revert {report.commit[:10]}"
        )
    return UndoAnswer(undone=list(report.undone), target=report.target, commit=report.commit, note=note)
