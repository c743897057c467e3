"""Carrying out a landing: merge branch after branch, verify each, then move the target once.

What is to be moved is recorded before the first file is touched. What passes by itself, as a full disk does, is waited
for: whoever calls tries again, and the landing goes on from its record.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from forkjoin.core.error import BrokenPromiseError, CallerError, GitError, RecordsError, is_passing, words_of
from forkjoin.core.model import FINAL, MergeJob, MergeJobState
from forkjoin.git.merging import move_target
from forkjoin.git.merging.files_in_the_way import find_files_in_the_way
from forkjoin.git.refs import find_tip, short_name
from forkjoin.git.worktrees.checkout import TargetMovedError, find_checkout, lock_checkout
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.recovery import settle_interrupted_move
from forkjoin.merge_queue.report import MERGE_REPORT, PLANNED_MOVE, MergeReport, PlannedMove, limit_names
from forkjoin.merge_queue.requester import check_requesting_agent
from forkjoin.merge_queue.resolver import assign_resolvers
from forkjoin.merge_queue.scratch import leave
from forkjoin.merge_queue.train import merge_all
from forkjoin.merge_queue.undo import undo
from forkjoin.services import Services
from forkjoin.workspace import config_tampering
from forkjoin.workspace.agent_work import find_last, take_over

log = logging.getLogger(__name__)

#: How often a landing begins again because somebody else moved its target meanwhile.
_TRIES = 10
#: How often what may pass is tried again before it is told; and what leaves a checkout midway, which must not be.
_PATIENCE, _LONG_PATIENCE = 12, 120
#: The same of a lock, for which git itself has waited for ten seconds each time.
_LOCK_PATIENCE = 2


class MergeRunner:
    """What it takes to carry out landings."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._tried: dict[int, int] = {}

    async def land(self, landing: MergeJob, environment: Mapping[str, str] | None) -> None:
        """Carry a landing on to its end, and record its answer; it has none yet where its environment is missing.

        Raises:
            Exception: It is to be called again after a rest.
        """
        common_dir = (await self._store.projects.get(landing.project)).common_dir
        order = MergeContext(
            self._services, landing, common_dir, environment, await self._store.projects.recipe(landing)
        )
        try:
            if order.verify:  # which runs agents' code
                await config_tampering.begin(self._services, landing)
            landed = await _carry(order)
        except Exception as error:
            if self._may_pass(landing, error):
                raise
            if not isinstance(error, CallerError):
                log.exception("landing %d", landing.number)
            landed = MergeReport(short_name(landing.target), None, error=_words(landing, error))
        if landed:
            await leave(order)
            changed = await config_tampering.find_warnings(self._services, landing)
            await self._record(order, replace(landed, note=" ".join(filter(None, (landed.note, *changed))) or None))
            await config_tampering.forget(self._services, landing)
            self._tried.pop(landing.number, None)

    def _may_pass(self, landing: MergeJob, error: Exception) -> bool:
        """Whether a landing that met this is to be tried again."""
        passes, midway = is_passing(error), isinstance(error, BrokenPromiseError)
        if isinstance(error, RecordsError) or (midway and passes):
            return True  # what is not recorded, or left midway, can't be told as an end
        tried = self._tried[landing.number] = self._tried.get(landing.number, 0) + 1
        patience = _LOCK_PATIENCE if isinstance(error, GitError) and error.met_lock else _PATIENCE
        return tried <= (_LONG_PATIENCE if midway else patience if passes else 0)

    async def _record(self, order: MergeContext, landed: MergeReport) -> None:
        """Write the answer; branches that it says nothing of may be merged another time."""
        landing = order.landing
        await _note_moved(order)
        merges = {} if landing.dry_run else landed.merges()
        undone = () if landed.reverted else [int(one.removeprefix("a")) for one in landed.undone]
        end = partial(self._store.merges.finish, landing, merges, undone)
        if landing.on_conflict == "agent" and landed.conflicted:
            try:
                resolving = await assign_resolvers(order, landed)
                return await end(lambda them: _dump(resolving.tell(landed, them)), resolving.new, resolving.place)
            except CallerError as error:  # such as that no ports are left: what has landed is told all the same
                note = f"{landed.note or ''} Nobody was spawned for the conflicts. {error}".strip()
                landed = replace(landed, note=note)
        return await end(lambda _: _dump(landed))


async def _note_moved(order: MergeContext) -> None:
    """Extend an ended agent's work to what was merged into its branch."""
    store, target = order.services.store, order.landing.target
    agent = await store.agents.of_branch(order.landing.project, target)
    recorded = (await store.merges.get(order.landing.number)).move if agent and agent.state in FINAL else None
    if agent is None or recorded is None:
        return
    move = PLANNED_MOVE.validate_json(recorded).move
    if await find_last(store, agent) == move.old and await find_tip(order.common_dir, target) == move.new:
        await take_over(store, order.common_dir, agent, move.new, f"Since its end its branch was moved: {move.why}.")


def _dump(landed: MergeReport) -> str:
    return MERGE_REPORT.dump_json(landed).decode()


def _words(landing: MergeJob, error: Exception) -> str:
    if isinstance(error, GitError):
        said = error.last_line.removesuffix(".")
        return f"git would not: {said}. Nothing was merged into {short_name(landing.target)}; merge again later."
    if isinstance(error, PermissionError):
        return (
            f"You may not use {error.filename2 or error.filename}, which is another user's, or in a folder that is: "
            f"{error.strerror}. Nothing was merged into {short_name(landing.target)}; let its owner allow that (in a "
            "folder with the sticky bit, chmod -t) or merge it, then merge again."
        )
    return words_of(error)


async def _carry(order: MergeContext) -> MergeReport | None:
    """What came of it; none where it must wait for its environment."""
    if order.landing.state is MergeJobState.MOVING and (landed := await _go_on(order)):
        return landed
    if order.verify and order.environment is None:
        await check_requesting_agent(order.services, order.landing)
        return None
    for _ in range(_TRIES):
        undoes = order.landing.undoes
        intent = await (
            merge_all(order) if undoes is None else undo(order, await order.services.store.merges.get(undoes))
        )
        if order.landing.dry_run or intent.move.new == intent.move.old or await _move(order, intent):
            return intent.landed
    raise CallerError(f"{order.into} kept moving while it was merged into; try again.")


async def _go_on(order: MergeContext) -> MergeReport | None:
    """Settle the move in which a daemon died, and make it again; none where the target has gone on since."""
    assert order.landing.move is not None
    intent = PLANNED_MOVE.validate_json(order.landing.move)
    done = await settle_interrupted_move(order.common_dir, intent.move, order.owner) or await _move(order, intent)
    return intent.landed if done else None


async def _move(order: MergeContext, intent: PlannedMove) -> bool:
    """Move the target, and its files where it is checked out by now: verify may have taken long.

    False where somebody else has moved it; then all is as it was.
    """
    store, target = order.services.store, order.landing.target
    try:
        where = await find_checkout(order.common_dir, target)
        async with lock_checkout(order.common_dir, where, target, order.owner) as held:
            move = replace(intent.move, checkout=where, folder=str(held.folder) if held else None)
            held, obstacles = await find_files_in_the_way(held, move.old, move.new) if held else (None, [])
            if obstacles:
                raise CallerError(
                    f"These files in {where} are in the way: {', '.join(limit_names(obstacles))}. Nothing was "
                    "merged; commit them or move them away, then merge again."
                )
            recorded = PLANNED_MOVE.dump_json(replace(intent, move=move)).decode()
            await store.merges.set_state(order.landing, MergeJobState.MOVING, move=recorded)
            await check_requesting_agent(order.services, order.landing)  # whose end waits for what is recorded
            await move_target.apply_move(order.common_dir, move, held)
    except TargetMovedError:
        await store.merges.set_state(order.landing, MergeJobState.QUEUED)
        return False
    return True
