"""Carrying out a landing: merge branch after branch, verify each, then move the target once.

What is to be moved is recorded before the first file is touched. What passes by itself, as a full disk does, is waited
for: whoever calls tries again, and the landing goes on from its record.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from forkjoin.branch import git, join
from forkjoin.branch.checkout import TargetMovedError, find_checkout, hold
from forkjoin.branch.obstacle import find_obstacles
from forkjoin.error import BrokenPromiseError, CallerError, GitError, RecordsError, is_passing, words_of
from forkjoin.landing.answer import INTENT, LANDED, Intent, Landed, first
from forkjoin.landing.asker import check_asker
from forkjoin.landing.order import Order
from forkjoin.landing.recover import recover
from forkjoin.landing.resolve import find_resolving
from forkjoin.landing.scratch import Scratch
from forkjoin.landing.train import merge_all
from forkjoin.landing.undo import undo
from forkjoin.model import Landing, LandingState, Merge
from forkjoin.rooms import Rooms

log = logging.getLogger(__name__)

#: How often a landing begins again because somebody else moved its target meanwhile.
_TRIES = 10
#: How often what may pass is tried again before it is told; and what leaves a checkout midway, which must not be.
_PATIENCE, _LONG_PATIENCE = 12, 120


class Lander:
    """What it takes to carry out landings."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._store = rooms.store
        self._tried: dict[int, int] = {}

    async def land(self, landing: Landing, environment: Mapping[str, str] | None) -> None:
        """Carry a landing on to its end, and record its answer; it has none yet where its environment is missing.

        Raises:
            Exception: It is to be called again after a rest.
        """
        common_dir = (await self._store.project_numbered(landing.project)).common_dir
        order = Order(self._rooms, landing, common_dir, environment, await self._store.recipe(landing))
        scratch = Scratch(order)
        try:
            landed = await _Carriage(order, scratch).carry()
        except Exception as error:
            if self._may_pass(landing, error):
                raise
            if not isinstance(error, CallerError):
                log.exception("landing %d", landing.number)
            landed = Landed(git.short(landing.target), None, error=_words(landing, error))
        if landed:
            await self._leave(scratch, landing)
            await self._record(order, landed)
            self._tried.pop(landing.number, None)

    def _may_pass(self, landing: Landing, error: Exception) -> bool:
        """Whether a landing that met this is to be tried again."""
        passes, midway = is_passing(error), isinstance(error, BrokenPromiseError)
        if isinstance(error, RecordsError) or (midway and passes):
            return True  # what is not recorded, or left midway, can't be told as an end
        tried = self._tried[landing.number] = self._tried.get(landing.number, 0) + 1
        return tried <= (_LONG_PATIENCE if midway else _PATIENCE if passes else 0)

    async def _leave(self, scratch: Scratch, landing: Landing) -> None:
        try:
            await scratch.leave()
        except OSError:  # whoever waits for the answer gets it all the same; the next landing tries again
            log.exception("landing %d: what it has run is not forgotten", landing.number)

    async def _record(self, order: Order, landed: Landed) -> None:
        """Write the answer; branches that it says nothing of may be merged another time."""
        landing, merges = order.landing, dict[int, Merge]()
        if not landing.dry_run:
            agents = await self._store.agents_numbered(landing.agents)
            others = [one for one in await self._store.open_landings() if one.number != landing.number]
            elsewhere = {number for one in others if not one.dry_run for number in one.agents}
            waiting = (a.number for a in agents if a.merge is Merge.QUEUED and a.number not in elsewhere)
            merges = {**dict.fromkeys(waiting, Merge.UNMERGED), **landed.merges()}
        undone = () if landed.reverted else [int(one.removeprefix("a")) for one in landed.undone]
        end = partial(self._store.end_landing, landing, merges, undone)
        if landing.on_conflict == "report" or not landed.conflicted:
            return await end(lambda _: _dump(landed))
        try:
            resolving = await find_resolving(order, landed)
            await end(lambda numbers: _dump(resolving.tell(landed, numbers)), resolving.new, resolving.place)
        except CallerError as error:  # such as that no ports are left: what has landed is told all the same
            told = replace(landed, note=f"Nobody was spawned for the conflicts. {error}")
            await end(lambda _: _dump(told))
        return None


def _dump(landed: Landed) -> str:
    return LANDED.dump_json(landed).decode()


def _words(landing: Landing, error: Exception) -> str:
    if isinstance(error, GitError):
        return (
            f"git would not: {error.last_line}. Nothing was merged into {git.short(landing.target)}; merge again later."
        )
    return words_of(error)


@dataclass(frozen=True, slots=True)
class _Carriage:
    """One landing, while it is carried out."""

    order: Order
    scratch: Scratch

    async def carry(self) -> Landed | None:
        """What came of it; none where it must wait for its environment."""
        if self.order.landing.state is LandingState.MOVING and (landed := await self._go_on()):
            return landed
        if self.order.verify and self.order.environment is None:
            await check_asker(self.order.rooms, self.order.landing)
            return None
        for _ in range(_TRIES):
            intent = await self._intend()
            if self.order.landing.dry_run or intent.move.new == intent.move.old:
                return intent.landed
            if await self._move(intent):
                return intent.landed
        raise CallerError(f"{git.short(self.order.landing.target)} kept moving while it was merged into; try again.")

    async def _intend(self) -> Intent:
        """What the target is to be moved to, as it is now."""
        if self.order.landing.undoes is None:
            return await merge_all(self.order, self.scratch)
        return await undo(self.order, await self.order.rooms.store.landing(self.order.landing.undoes))

    async def _go_on(self) -> Landed | None:
        """Settle the move in which a daemon died, and make it again; none where the target has gone on since."""
        assert self.order.landing.move is not None
        intent = INTENT.validate_json(self.order.landing.move)
        if await recover(self.order.common_dir, intent.move, self.order.owner):
            return intent.landed
        return intent.landed if await self._move(intent) else None

    async def _move(self, intent: Intent) -> bool:
        """Move the target, and its files where it is checked out by now: verify may have taken long.

        False where somebody else has moved it; then all is as it was.
        """
        common_dir = self.order.common_dir
        try:
            where = await find_checkout(common_dir, self.order.landing.target)
            async with hold(common_dir, where, self.order.landing.target, self.order.owner) as held:
                move = replace(intent.move, checkout=where, folder=str(held.folder) if held else None)
                if held and (obstacles := await find_obstacles(held, move.old, move.new)):
                    raise CallerError(
                        f"These files in {where} are in the way: {', '.join(first(obstacles))}. Nothing was "
                        "merged; commit them or move them away, then merge again."
                    )
                recorded = INTENT.dump_json(replace(intent, move=move)).decode()
                await self.order.rooms.store.set_landing(self.order.landing, LandingState.MOVING, move=recorded)
                await check_asker(self.order.rooms, self.order.landing)  # whose end waits for what is recorded
                await join.carry_out(common_dir, move, held)
        except TargetMovedError:
            await self.order.rooms.store.set_landing(self.order.landing, LandingState.QUEUED)
            return False
        return True
