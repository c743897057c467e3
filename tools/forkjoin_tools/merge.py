"""Joining: check_conflicts, merge_worktree and undo_merge."""

from collections.abc import Sequence
from functools import partial

from forkjoin.core.agent_spec import Command
from forkjoin.core.error import CallerError
from forkjoin.core.model import FINAL, Agent, MergeJob, OnConflict, Strategy
from forkjoin.core.settings import Recipe
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
from forkjoin.workspace.agent_work import take_over
from forkjoin.workspace.repository_config import find_recipe
from pydantic import BaseModel, Field

from forkjoin_tools.reply_size import REPLY_BYTES, fit, json_size
from forkjoin_tools.tool_call import Ids, ToolCall, find_config_warnings
from forkjoin_tools.tool_definition import Arguments, tool

# -- check_conflicts

#: Bytes of the pairs that are told.
_PAIRS_BYTES = 20_000


class CheckConflicts(Arguments):
    ids: Ids | None = Field(None, description="Default: all with unmerged work.")
    into: str | None = Field(None, description="Default: the branch in your checkout.")


class Conflict(BaseModel):
    between: tuple[str, str]  #: two agents, or an agent and the branch
    files: list[str]


class Conflicts(BaseModel):
    conflicts: list[Conflict]
    target: str
    more: int | None = None  #: pairs that there was no room for


@tool(reads_only=True)
async def check_conflicts(call: ToolCall, arguments: CheckConflicts) -> Conflicts:
    """Report which agents' work conflicts, by file: with each other, and with a branch. Includes running agents and
    their uncommitted changes. Use it before you merge, or to redirect agents."""
    if arguments.ids is not None:
        agents = await call.find_each(arguments.ids)
    else:
        agents = await call.store.agents.unmerged(call.project, MOST_COMPARED + 1, call.visible_below)
    target = await find_target(await read_checkout(call.caller.session.folder), arguments.into)
    clashes = await call.reconciler.foresight.look(call.project, agents, target)
    told = [Conflict(between=(one.one, one.other), files=list(limit_names(one.files))) for one in clashes]
    fitting = fit(told, _PAIRS_BYTES)
    return Conflicts(conflicts=fitting, target=short_name(target), more=len(told) - len(fitting) or None)


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
    """Merge the branches of agents that succeeded into one branch, in the order given; blocks until done. A branch
    that conflicts or breaks verify is left out and reported; the others are merged. The target changes completely or
    not at all; your uncommitted changes, the worktrees and left-out branches stay. Next: remove_worktrees, or
    undo_merge."""
    agents = await call.resolve_agents(partial(_find_reviewed, call, arguments.ids))
    into, recipe, note = await _find_terms(call, arguments)
    wish = MergeOptions(
        agents=agents,
        verify=recipe.verify if arguments.verify is None else arguments.verify or None,
        recipe=recipe,
        strategy=arguments.strategy,
        include_failed=arguments.include_failed,
        dry_run=arguments.dry_run,
        on_conflict=arguments.on_conflict,
    )
    landing = await enqueue(call.services, call.caller, into, wish, confirmed=arguments.confirm)
    with call.without_slot(agents):
        landed = await _landed(call, agents, landing)
    if await call.store.projects.recipe(landing) != Recipe():  # one was used, whatever the file says by now
        note = None
    unverified = "No verify was run." if landed.merged and not (landing.verify or landing.dry_run) else None
    notes = landed.note, unverified, note, *await find_config_warnings(call.caller.project.common_dir)
    for files, words in ((30, 2_000), (5, 300), (1, 60)):
        answer = _answer(landed, files, words, " ".join(filter(None, notes)) or None)
        if json_size(answer) <= REPLY_BYTES:
            break
    return answer


async def _find_reviewed(call: ToolCall, ids: Sequence[str]) -> list[Agent]:
    """The agents that these mean. One that is named with a commit, a1@1234567, is taken as its branch is there."""
    if await call.store.calls.answer_to(call.caller.call) is not None:
        return await call.find_each([one.partition("@")[0] for one in ids])
    found = [await call.find_at(one) for one in ids]
    for agent, commit in found:
        if commit and agent.state in FINAL:
            why = f"Its branch was moved since its end, and was named as it was at {commit[:12]}."
            await take_over(call.store, call.caller.project.common_dir, agent, commit, why)
    return await call.find_each([agent.id for agent, _ in found])


async def _landed(call: ToolCall, agents: Sequence[Agent], landing: MergeJob) -> MergeReport:
    """What came of it, once it is done."""
    landed = await call.reply_wait.wait(
        agents, partial(wait_for_report, call.store, landing), lambda: _how_far(call, landing)
    )
    assert landed
    return landed


async def _find_terms(call: ToolCall, arguments: MergeWorktree) -> tuple[str | None, Recipe, str | None]:
    """Into what a merge is, what its worktree needs, and why that is not used, if it is not."""
    if parent := call.caller.session.agent:
        return _check_own(parent, arguments), await call.store.projects.recipe(parent), None
    if arguments.dry_run:
        return arguments.into, Recipe(), None
    try:
        checkout, names_verify = await read_checkout(call.caller.session.folder), arguments.verify is not None
        return arguments.into, *await find_recipe(call.services.home, checkout, names_verify=names_verify)
    except CallerError:  # one that was made before is not refused for what the file says by now
        if await call.store.calls.answer_to(call.caller.call) is None:
            raise
        return arguments.into, Recipe(), None


def _check_own(parent: Agent, arguments: MergeWorktree) -> str:
    """The branch that an agent merges into: its own alone."""
    if arguments.into not in (None, parent.worktree.branch):
        raise CallerError(f"You merge into your own branch alone, {parent.worktree.branch}; leave `into` out.")
    if arguments.on_conflict == "agent":
        raise CallerError(
            "Nobody is spawned for your conflicts: resolve them yourself, with git merge in your worktree."
        )
    return parent.worktree.branch


async def _how_far(call: ToolCall, landing: MergeJob) -> str:
    """What a landing waits for, or that it is carried out."""
    if await lacks_environment(call.services, landing):
        return "waits for its lead's environment, which a restart has lost"
    before = [
        one.number
        for one in await call.store.merges.open()
        if (one.project, one.target) == (landing.project, landing.target) and one.number < landing.number
    ]
    key, into = f"landing on {landing.target} in {landing.project}", short_name(landing.target)
    waits = f"waits for {len(before)} merge(s) into {into} before it"
    return call.reconciler.trouble.get(key) or (waits if before else f"merging {len(landing.agents)} into {into}")


def _answer(landed: MergeReport, files: int, words: int, note: str | None) -> MergeAnswer:
    """What became of a landing, with so many files named of each conflict and so much of each reason."""
    return MergeAnswer(
        merged=[MergedBranch(one.id, one.commit) for one in landed.merged],
        conflicted=[
            ConflictedBranch(
                one.id, tuple(name[:words] for name in one.files[:files]), one.hunks[: files // 5], one.resolving
            )
            for one in landed.conflicted
        ],
        rejected=[RejectedBranch(one.id, one.why[:words]) for one in landed.rejected],
        skipped=[SkippedBranch(one.id, one.why[:words]) for one in landed.skipped],
        target=landed.target,
        commit=landed.commit,
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
    """Undo the last merge_worktree into a branch: reset the branch, or revert the merge if there are later commits.
    Call it again for the merge before. No agent's work is lost."""
    landing = await enqueue_undo(call.services, call.caller, arguments.into, confirmed=arguments.confirm)
    landed = await _landed(call, (), landing)
    assert landed.commit is not None
    note = None
    if landed.reverted:
        again = f"to have it again, git revert {landed.commit[:10]}"
        note = f"reverted by a commit, since there are later ones, and no verify was run; {again}"
    return UndoAnswer(undone=list(landed.undone), target=landed.target, commit=landed.commit, note=note)
