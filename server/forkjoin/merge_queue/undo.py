"""Taking back what a landing has merged: its target goes back to where it was, or gets a revert of all of it."""

from forkjoin.core.error import CallerError
from forkjoin.core.model import MergeJob
from forkjoin.git import kept_refs
from forkjoin.git.fast_import import make_commit
from forkjoin.git.merge_tree import try_merge
from forkjoin.git.merging import move_target
from forkjoin.git.refs import find_tip, is_ancestor, short_name
from forkjoin.git.worktrees.checkout import check_free
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.report import MERGE_REPORT, PLANNED_MOVE, MergeReport, PlannedMove, limit_names


async def undo(order: MergeContext, undone: MergeJob) -> PlannedMove:
    """What takes back this landing, by where its target is now."""
    assert undone.move is not None
    assert undone.answer is not None
    common_dir, target = order.common_dir, order.landing.target
    move = PLANNED_MOVE.validate_json(undone.move).move
    ids = tuple(one.id for one in MERGE_REPORT.validate_json(undone.answer).merged)
    await check_free(common_dir, target)
    now = await find_tip(common_dir, target)
    if now is None or not await is_ancestor(common_dir, move.new, now):
        raise CallerError(f"{short_name(target)} has the merge of {', '.join(ids)} no more; nothing was changed.")
    why = f"forkjoin: undo the merge of {', '.join(ids)}"
    if now == move.new:
        await kept_refs.keep_commit(common_dir, move.new, f"undone-{undone.number}")
        back = move_target.Move(target, move.new, move.old, None, why)
        return PlannedMove(back, MergeReport(short_name(target), move.old, undone=ids))
    commit = await _revert(order, move, now, ids)
    forward = move_target.Move(target, now, commit, None, why)
    return PlannedMove(forward, MergeReport(short_name(target), commit, undone=ids, reverted=True))


async def _revert(order: MergeContext, move: move_target.Move, now: str, ids: tuple[str, ...]) -> str:
    """A commit on the target, as it is now, without what the move has brought."""
    merged = await try_merge(order.common_dir, now, move.old, move.new)
    if merged.conflicts:
        raise CallerError(
            f"What came after the merge of {', '.join(ids)} has changed the same lines, in "
            f"{', '.join(limit_names(merged.conflicts))}: it can't be taken back by itself. Nothing was changed; spawn "
            "an agent to take it out."
        )
    message = f"Revert the merge of {', '.join(ids)}\n\nThis takes back {move.old}..{move.new}.\n"
    return await make_commit(order.common_dir, now, merged.tree, None, message, order.landing.created)
