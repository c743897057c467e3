"""The records of scratch worktrees, in which landings on a target run verify."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import Json, TypeAdapter

from forkjoin.core.model import MergeJob
from forkjoin.core.settings import Recipe
from forkjoin.store.database import Queries
from forkjoin.store.port_blocks import find_ports
from forkjoin.store.transaction import Transactions


@dataclass(frozen=True, slots=True)
class ScratchWorktree:
    """A worktree in which landings on a target run verify, one after the other."""

    number: int
    project: int
    target: str  #: a full ref name
    recipe: Json[Recipe]  #: what it was made ready by, and is torn down by
    checkout: str  #: the user's, with which it shares; '' in a bare repository
    port_base: int  #: the first of its block of ports; 0: it has none
    used: float
    retired: bool  #: no landing uses it any more, and it is to go
    ready: str  #: the handle of the run that its files were made for; '' where there is none
    tip: str  #: the commit whose run has left what git ignores there; '' where none of that may stay


_scratch = TypeAdapter(ScratchWorktree).validate_python


class Scratches(Transactions):
    """The part of the store that tells of scratch worktrees."""

    @Transactions.step(quiet=True)
    def take_scratch(self, q: Queries, landing: MergeJob, recipe: Recipe) -> ScratchWorktree:
        """The one of a landing's target, recipe and checkout, used now; of a target the last two are kept."""
        now, target = time.time(), {"project": landing.project, "target": landing.target}
        number = q.find_scratch(**target, recipe=recipe, checkout=landing.checkout)
        if number is None:
            q.retire_replaced(**target)
            base = find_ports(q, self.first_port).take(recipe.ports)
            number = q.add_scratch(**target, recipe=recipe, checkout=landing.checkout, port_base=base, used=now)
        q.use_scratch(number=number, used=now)
        return _scratch(q.scratch(number=number))

    async def scratches(self) -> list[ScratchWorktree]:
        return [_scratch(row) for row in await self._rows("scratches")]

    async def set_scratch(self, number: int, ready: str, tip: str) -> None:
        """Record which run a scratch worktree is ready for, and which commit was run there last."""
        await self._set("set_scratch", quiet=True, number=number, ready=ready, tip=tip)

    async def retire_scratch(self, number: int) -> None:
        await self._set("retire_scratch", quiet=True, number=number)

    async def retire_unused(self, numbers: Iterable[int], before: float) -> None:
        """Retire these, and those that nobody has used since; never one that a landing may use."""
        await self._set("retire_unused", quiet=True, numbers=tuple(numbers), before=before)

    async def forget_scratch(self, number: int) -> None:
        """Delete the record of one of which nothing is left; its ports are free."""
        await self._set("forget_scratch", quiet=True, number=number)
