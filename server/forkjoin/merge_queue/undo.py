"""Undoing a merge job: the target moves back to the commit before it, or gets a commit that reverts the merge."""

from forkjoin.core.error import CallerError
from forkjoin.core.merge_job import MergeJob
from forkjoin.git import kept_refs
from forkjoin.git.fast_import import make_commit
from forkjoin.git.merge_tree import try_merge
from forkjoin.git.merging import move_target
from forkjoin.git.refs import find_tip, is_ancestor, short_name
from forkjoin.git.worktrees.checkout import check_free
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.report import MERGE_REPORT, PLANNED_MOVE, MergeReport, PlannedMove, limit_names


async def undo(context: MergeContext, undone: MergeJob) -> PlannedMove:
    """Make the commits that undo a merge job. Return the move of the target.

    If the target is still at the merge, it moves back. Otherwise it moves on to a new commit that reverts the merge.
    A merge commit that the target leaves is kept under `refs/forkjoin/kept/`.

    Raises:
        CallerError: The target no longer contains the merge, or later commits changed the same lines.
    """
    assert undone.move is not None
    assert undone.answer is not None
    common_dir, target = context.common_dir, context.job.target
    move = PLANNED_MOVE.validate_json(undone.move).move
    ids = tuple(one.id for one in MERGE_REPORT.validate_json(undone.answer).merged)
    await check_free(common_dir, target)
    now = await find_tip(common_dir, target)
    if now is None or not await is_ancestor(common_dir, move.new, now):
        raise CallerError(
            f"{short_name(target)} no longer contains the merge of {', '.join(ids)}; nothing was changed."
        )
    why = f"forkjoin: undo the merge of {', '.join(ids)}"
    if now == move.new:
        await kept_refs.keep_commit(common_dir, move.new, f"undone-{undone.number}")
        back = move_target.TargetMove(target, move.new, move.old, None, why)
        return PlannedMove(back, MergeReport(short_name(target), move.old, undone=ids))
    commit = await _revert(context, move, now, ids)
    forward = move_target.TargetMove(target, now, commit, None, why)
    return PlannedMove(forward, MergeReport(short_name(target), commit, undone=ids, reverted=True))


async def _revert(context: MergeContext, move: move_target.TargetMove, now: str, ids: tuple[str, ...]) -> str:
    """Commit a revert of the move's changes on top of the commit `now`.

    Return the new commit.
    """
    merged = await try_merge(context.common_dir, now, move.old, move.new)
    if merged.conflicts:
        raise CallerError(
            f"Commits after the merge of {', '.join(ids)} changed the same lines, in "
            f"{', '.join(limit_names(merged.conflicts))}, so the merge can't be reverted automatically. Nothing was "
            "changed; spawn an agent that reverts it by hand."
        )
    message = f"Revert the merge of {', '.join(ids)}\n\nThis takes back {move.old}..{move.new}.\n"
    return await make_commit(context.common_dir, now, merged.tree, None, message, context.job.created)
